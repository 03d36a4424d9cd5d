"""OpenELM: how its config.json is read, and the original of ours that parity compares with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from smolship.export.checkpoints import open_checkpoint
from smolship.export.families import openelm_original, translate
from smolship.export.original import Original
from smolship.runtime.errors import InputError
from tests.conftest import TINY

IDS = np.random.default_rng(6).integers(0, 300, 40)
PUBLISHED = {  # layers, width, head size; parameters; heads of the first and the last layer, and widths of their MLPs
    "270M": ((16, 1280, 64), 271_527_168, (12, 20), (768, 5120)),
    "450M": ((20, 1536, 64), 457_179_136, (12, 24), (768, 6144)),
    "1.1B": ((28, 2048, 64), 1_079_891_456, (16, 32), (1024, 8192)),
    "3B": ((36, 3072, 128), 3_036_647_424, (12, 24), (1536, 12_288)),
}


def published(name: str) -> dict[str, Any]:
    layers, width, size = PUBLISHED[name][0]
    return TINY["openelm"] | {
        "num_transformer_layers": layers,
        "model_dim": width,
        "head_dim": size,
        "num_gqa_groups": 4,
        "qkv_multipliers": [0.5, 1.0],
        "ffn_multipliers": [0.5, 4.0],
        "ffn_dim_divisor": 256,
        "num_query_heads": None,
        "num_kv_heads": None,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes(name):
    """Their numbers of parameters, and every layer as the original of ours makes it."""
    _, parameters, heads, widths = PUBLISHED[name]
    config, _, reading = translate(published(name), "x")
    assert sum(map(math.prod, config.shapes().values())) == parameters
    assert (config.attentions[0].heads, config.attentions[-1].heads) == heads
    assert (config.layers[0].mlp.width, config.layers[-1].mlp.width) == widths
    assert reading.notes == []
    theirs = openelm_original.OpenElmConfig(**published(name))
    for i, layer in enumerate(config.layers):
        assert (theirs.heads(i), theirs.width(i)) == ((layer.mixer.heads, layer.mixer.kv_heads), layer.mlp.width)


def test_lists_alone_are_taken_as_they_are():
    """As of a config.json without what they were made of."""
    raw = {key: value for key, value in TINY["openelm"].items() if key not in ("qkv_multipliers", "num_gqa_groups")}
    config, _, _ = translate(raw | {"num_query_heads": [5, 3, 2, 4], "num_kv_heads": [1, 3, 1, 2]}, "x")
    assert [(mixer.heads, mixer.kv_heads) for mixer in config.attentions] == [(5, 1), (3, 3), (2, 1), (4, 2)]


@pytest.mark.parametrize(
    "change",
    [
        {"num_query_heads": [2, 4, 6, 8]},
        {"num_kv_heads": [2, 4, 6, 6]},
        {"num_query_heads": [2, 4, 6]},
        {"num_query_heads": [2, 4, 6.0, 6]},
        {"qkv_multipliers": [0.5, 0.7, 1.0, 1.5]},
        {"qkv_multipliers": [0.5, -1.5]},
        {"num_gqa_groups": 0},
        {"num_gqa_groups": 4096},
        {"ffn_multipliers": [0.5, 1.2, 1.8]},
        {"ffn_multipliers": [0.5, 1.2, 1.8, 1e9]},
        {"ffn_multipliers": "4"},
        {"ffn_with_glu": False},
        {"activation_fn_name": "gelu"},
        {"normalization_layer_name": "layer_norm"},
        {"rms_norm_eps": 1e-5},
        {"share_input_output_layers": False},
        {"tie_word_embeddings": False},
        {"rope_freq_constant": "10000"},
        {"num_transformer_layers": 1 << 40},
    ],
    ids=str,
)
def test_what_is_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        translate(TINY["openelm"] | change, "x")


def test_the_original_is_ours_and_says_so(tiny):
    original = Original(open_checkpoint(str(tiny("openelm"))))
    (note,) = original.notes
    assert "smolship's own, written from the paper (arXiv:2404.14619)" in note and "is not run" in note
    assert type(original.model).__module__ == openelm_original.__name__


def test_texts_of_several_lengths_go_on_as_each_alone(tiny):
    """Weights are read by module, and shorter texts are filled up in front."""
    original = Original(open_checkpoint(str(tiny("openelm"))))
    prompts = [IDS[:n].tolist() for n in (9, 30, 1)]
    model = AutoModelForCausalLM.from_pretrained(tiny("openelm"), dtype=torch.float32)
    for prompt, found in zip(prompts, original.continuations(prompts, 8), strict=True):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            for _ in range(8):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
        assert found.tolist() == ids[0, len(prompt) :].tolist()
