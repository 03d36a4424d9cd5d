"""The commands on an emulated arm64 board: set up, parity, bench, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from smolship.runtime.manifest import read_manifest
from smolship.tools.cli import run
from tests.device.board import Board

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def there(pi5: Board) -> str:
    return pi5.uri


@pytest.fixture(autouse=True)
def reached(pi5: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh knows the board's keys."""
    monkeypatch.setenv("PATH", str(pi5.clients), prepend=":")


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
    assert code == 0 and found["state"] == "set up" and found["machine"] == "aarch64"
    code, out, err = said(
        capsys, "parity", str(bundle), "--quick", "--device", there, "--keep", str(tmp_path), "--json"
    )
    print(out[:6000], err)
    assert code == 0, err
    (report,) = json.loads(out)
    assert report["passed"] and "aarch64" in report["host"]
    code, out, err = said(capsys, "judge", str(bundle), str(tmp_path / "onnx.json"), "--json")
    (again,) = json.loads(out)
    assert code == 0 and again["checks"] == report["checks"]
