"""`export --dry-run` and `--for` on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smolship.export import pipeline
from smolship.export.forecast import asking
from smolship.tools.cli import run
from tests.bundles import snapshot


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step runs in this process."""
    monkeypatch.setattr(asking, "run_step", pipeline.run_step)


@pytest.fixture
def dry(tiny, tmp_path, monkeypatch, capsys) -> Any:
    """dry(options…) -> exit code, standard output, standard error; nothing may have been written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*options: str) -> tuple[int, str, str]:
        code = run(["export", str(tiny("llama")), "--dry-run", "--to", "onnx,gguf", "--context", "64", *options])
        assert snapshot(tmp_path) == {}
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_what_a_dry_run_shows(dry):
    code, out, err = dry()
    assert code == 0 and "Traceback" not in err
    lines = [line.rstrip() for line in out.splitlines()]
    assert max(map(len, lines)) <= 80
    for name in ("onnx", "gguf", "quantize", "lower onnx", "lower gguf", "probe", "in all, one after the other"):
        assert any(line.startswith(name) for line in lines), name
    assert "unavailable" not in out and "bundle " in out and "of disk while it is made" in " ".join(out.split())


def test_as_json(dry):
    code, out, _ = dry("--json", "--for", "pi5-8gb", "--probe-tokens", "0")
    found = json.loads(out)
    assert code == 0 and found["fits"] is True and found["device"] == "pi5-8gb"
    assert set(found["targets"]) == {"onnx", "gguf"} and set(found["steps"]) == {"quantize", "lower onnx", "lower gguf"}
    assert all(step["seconds"] > 0 and step["peak_bytes"] > 0 for step in found["steps"].values())


@pytest.fixture
def small_board(monkeypatch):
    """A board whose memory holds nothing."""
    from smolship.export.forecast.devices import DEVICES, Device, System

    monkeypatch.setitem(DEVICES, "pi4-4gb", Device("pi4-4gb", "", (System("Pi OS", 10**7, 10**7, python=True),)))


def test_a_device_that_is_too_small(dry, small_board):
    code, out, err = dry("--for", "pi4-4gb", "--probe-tokens", "0")
    assert code == 1 and "over" in out and "pi4-4gb cannot hold this model at 64 tokens" in err
    assert "no single option makes it fit" in err
    code, out, _ = dry("--for", "pi4-4gb", "--probe-tokens", "0", "--json")
    assert code == 1 and json.loads(out)["fits"] is False


def test_an_export_for_it_is_refused_before_the_work(tiny, tmp_path, capsys, small_board):
    asked = ["--to", "onnx", "--context", "64", "--for", "pi4-4gb"]
    assert run(["export", str(tiny("llama")), "-o", str(tmp_path / "out"), *asked]) == 1
    assert "cannot hold" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_device_that_nobody_knows(dry):
    code, _, err = dry("--for", "toaster")
    assert code == 2 and "one of phone-6gb, phone-8gb, pi4-4gb, pi5-8gb" in err


def test_an_export_needs_a_folder(tiny, capsys):
    assert run(["export", str(tiny("llama")), "--to", "onnx"]) == 2
    assert "--out" in capsys.readouterr().err
