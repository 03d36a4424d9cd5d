"""`--tokenizer FOLDER`: the tokenizer of a checkpoint that brings none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from smolship.export import add_targets, export
from smolship.export.checkpoints import open_checkpoint
from smolship.export.checkpoints.folder import OF_TOKENIZER
from smolship.export.forecast import forecast
from smolship.runtime.errors import InputError
from tests.conftest import make_tokenizer

OPTIONS: dict[str, Any] = {"to": ["gguf"], "quant": "int8", "context": 64, "probe_tokens": 0}


@pytest.fixture
def bare(tiny: Any, tmp_path: Path) -> Path:
    """A checkpoint without a tokenizer, and beside it the folder of one."""
    shutil.copytree(tiny("openelm"), tmp_path / "bare")
    (tmp_path / "other").mkdir()
    for name in ("tokenizer.json", *OF_TOKENIZER):
        if (tmp_path / "bare" / name).exists():
            (tmp_path / "bare" / name).rename(tmp_path / "other" / name)
    (tmp_path / "bare" / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 0.7}))
    return tmp_path / "bare"


def test_without_one_the_refusal_names_it_and_the_option(bare, tmp_path):
    with pytest.raises(InputError, match=r"(?s)no tokenizer\.json.*bring none.*--tokenizer FOLDER.*Llama 2's"):
        export(bare, tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_the_bundle_is_as_with_the_tokenizer_in_the_checkpoint(bare, tiny, tmp_path):
    """In every step, and with sampling from the checkpoint; what is added later, too."""
    given = export(bare, tmp_path / "given", tokenizer=tmp_path / "other", **OPTIONS)
    shutil.copytree(bare, tmp_path / "whole")
    shutil.copytree(tmp_path / "other", tmp_path / "whole", dirs_exist_ok=True)
    whole = export(tmp_path / "whole", tmp_path / "out", **OPTIONS)
    assert given.manifest.generation == whole.manifest.generation
    assert given.manifest.generation.sampling.temperature == 0.7 and given.template is not None
    assert (given.path / "gguf" / "model.gguf").read_bytes() == (whole.path / "gguf" / "model.gguf").read_bytes()
    assert any("was taken from other" in note for note in given.manifest.quantization.notes)
    with pytest.raises(InputError, match="no tokenizer"):
        add_targets(given.path, ["onnx"], model=bare)
    added = add_targets(given.path, ["onnx"], model=bare, tokenizer=tmp_path / "other")
    assert [*added.manifest.targets] == ["gguf", "onnx"]


@pytest.mark.real
def test_a_dry_run_takes_it(bare, tmp_path):
    assert forecast(bare, tokenizer=tmp_path / "other", to=["gguf"], probe_tokens=0, context=64).parameters > 0


@pytest.mark.parametrize("size", [299, 310])
def test_a_tokenizer_of_another_size_is_refused_before_any_work(bare, tmp_path, size):
    make_tokenizer(tmp_path / "other", size)
    with pytest.raises(InputError, match=rf"{size} tokens, and the model 300|token \d+ .*the model has 300"):
        export(bare, tmp_path / "out", tokenizer=tmp_path / "other", **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_what_is_no_folder_of_a_tokenizer(bare, tmp_path):
    for folder in ("absent", "bare", "other/tokenizer.json"):
        with pytest.raises(InputError):
            open_checkpoint(str(bare), tokenizer=str(tmp_path / folder))


def test_a_gguf_file_has_its_own(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="brings its own tokenizer"):
        open_checkpoint(str(tmp_path / "m.gguf"), tokenizer=str(tmp_path))
