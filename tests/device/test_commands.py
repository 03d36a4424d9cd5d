"""The commands on an emulated arm64 board: set up, parity, bench, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from smolship.export import export
from smolship.runtime.manifest import ListedFile, read_manifest
from smolship.runtime.process import roots
from smolship.tools.cli import run
from smolship.tools.devices.record import Record
from tests.bundles import sign
from tests.device.board import Board
from tests.edit import replace_bytes

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def there(pi5: Board) -> str:
    return pi5.uri


@pytest.fixture(autouse=True)
def reached(pi5: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh knows the board's keys."""
    monkeypatch.setenv("PATH", str(pi5.clients), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(__file__).parents[2] / ".cache"))


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tmp_path_factory) -> Path:  # type: ignore[no-untyped-def]
    """One target, at a name that a shell would read."""
    copy = shutil.copytree(tiny_bundle("llama", "int4"), tmp_path_factory.mktemp("b") / "a b;$(touch x)'\"")
    manifest = read_manifest(copy)
    for name in list(manifest.targets):
        if name != "onnx":
            del manifest.targets[name]
            shutil.rmtree(copy / name)
    manifest.write(copy)
    return copy


def said(capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(list(command))
    return (code, *capsys.readouterr())


def test_without_a_set_up_it_says_how(capsys, bundle, there):  # type: ignore[no-untyped-def]
    code, _, err = said(capsys, "parity", str(bundle), "--device", there)
    assert code == 3 and f"smolship devices setup {there}" in err


def test_set_up_parity_and_bench(capsys, bundle, there, board_wheels, tmp_path, pi5):  # type: ignore[no-untyped-def]
    code, out, err = said(capsys, "devices", "setup", there, "--wheelhouse", str(board_wheels), "--json")
    assert code == 0, err
    assert json.loads(out)["site"].startswith("/home/pi/.cache/smolship/device/site-")
    code, out, err = said(capsys, "devices", "list", there, "--json")
    (found,) = json.loads(out)
    assert code == 0 and found["state"] == "set up for onnx" and found["machine"] == "aarch64"
    ask = ["parity", str(bundle), "--quick", "--device", there, "--keep", str(tmp_path), "--json"]
    code, out, err = said(capsys, *ask)
    assert code == 3 and "KleidiAI" in out and "--no-kleidiai" in out and "neither passed nor failed" in out
    code, out, err = said(capsys, *ask, "--no-kleidiai")
    assert code == 0, err
    (report,) = json.loads(out)
    assert report["passed"] and "aarch64" in report["host"]
    judge = ["judge", str(bundle), str(tmp_path / "onnx.json"), "--no-kleidiai", "--json"]
    code, out, err = said(capsys, *judge)
    (again,) = json.loads(out)
    assert code == 0 and again["checks"] == report["checks"]


@pytest.mark.parametrize(("cpu", "quant"), [("cortex-a76", "int4"), ("cortex-a72", "int4"), ("cortex-a72", "int8")])
def test_floors_on_arm(capsys, tiny, tmp_path, boards, board_wheels, monkeypatch, cpu, quant):  # type: ignore[no-untyped-def]
    """Activations by rows, with KleidiAI, and float32: each has its floor, and none passes by another's."""
    board, made = boards(cpu), tmp_path / "bundle"
    monkeypatch.setenv("PATH", str(board.clients), prepend=":")
    export(tiny("smollm3"), made, to=("onnx",), quant=quant, context=128, probe_tokens=256, arm=True)
    assert said(capsys, "devices", "setup", board.uri, "--wheelhouse", str(board_wheels))[0] == 0
    ask = ["parity", str(made), "--quick", "--device", board.uri, "--keep", str(tmp_path / "kept"), "--json"]
    code, out, err = said(capsys, *ask)
    assert code == 0, out + err


def test_a_processor_without_dot_products_has_no_floor(capsys, bundle, boards, board_wheels, monkeypatch):  # type: ignore[no-untyped-def]
    pi4 = boards("cortex-a72")
    monkeypatch.setenv("PATH", str(pi4.clients), prepend=":")
    assert said(capsys, "devices", "setup", pi4.uri, "--wheelhouse", str(board_wheels))[0] == 0
    code, _, err = said(capsys, "parity", str(bundle), "--quick", "--device", pi4.uri, "--no-kleidiai")
    assert code == 3 and "activations in float32" in err


def test_executorch_without_python_or_torch(capsys, tiny_bundle, there, tmp_path):  # type: ignore[no-untyped-def]
    bundle = str(tiny_bundle("llama", "int4"))
    code, out, err = said(capsys, "parity", bundle, "-t", "executorch", "--quick", "--device", there)
    assert code == 0, out + err
    ask = ["bench", bundle, "-t", "executorch", "--repeats", "1", "--device", there, "--record", str(tmp_path)]
    code, out, err = said(capsys, *ask, "--max-memory", "1")
    assert code == 3 and "decode after" in out and "not judged" in err and "the device is emulated" in err
    record = Record.load(tmp_path / "executorch.json")
    assert record.emulated and record.device.uri == there and len(record.device.cores) >= 1 and record.samples
    assert record.answer.check == "as planned" and record.memory.peak.value > 1 << 20
    assert "was on the device before" in record.loads.first_ever.why  # for parity
    assert said(capsys, "report", str(tmp_path / "executorch.json"), "-o", str(tmp_path / "page.html"))[0] == 0


def test_an_answer_is_the_local_one(capsys, tiny_bundle, there, pi5):  # type: ignore[no-untyped-def]
    """Streamed, without Python; Ctrl-C ends it, and neither leaves a prompt on the board."""
    ask = ["generate", str(tiny_bundle("llama", "int4")), "the quick", "--raw", "-t", "executorch"]
    few = [*ask, "--max-tokens", "8", "--json"]
    code, out, _ = said(capsys, *few)
    here = json.loads(out)
    code, out, err = said(capsys, *few, "--device", there)
    assert code == 0, err
    found = json.loads(out)
    assert len(found["ids"]) == 8 and found["ids"] == here["ids"] and found["text"] == here["text"]
    assert found["end"] == "max_tokens" and found["ttft_s"] > 0 and found["decode_tokens_per_s"] > 0
    line = [sys.executable, "-m", "smolship.tools.cli", *ask, "--max-tokens", "1000", "--device", there]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, env=os.environ | {"PYTHONPATH": roots()}, preexec_fn=listen, **pipes) as process:
        assert process.stdout and process.stdout.read(1), process.communicate()[1]
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and b"[interrupted; " in err and time.monotonic() - began < 10, err
    left = list((pi5.home / ".cache" / "smolship" / "device" / "runs").glob("*"))
    assert not [path for path in left if "-" in path.name or path.name == "lock"]


def listen() -> None:
    """In the child: a shell's background jobs are started deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def tokenizer_of(out: str) -> dict[str, Any]:
    """The row of a report."""
    (report,) = json.loads(out)
    (check,) = (check for check in report["checks"] if check["stage"] == "tokenizer")
    return dict(check)


@pytest.mark.parametrize("cpu", ["cortex-a76", "cortex-a72"])
def test_gguf(capsys, tiny_bundle, boards, board_wheels, monkeypatch, tmp_path, cpu):  # type: ignore[no-untyped-def]
    """With dot products and without: llama.cpp computes alike."""
    board = boards(cpu)
    monkeypatch.setenv("PATH", str(board.clients), prepend=":")
    ask = ["-t", "gguf", "--device", board.uri]
    code, _, err = said(capsys, "parity", str(tiny_bundle("llama", "int4")), *ask)
    assert code == 3 and f"smolship devices setup {board.uri} --target gguf" in err
    code, _, err = said(capsys, "devices", "setup", board.uri, "-t", "gguf", "--wheelhouse", str(board_wheels))
    assert code == 0, err
    code, out, err = said(capsys, "parity", str(tiny_bundle("llama", "int4")), "--quick", "--json", *ask)
    assert code == 0, out + err
    assert tokenizer_of(out)["top1"] == 1 and tokenizer_of(out)["positions"] > 600  # llama.cpp's own, there
    if cpu == "cortex-a72":
        return
    code, out, err = said(capsys, "bench", str(tiny_bundle("llama", "int4")), "--repeats", "1", *ask)
    assert code == 0 and "decode after" in out, err
    copy = shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "b")
    replace_bytes(copy / "gguf/model.gguf", b"<|im_end|>", b"<|im_and|>")
    sign(copy)
    code, out, err = said(capsys, "parity", str(copy), "--quick", "--json", *ask)
    assert code == 1 and not tokenizer_of(out)["passed"] and "im_end" in tokenizer_of(out)["at"], out + err
    with (copy / "gguf/model.gguf").open("r+b") as file:
        file.seek(8)
        file.write(b"\xff" * 8)
    manifest, raw = read_manifest(copy), (copy / "gguf/model.gguf").read_bytes()
    manifest.files["gguf/model.gguf"] = ListedFile(len(raw), hashlib.sha256(raw).hexdigest())
    manifest.write(copy)
    code, _, err = said(capsys, "parity", str(copy), "--quick", *ask)
    assert code == 2 and "claims 18,446,744,073,709,551,615 tensors" in err  # before llama.cpp sees it, there too


def test_what_is_refused_before_anything_is_sent(capsys, tiny_bundle, there, tmp_path):  # type: ignore[no-untyped-def]
    code, _, err = said(capsys, "devices", "setup", there, "-t", "coreml")
    assert code == 2 and "wheels for boards" in err
    code, _, err = said(capsys, "devices", "setup")
    assert code == 2 and "needs a device" in err
    copy = shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "b")
    manifest = read_manifest(copy)
    manifest.targets["gguf"] = dataclasses.replace(manifest.targets["gguf"], engine="coreml")
    manifest.write(copy)
    code, _, err = said(capsys, "parity", str(copy), "-t", "gguf", "--device", there)
    assert code == 2 and "nothing executes these targets on a device" in err


def test_nothing_is_left_when_the_command_is_killed(tiny_bundle, there, pi5, tmp_path):  # type: ignore[no-untyped-def]
    """kill -9 while the runner computes: it ends within 40 seconds, and the next run goes as if nothing had been."""
    bundle = tiny_bundle("llama", "int4")
    runs = pi5.home / ".cache" / "smolship" / "device" / "runs"
    line = [sys.executable, "-m", "smolship.tools.cli", "parity", str(bundle), "-t", "executorch", "--device", there]
    process = subprocess.Popen(line, env=os.environ | {"PYTHONPATH": roots()}, stderr=subprocess.PIPE)
    lock, over = runs / "lock" / "holder", time.monotonic() + 120
    while not lock.exists() and process.poll() is None and time.monotonic() < over:
        time.sleep(0.05)
    assert lock.exists(), process.communicate()[1]
    time.sleep(1)
    process.kill()
    process.wait()
    over = time.monotonic() + 40
    while lock.exists() and time.monotonic() < over:
        time.sleep(0.5)
    assert not lock.exists()
    assert run(["parity", str(bundle), "-t", "executorch", "--quick", "--device", there]) == 0


@pytest.mark.parametrize("quant", ["int8", "none"])
def test_other_quantizations(capsys, tiny_bundle, there, board_wheels, quant):  # type: ignore[no-untyped-def]
    assert said(capsys, "devices", "setup", there, "--wheelhouse", str(board_wheels))[0] == 0
    code, out, err = said(
        capsys, "parity", str(tiny_bundle("llama", quant)), "-t", "onnx", "--quick", "--device", there
    )
    assert code == 0, out + err
