"""What a command returns, and says, where something goes wrong that nobody refused on purpose."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from smolship.export import worker
from smolship.runtime.bench import bench
from smolship.runtime.errors import Fault, InputError, SetupError
from smolship.runtime.faults import EXTRAS, as_ours, ended
from smolship.runtime.process import python
from smolship.tools import cli
from smolship.tools.commands import inspect
from tests.runtime.test_imports import BLOCK
from tests.tools.commands import environ


def raising(error):
    def raise_it(*args, **kwargs):
        raise error

    return raise_it


CASES = [
    (KeyError("layers.3"), 70, "a fault of smolship itself: KeyError: 'layers.3'"),
    (AssertionError(), 70, "a fault of smolship itself: AssertionError"),
    (RecursionError("too deep\nin two lines"), 70, "too deep in two lines"),
    (ValueError("\ud800 lone"), 70, "ValueError"),
    (EOFError("no data"), 70, "a fault of smolship itself"),
    (ModuleNotFoundError("No module named 'smolship.x'", name="smolship.x"), 70, "a fault of smolship itself"),
    (MemoryError(), 3, "out of memory"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), 3, "out of memory"),
    (OSError(errno.EMFILE, "Too many open files"), 3, "too many files are open"),
    (BlockingIOError(errno.EAGAIN, "fork"), 3, "no more processes"),
    (ModuleNotFoundError("No module named 'torch'", name="torch"), 3, "pip install 'smolship[export]'"),
    (ImportError("libcudart.so.12: cannot open", name="onnxruntime.capi"), 3, "pip install 'smolship[onnx]'"),
    (ImportError("AutoModel requires the PyTorch library but it was not found"), 3, "'smolship[export]'"),
    (ImportError("Please install `accelerate`", name=None), 3, "'smolship[export]'"),
    (ImportError("no llama_cpp"), 3, "'smolship[gguf]'"),
    (ModuleNotFoundError("No module named 'rich.table'", name="rich.table"), 3, "--force-reinstall smolship"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (BrokenPipeError(errno.EPIPE, "gone"), 0, ""),
    (PermissionError(errno.EACCES, "no"), 3, "cannot write there"),
    (InputError("it", got=1), 2, "got:      1"),
]


@pytest.mark.parametrize(("error", "code", "words"), CASES, ids=[f"{type(c[0]).__name__}-{c[1]}" for c in CASES])
def test_what_is_raised_has_its_code(error, code, words, faults, monkeypatch, capfd):
    monkeypatch.setattr(inspect, "open_bundle", raising(error))
    assert cli.run(["inspect", "x"]) == code
    if not isinstance(error, BrokenPipeError):  # whose reader has gone
        printed = capfd.readouterr()
        assert printed.out == "" and "Traceback" not in printed.err and words in printed.err
        if code == 70:
            (file,) = faults()
            (line,) = printed.err.strip().splitlines()
            assert line.endswith(str(file))
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            text = file.read_text()
            assert "Traceback" in text and type(error).__name__ in text and "raise_it" in text
    assert len(faults()) == (code == 70)


def test_a_fault_without_a_place_for_its_traceback(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "mkstemp", raising(OSError(errno.ENOSPC, "No space left")))
    monkeypatch.setattr(inspect, "open_bundle", raising(KeyError("x")))
    assert cli.run(["inspect", "x"]) == 70
    assert "a fault of smolship" in (said := capsys.readouterr().err) and "No space left" in said


def test_every_package_of_ours_has_its_extra():
    """What we depend on is in the table."""
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = {"export", "executorch", "coreml", "gguf", "onnx"}
    wanted = [
        w for group in [project["dependencies"], *(project["optional-dependencies"][e] for e in extras)] for w in group
    ]
    for requirement in wanted:
        name = requirement.partition(">")[0].partition("=")[0].lower().replace("-", "_")
        assert EXTRAS[{"llama_cpp_python": "llama_cpp"}.get(name, name)] in {*extras, ""}


# Steps of an export, which are processes of their own.

STEP = """
import os, signal, sys
from smolship.export import worker
def broken(kind, progress):
    if kind == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if kind == "crash": os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "exit": print("native words", file=sys.stderr); os._exit(9)
    if kind == "memory": bytearray(1 << 62)
    if kind == "import": import torch_that_is_not_there
    if kind == "none": raise ModuleNotFoundError("No module named 'onnx_ir'", name="onnx_ir")
    {}["missing"]
worker.STEPS["broken"] = broken
worker.main()
"""


@pytest.fixture
def broken_step(tmp_path, monkeypatch):
    (tmp_path / "broken_step.py").write_text(STEP)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    command = worker.python
    monkeypatch.setattr(worker, "python", lambda module, *arguments: command("broken_step", *arguments))
    return lambda kind: worker.run_step("broken", {"kind": kind}, lambda what, done, total: None)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("key", Fault, r"in the step 'broken': KeyError: 'missing'; please report it"),
        ("import", Fault, r"torch_that_is_not_there"),
        ("none", SetupError, r"onnx_ir cannot be imported\n(?s:.*)'smolship\[onnx\]'"),
        ("memory", SetupError, "out of memory"),
        ("kill", SetupError, r"exit status -9, SIGKILL \(out of memory\?\)"),
        ("crash", SetupError, r"exit status -11, SIGSEGV\n"),
        ("exit", SetupError, r"exit status 9\n(?s:.*)native words"),
    ],
)
def test_a_step_that_fails(broken_step, faults, kind, error, words):
    with pytest.raises(error, match=words):
        broken_step(kind)
    assert len(faults()) == (error is Fault)
    for file in faults():
        assert "broken_step.py" in file.read_text(), "the traceback is the step's own"


def test_a_step_that_cannot_begin(faults, tmp_path, monkeypatch):
    """Its modules do not import."""
    command = worker.python
    monkeypatch.setattr(worker, "python", lambda module, *arguments: command("smolship.runtime.nothing"))
    with pytest.raises(SetupError, match="exit status 1\n"):
        worker.run_step("quantize", {}, lambda what, done, total: None)
    (tmp_path / "unfinished.py").write_text("import smolship.runtime.nothing")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(worker, "python", lambda module, *arguments: command("unfinished"))
    with pytest.raises(Fault, match=r"in the step 'quantize': ModuleNotFoundError: No module named 'smolship.runtime"):
        worker.run_step("quantize", {}, lambda what, done, total: None)
    assert len(faults()) == 1


def test_a_bench_that_fails(tmp_path, faults):
    (tmp_path / "m").write_bytes(b"x")
    start = tmp_path / "start.py"
    start.write_text(
        "from smolship.runtime import execute\nexecute.load_engine = lambda name: {}['engine']\nexecute.main()\n"
    )
    with pytest.raises(Fault, match=r"in the executor: KeyError: 'engine'; please report"):
        bench("onnx", tmp_path, {"file": "m"}, threads=1, repeats=1, command=(sys.executable, str(start)))
    assert len(faults()) == 1


def test_signals_have_names():
    for number in (signal.SIGABRT, signal.SIGBUS, signal.SIGTERM):
        assert signal.Signals(number).name in str(ended("it", -number, ""))
    assert "signal 70" in str(ended("it", -70, ""))


def test_where_a_package_is_broken_within(tmp_path, monkeypatch):
    """An ImportError that names nothing, from the inside of an installed package."""
    home = tmp_path / "site-packages" / "executorch"
    home.mkdir(parents=True)
    (home / "__init__.py").write_text("raise ImportError('undefined symbol: _ZN2at')")
    monkeypatch.syspath_prepend(home.parent)
    for name in [name for name in sys.modules if name.partition(".")[0] == "executorch"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError) as caught:
        __import__("executorch")
    error = as_ours(caught.value)
    assert isinstance(error, SetupError) and "'smolship[executorch]'" in str(error)


# Packages that are not installed, wherever they are asked for.


@pytest.mark.parametrize(
    ("blocked", "to", "extra"),
    [
        ("torch", "onnx", "export"),
        ("onnx_ir", "onnx", "onnx"),
        # As those; which package each target wants, test_preflight.py asks in one process.
        pytest.param("transformers", "gguf", "export", marks=pytest.mark.real),
        pytest.param("executorch", "executorch", "executorch", marks=pytest.mark.real),
        pytest.param("gguf", "gguf", "gguf", marks=pytest.mark.real),
    ],
)
def test_export_without_a_package(tiny, tmp_path, blocked, to, extra):
    """In this process or in a step: exit code 3 and the line for pip."""
    block = BLOCK[: BLOCK.index("import importlib")].format(blocked=[blocked])
    (tmp_path / "sitecustomize.py").write_text(block)
    path = os.pathsep.join([str(tmp_path), environ()["PYTHONPATH"]])
    out = tmp_path / "out"
    command = python(
        "smolship.tools.cli",
        "export",
        str(tiny("llama")),
        "-o",
        str(out),
        "--to",
        to,
        "--context",
        "32",
        "--probe-tokens",
        "16",
    )
    done = subprocess.run(command, env=environ(PYTHONPATH=path), capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert f"pip install 'smolship[{extra}]'" in done.stderr and "Traceback" not in done.stderr
    assert not out.exists()


def test_exit_codes_are_told(capsys):
    assert all(str(code) in (cli.__doc__ or "") for code in (0, 1, 2, 3, 70, 130))
    assert json.dumps(Fault("x").exit_code) == "70"
