"""Children: what they answer, what they print, and how they end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smolship.runtime import child
from smolship.runtime.child import Child, Ended
from smolship.runtime.errors import Fault, GateError, InputError, SetupError
from smolship.runtime.process import environment

CHILD = """
import os, subprocess, sys, time
from smolship.runtime import child
from smolship.runtime.errors import GateError, InputError

def answer(request, progress):
    print("words of a library")
    os.write(1, b"words of native code\\n")
    for i in range(3):
        progress("counting", i, 2)
    match request:
        case {"say": said}: return said
        case {"refuse": got}: raise InputError("no", got=got)
        case "tokens":
            for i in range(3): progress.tokens([i, i])
            return i
        case "gate": raise GateError("shut")
        case "fault": {}["missing"]
        case "cut": os.write(3, b'{"result": 1'); os._exit(0)
        case "sleep": time.sleep(60)
        case "beget": return subprocess.Popen(["sleep", "60"]).pid
        case ["line", what]: return what

sys.exit(child.serve(answer, "the child of a test", [["line", sys.argv[2]]] if len(sys.argv) > 2 else None,
                     foreign=sys.argv[1] == "foreign"))
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "child.py").write_text(CHILD)
    return [sys.executable, str(tmp_path / "child.py"), "ours"]


def ask(command, request, seen=None):
    progress = (lambda *step: seen.append(step)) if seen is not None else lambda what, done, total: None
    return child.run("the child", command, request, progress, environment())


def test_one_question(command):
    seen = []
    assert ask(command, {"say": ["é", None, 1.5]}, seen) == ["é", None, 1.5]
    assert seen[-1] == ("counting", 2, 2)
    assert ask([*command, "a line"], None) == "a line"


def test_tokens_come_as_they_are_said(command):
    class Heard(child.Listener):
        ids, steps = [], []

        def tokens(self, ids):
            self.ids.append(ids)

    assert child.run("the child", command, "tokens", heard := Heard(), environment()) == 2
    assert heard.ids == [[0, 0], [1, 1], [2, 2]]
    assert ask(command, "tokens") == 2, "nobody need listen"


def test_errors_arrive_as_what_they_are(command, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(InputError, match=r"^no\n  got:      7$"):
        ask(command, {"refuse": 7})
    with pytest.raises(GateError, match="shut"):
        ask(command, "gate")
    with pytest.raises(Fault, match="in the child of a test: KeyError: 'missing'"):
        ask(command, "fault")
    assert "KeyError" in next(tmp_path.glob("smolship-fault-*")).read_text()


def test_an_answer_that_is_cut_off_is_none(command):
    with pytest.raises(SetupError, match=r"the child ended without a result\n(?s:.*)words of native code"):
        ask(command, "cut")


def test_what_code_of_others_raises_ends_it(command, faults):
    with pytest.raises(Fault, match="in the child: KeyError: 'missing'"):
        ask([*command[:-1], "foreign"], "fault")
    assert len(faults()) == 1
    with pytest.raises(InputError, match="no"):
        ask([*command[:-1], "foreign"], {"refuse": 7})


def test_many_questions(command, tmp_path):
    with (tmp_path / "log").open("w") as log, Child(command, log, environment()) as asked:
        for i in range(3):
            assert asked.ask({"say": i}, lambda *step: None) == i
            with pytest.raises(InputError):
                asked.ask({"refuse": i}, lambda *step: None)
    said = (tmp_path / "log").read_text()
    assert said.count("words of a library") == said.count("words of native code") == 6


def test_one_that_is_late_or_gone(command, tmp_path):
    with (tmp_path / "log").open("w") as log, Child(command, log, environment()) as asked:
        start = time.monotonic()
        with pytest.raises(Ended) as end:
            asked.ask("sleep", lambda *step: None, limit_s=0.5)
        assert end.value.late and end.value.status == -9 and time.monotonic() - start < 30
        with pytest.raises(Ended) as end:
            asked.ask({"say": 1}, lambda *step: None)
        assert not end.value.late


@pytest.mark.parametrize("raised", [None, KeyboardInterrupt])
def test_its_own_children_go_with_it(command, tmp_path, raised):
    with (tmp_path / "log").open("w") as log:
        try:
            with Child(command, log, environment()) as asked:
                pid = asked.ask("beget", lambda *step: None)
                os.kill(pid, 0)
                if raised:
                    raise raised
        except KeyboardInterrupt:
            pass
    deadline = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


PARENT = """
import sys
from smolship.runtime.child import Child
from smolship.runtime.process import environment
with Child(sys.argv[1:], sys.stderr, environment()) as asked:
    print(asked.process.pid, asked.ask("beget", lambda *step: None), flush=True)
    asked.ask("sleep", lambda *step: print("begun", flush=True))
"""


def test_it_ends_after_a_parent_that_was_killed(command):
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", PARENT, *command], env=environment(), stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(_alive, pids))
        assert parent.stdout.readline() == "begun\n"
        parent.kill()
    deadline = time.monotonic() + 30
    while any(map(_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_the_exit_code_is_that_of_the_last_error(command):
    import subprocess

    said = subprocess.run(command, input='"gate"\n', capture_output=True, text=True, env=environment())
    assert said.returncode == 1 and '{"error": ["GateError", "shut"]}' in said.stdout
    said = subprocess.run(command, input='"gate"\n{"say": 1}\n', capture_output=True, text=True, env=environment())
    assert said.returncode == 0 and said.stdout.splitlines()[-1] == '{"result": 1}'
