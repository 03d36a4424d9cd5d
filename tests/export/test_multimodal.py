"""The text half of Gemma 3's multimodal checkpoints, as its makers publish them and as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from smolship.export import export
from smolship.export.checkpoints import open_checkpoint
from smolship.export.reference import Reference, run
from smolship.runtime.errors import InputError
from tests.conftest import SIZES, TINY, make_tokenizer

IDS = np.random.default_rng(3).integers(3, 299, 40).tolist()
SEES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "model_type": "siglip_vision_model",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A checkpoint as transformers saves it, and the logits of its text model."""
    folder = tmp_path_factory.mktemp("gemma3")
    text = SIZES | TINY["gemma3"]
    torch.manual_seed(7)
    config = Gemma3Config(text_config=text, vision_config=SEES, mm_tokens_per_image=1, image_token_index=299)
    model = Gemma3ForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    make_tokenizer(folder, text["vocab_size"])
    with torch.inference_mode():
        return folder, model(torch.tensor([IDS])).logits[0].numpy()


def published(folder: Path, out: Path) -> Path:
    """The same under the names of the published files, with a text_config that leaves the class's values out."""
    out.mkdir()
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (out / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    plain = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
    renamed = {
        name.replace("language_model.", "language_model.model.", 1): tensor.clone() for name, tensor in plain.items()
    }
    save_file(renamed, out / "model.safetensors", {"format": "pt"})
    raw = json.loads((out / "config.json").read_text())
    raw["text_config"] = {k: v for k, v in raw["text_config"].items() if k not in ("hidden_activation", "rms_norm_eps")}
    raw["text_config"]["rms_norm_eps"] = 1e-5
    (out / "config.json").write_text(json.dumps(raw))
    return out


@pytest.mark.parametrize("names", ["saved", "published"])
def test_its_logits_are_those_of_the_whole_model(whole, tmp_path, names):
    folder, wanted = whole
    model = folder if names == "saved" else published(folder, tmp_path / "model")
    checkpoint = open_checkpoint(str(model))
    assert any("left out" in note for note in checkpoint.notes)
    ours = run(checkpoint.config, Reference(checkpoint.config, checkpoint, context=64), IDS)
    np.testing.assert_allclose(ours, wanted, atol=1e-4 * np.abs(wanted).max())


def test_it_is_exported_and_the_original_streams(whole, tmp_path):
    model = published(whole[0], tmp_path / "model")
    bundle = export(model, tmp_path / "bundle", to=["onnx"], quant="none", context=128, probe_tokens=64)
    notes = bundle.manifest.quantization.notes
    assert any("pictures are left out" in note for note in notes)
    assert not any("loads the original whole" in note for note in notes)


@pytest.mark.parametrize("text", [None, [1], {"model_type": "llama"}])
def test_a_text_half_that_is_none_is_refused(whole, tmp_path, text: Any):
    model = published(whole[0], tmp_path / "model")
    raw = json.loads((model / "config.json").read_text()) | {"text_config": text}
    (model / "config.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="text"):
        open_checkpoint(str(model))
