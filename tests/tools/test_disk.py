"""Whole exports where the disk, or the system, gets in the way: the old bundle stays, and nothing else does."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smolship.export import worker
from smolship.export.checkpoints import open_checkpoint
from smolship.export.forecast import forecast
from smolship.export.weights import SCHEMES, layouts, stored_shapes
from smolship.runtime import disk
from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import SetupError, SmolshipError
from smolship.tools import cli
from smolship.tools.cli import run
from tests.bundles import snapshot

COMMAND = [sys.executable, "-m", "smolship.tools.cli"]


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "bundle")


@pytest.fixture
def set_bytes(tiny):
    """Bytes of the tiny model's quantized weights."""
    checkpoint = open_checkpoint(str(tiny("llama")))
    shapes = stored_shapes(layouts(checkpoint, checkpoint.config, SCHEMES["int4"]))
    return sum(dtype.itemsize * shape[0] * (shape[1] if len(shape) > 1 else 1) for dtype, shape in shapes.values())


def export(model, out, *options):
    return [*COMMAND, "export", str(model), "-o", str(out), "--context", "64", *options]


@pytest.fixture
def limit():
    """limit(bytes): how large a file this process and its children may write, until the test ends."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def says_why(bundle, before, said, file, need, limit):
    (line,) = [line for line in said.splitlines() if line.startswith("smolship:")]
    assert line.startswith("smolship: a file may not grow so large: ") and "Traceback" not in said
    assert re.search(rf"{file} needs {need}.* is {limit:,}$", line), line
    assert snapshot(bundle) == before and [p.name for p in bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "target, room, tokens, file, need",
    [
        ("gguf", 100, 0, r"\.work/weights\.safetensors", "[0-9,]+ bytes"),
        ("executorch", 20_000, 0, r"executorch/model\.pte", "[0-9,]+ bytes"),
        ("onnx", 10_000, 0, r"onnx/model\.onnx\.data", "more than its"),
        ("gguf", 100_000, 128, r"probes\.npz", "more than its"),
    ],
)
def test_a_file_that_may_not_grow(tiny, bundle, set_bytes, limit, capsys, target, room, tokens, file, need):
    before, command = snapshot(bundle), export(tiny("llama"), bundle, "--to", target, "--probe-tokens", str(tokens))
    limit(set_bytes + room)
    assert run(command[len(COMMAND) :]) == 3
    says_why(bundle, before, capsys.readouterr().err, file, need, set_bytes + room)


@pytest.mark.real
def test_a_file_that_native_code_may_not_grow(steps_apart, tiny, bundle, set_bytes, limit, capsys):
    """It does not say why it failed, and writes to a temporary file first."""
    before, command = snapshot(bundle), export(tiny("llama"), bundle, "--to", "coreml", "--probe-tokens", "0")
    limit(set_bytes + 6_000)
    assert run(command[len(COMMAND) :]) == 3
    says_why(bundle, before, capsys.readouterr().err, "weight.bin", "more than its", set_bytes + 6_000)


@pytest.mark.real
def test_a_disk_that_fills_up_half_way(tiny, tmp_path):
    """It has nearly the room that is forecast; a mount point, which is left empty."""
    need = forecast(tiny("llama"), to=("onnx",), context=64, probe_tokens=0).disk_bytes
    size = need * 4 // 5 // 4096 * 4096
    script = 'mount -t tmpfs -o size=$1 none "$0" && shift && "$@"; code=$?; ls -A "$0"; exit $code'
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(tmp_path), str(size)]
    command = export(tiny("llama"), tmp_path, "--to", "onnx", "--probe-tokens", "0")
    done = subprocess.run([*unshare, *command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    assert "the disk is full: " in done.stderr and "onnx/model.onnx.data needs more than" in done.stderr
    assert done.stdout == "", "something is left on the disk"


@contextlib.contextmanager
def half_made(command, bundle, preexec=None):
    """A process that makes `bundle`, as soon as its first target is being written."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=preexec) as child:
        try:
            deadline = time.monotonic() + 120
            while not list(bundle.parent.glob(f".{bundle.name}.*/onnx/model.onnx.data")):
                assert time.monotonic() < deadline and child.poll() is None
                time.sleep(0.02)
            yield child
        finally:
            child.kill()


def hear(signum):
    return lambda: signal.signal(signum, signal.SIG_DFL)


@pytest.mark.real
def test_the_terminal_is_closed(tiny, bundle):
    before = snapshot(bundle)
    command = export(tiny("smollm3"), bundle, "--to", "onnx", "--probe-tokens", "4096")
    with half_made(command, bundle, hear(signal.SIGHUP)) as child:
        for _ in range(3):  # a shell may send it more than once
            child.send_signal(signal.SIGHUP)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGHUP and b"Traceback" not in errors
    assert snapshot(bundle) == before and [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_what_nohup_ignores_stays_ignored(monkeypatch):
    before = {number: signal.getsignal(number) for number in cli.ENDINGS}
    monkeypatch.setattr(cli, "run", lambda arguments: 0)
    try:
        for wanted in (signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(signal.SIGHUP, wanted)
            with pytest.raises(SystemExit):
                cli.main([])
            assert (signal.getsignal(signal.SIGHUP) is signal.SIG_IGN) == (wanted is signal.SIG_IGN)
            assert callable(signal.getsignal(signal.SIGTERM))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.real
def test_what_a_killed_export_left_goes_with_the_next(tiny, bundle):
    command = export(tiny("smollm3"), bundle, "--to", "onnx", "--probe-tokens", "4096")
    with half_made(command, bundle) as child:
        steps = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        child.kill()
        for step in steps:  # sessions of their own, which outlive a parent that is killed
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(step), signal.SIGKILL)
        child.communicate()
    (left,) = [p for p in bundle.parent.iterdir() if p != bundle]
    lookalike = left.with_name(".bundle.00000000.partial")
    shutil.copytree(left, lookalike)
    (lookalike / "thesis.tex").write_text("years of work")
    open_bundle(bundle).verify()
    assert (
        run(["export", str(tiny("llama")), "-o", str(bundle), "--context", "64", "--to", "gguf", "--probe-tokens", "0"])
        == 0
    )
    assert sorted(p.name for p in bundle.parent.iterdir()) == [lookalike.name, "bundle"]
    assert set(open_bundle(bundle).manifest.targets) == {"gguf"}


def test_the_folder_one_stands_in(tiny, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    command = ["export", str(tiny("llama")), "-o", ".", "--context", "64", "--to", "gguf", "--probe-tokens", "0"]
    inode = folder.stat().st_ino
    assert run(command) == 0
    open_bundle(Path()).verify()
    assert folder.stat().st_ino == inode
    assert run(command) == 0  # now it is an older bundle
    open_bundle(folder).verify()
    assert [p.name for p in tmp_path.iterdir()] == ["here"]


def test_a_step_that_is_killed_for_it(tmp_path, monkeypatch):
    """Native code that ends the process says nothing at all."""
    (tmp_path / "w").write_bytes(bytes(10))
    monkeypatch.setattr(worker, "python", lambda *command: ["false"])
    arguments = {"folder": str(tmp_path)}
    with pytest.raises(SmolshipError) as caught:
        worker.run_step("lower", arguments, lambda *step: None)
    assert "disk" not in str(caught.value)
    monkeypatch.setattr(disk, "_free", lambda place: 512)
    with pytest.raises(SetupError, match=r"the disk is full: .*/w needs more than its 10 bytes, and 512 are free"):
        worker.run_step("lower", arguments, lambda *step: None)
