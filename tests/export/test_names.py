"""Where a model lies and where a bundle goes: any path that the system takes works to the end."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolship.export import export
from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import InputError
from smolship.runtime.native import native_path
from smolship.tools.cli import run

LATIN = os.fsdecode(b"na\xefve \xe0 la \x80")  # no UTF-8
IDS = [5, 90, 41, 7]


@pytest.fixture(scope="module")
def latin(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of all four targets in a folder of such a name, from a model in another."""
    home = tmp_path_factory.mktemp("home") / LATIN
    shutil.copytree(tiny("llama"), home / f"model {LATIN}")
    out = home / f"bundle {LATIN}"
    export(home / f"model {LATIN}", out, to=("executorch", "onnx", "coreml", "gguf"), context=64, probe_tokens=64)
    return out


@pytest.mark.parametrize("target", ["executorch", "onnx", "coreml", "gguf"])
def test_every_engine_opens_a_folder_whose_name_is_not_utf8(latin: Path, target: str, tmp_path: Path) -> None:
    shutil.copytree(latin, tmp_path / "plain")
    with open_bundle(latin).session(target, threads=1) as session:
        found = session.forward(IDS)
    with open_bundle(tmp_path / "plain").session(target, threads=1) as session:
        assert np.array_equal(found, session.forward(IDS))


def test_its_manifest_is_json_for_everybody(latin: Path) -> None:
    source = json.loads((latin / "manifest.json").read_text())["model"]["source"]
    assert source == "model na\ufffdve \ufffd la \ufffd"
    assert source.encode().decode() == source


def test_the_command_shows_and_runs_it(latin: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(latin)]) == 0
    assert run(["generate", str(latin), "hi", "--max-tokens", "2", "-e", "onnx"]) == 0
    assert run(["weights", str(latin)]) == 0
    assert run(["inspect", str(latin / LATIN)]) == 2
    assert run(["export", str(latin / LATIN), "-o", str(latin / "x")]) == 2
    assert run(["export", str(latin), "-o", str(latin / "x"), "--probe-text", str(latin / LATIN)]) == 2
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert "na ve" in printed.err  # as far as it can be printed


def test_a_gguf_file_there_is_a_model_too(latin: Path, tmp_path: Path) -> None:
    bundle = export(latin / "gguf" / "model.gguf", tmp_path / LATIN, to=["onnx"], context=32, probe_tokens=32)
    assert bundle.manifest.model.source == "model.gguf"


@pytest.mark.parametrize(
    ("at", "model", "name"),
    [
        (".", ".", "here"),
        (".", "./", "here"),
        ("sub", "..", "here"),
        ("sub", "../", "here"),
        ("sub", "../.", "here"),
        ("..", "here", "here"),
        ("..", "here/", "here"),
        ("..", "./here//", "here"),
        ("..", "here/sub/..", "here"),
        ("..", "other", "other"),
    ],
)
def test_a_models_name_whatever_path_leads_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, model: str, name: str
) -> None:
    from smolship.export.options import source_name

    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    (tmp_path / "other").symlink_to(here)
    monkeypatch.chdir(here / at)
    assert source_name(model) == name
    assert source_name("someone/a-model") == "someone/a-model"
    assert source_name("/") == "/"


def test_the_folder_that_one_stands_in(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny("llama"), tmp_path / "a model")
    monkeypatch.chdir(tmp_path / "a model")
    bundle = export(".", "../out", to=["gguf"], context=32, probe_tokens=0)
    assert bundle.manifest.model.source == "a model"


def test_a_path_for_libraries(tmp_path: Path) -> None:
    plain, odd = tmp_path / "é.onnx", tmp_path / LATIN / "é.onnx"
    with native_path(plain) as found:
        assert found is plain
    odd.parent.mkdir()
    odd.write_text("x")
    with native_path(odd) as found:
        str(found).encode()
        assert found.read_text() == "x"
    assert not found.parent.exists()
    with pytest.raises(InputError, match="name is not UTF-8"), native_path(tmp_path / LATIN):
        pass
