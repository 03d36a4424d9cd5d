"""How children start, and how threads wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smolship.runtime import process
from smolship.runtime.process import BRIEF, MARK, SPIN_US, USERS, environment, python, wait_briefly, waiting

NOBODY = (*USERS, MARK, "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONSAFEPATH")


@pytest.fixture
def nobody(monkeypatch):
    """An environment in which nobody said anything."""
    for name in NOBODY:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_children_wait_briefly(nobody):
    assert environment().items() >= BRIEF.items()
    assert not any(name in environment(active=True) for name in (*USERS, MARK))
    assert waiting() == "actively"


def test_the_command_waits_briefly_and_its_bench_does_not(nobody):
    nobody.setattr(os, "environ", dict(os.environ))
    wait_briefly()
    assert waiting() == "briefly" and os.environ.items() >= BRIEF.items()
    assert environment().items() >= BRIEF.items()
    assert not any(name in environment(active=True) for name in (*USERS, MARK))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMP_WAIT_POLICY", "active"),
        ("OMP_WAIT_POLICY", "PASSIVE"),
        ("GOMP_SPINCOUNT", "10"),
        ("KMP_BLOCKTIME", "3"),
        ("KMP_LIBRARY", "turnaround"),
    ],
)
def test_the_user_decides(nobody, name, value):
    nobody.setenv(name, value)
    wait_briefly()
    for active in (True, False):
        found = environment(active)
        assert {key: found[key] for key in (*USERS, MARK) if key in found} == {name: value}
    assert waiting() == ("asleep" if value == "PASSIVE" else "actively")


def test_a_child_is_a_child_of_this_tree(nobody, tmp_path):
    """Python's own streams are UTF-8 there, its path has no working folder, and smolship is this one."""
    nobody.setenv("PYTHONIOENCODING", "cp1252")
    (tmp_path / "asked.py").write_text(
        "import json, os, sys, smolship.runtime.process as p\n"
        "print(json.dumps([sys.path, sys.flags.safe_path, sys.stdout.encoding, p.__file__, sys.argv]))"
    )
    env = environment()
    env["PYTHONPATH"] += os.pathsep + str(tmp_path)
    done = subprocess.run(python("asked", "a b", "é"), env=env, cwd=tmp_path.parent, capture_output=True, check=True)
    path, safe, encoding, file, argv = json.loads(done.stdout)
    assert str(tmp_path.parent) not in path and "" not in path
    assert safe and encoding == "utf-8" and file == process.__file__ and argv[1:] == ["a b", "é"]


def test_roots_hold_nothing_else():
    """They come before the standard library: what lies beside an installed smolship must not."""
    for root in process.roots(installed=False).split(os.pathsep):
        assert Path(root).name != "site-packages"
        assert not list(Path(root).glob("*.py")) and not list(Path(root).glob("*/__init__.py"))


@pytest.mark.parametrize("given", ["", ".:", "{here}", "{here}:", "{other}::sub"])
def test_the_working_folder_is_forgotten(monkeypatch, tmp_path, given):
    """But where its full name was given."""
    other = tmp_path / "other"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", given.format(here=tmp_path, other=other))
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), str(tmp_path / "sub"), str(other), "/usr/lib/python"])
    process.forget_working_folder()
    here = [str(tmp_path)] if "here" in given else []
    sub = [] if "sub" in given else [str(tmp_path / "sub")]
    assert sys.path == [*here, *sub, str(other), "/usr/lib/python"]


def test_a_working_folder_that_is_gone(monkeypatch, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "path", ["", "/usr/lib/python"])
    process.forget_working_folder()
    assert sys.path == ["/usr/lib/python"] and environment()


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("passive", {"allow_spinning": "0"}),
        ("active", {"allow_spinning": "1"}),
        (None, {"allow_spinning": "1", "spin_duration_us": str(SPIN_US)}),
    ],
)
def test_onnx_runtime_waits_as_openmp_does(nobody, tmp_path, user, expected):
    import onnxruntime

    from smolship.runtime.engines import onnx
    from smolship.runtime.errors import InputError

    said = []

    class Options(onnxruntime.SessionOptions):
        def add_session_config_entry(self, key, value):
            said.append((key, value))
            super().add_session_config_entry(key, value)

    for name in ("m", "m.data"):
        (tmp_path / name).write_bytes(b"x")
    nobody.setattr(os, "environ", dict(os.environ) | ({"OMP_WAIT_POLICY": user} if user else {}))
    wait_briefly()
    nobody.setattr(onnxruntime, "SessionOptions", Options)
    with pytest.raises(InputError, match="cannot open"):
        onnx.open_session(tmp_path, {"file": "m", "context": 8}, 2)
    assert dict(said) == {f"session.intra_op.{key}": value for key, value in expected.items()}


@pytest.mark.parametrize("user", [None, "passive"])
def test_bench_waits_actively_and_says_so(nobody, tmp_path, user):
    """Also where the command that asks for it has put its own threads to sleep."""
    from smolship.runtime import bench as module
    from smolship.runtime import execute
    from smolship.runtime.memory import Memory
    from smolship.runtime.plan import Plan
    from smolship.runtime.records import read_file
    from smolship.runtime.result import Loads
    from tests.runtime.test_bench import timed_session

    nobody.setattr(os, "environ", dict(os.environ) | ({"OMP_WAIT_POLICY": user} if user else {}))
    wait_briefly()

    def child(who, command, request, progress, env, started):
        """The process that measures, here, in the environment that it is given."""
        given, made, _ = map(Path, command[-3:])
        plan = read_file(Plan, given, "the plan")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "environ", env)
            result = execute.execute(plan, timed_session(300)[0], "")
        result.loads = Loads(import_ms=1.0, cold_ms=9.0, warm_ms=3.0, dropped=True) if plan.loads else None
        result.memory = result.memory_before_load = Memory(1, None, None)
        result.save(made)

    (tmp_path / "m").write_bytes(b"x")
    nobody.setattr(execute.child, "run", child)
    nobody.setattr(module, "copy_bandwidth", lambda threads: [10.0])
    conditions = module.bench("fake", tmp_path, {"file": "m"}, threads=1, repeats=1).conditions
    assert ("in a loop" in conditions[1]) == (user is None)
    assert ("sleep while they wait" in conditions[1]) == (user == "passive")


def test_every_command_begins_so(nobody):
    code = "from smolship.tools.console import begin; begin(); import os; print(os.environ['GOMP_SPINCOUNT'])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{BRIEF['GOMP_SPINCOUNT']}\n"
