"""A config.json has one reading, that of the model's class in transformers: what that takes we take alike, what it
refuses we refuse, and of what it takes we refuse only what is listed here."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from smolship.export.families import FAMILIES, translate
from smolship.export.original import TOKENS
from smolship.export.transforms import source
from smolship.runtime.errors import InputError
from smolship.runtime.tensors import parse

BASE = {
    "hidden_size": 96,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "vocab_size": 50,
    "max_position_embeddings": 256,
}
GONE = "(gone)"  # stands for a key that is not there
BENT = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}

CHANGES: list[dict[str, Any]] = [
    {},
    {"rope_theta": 700.0},
    {"rope_theta": 700},
    {"rope_theta": "700"},
    {"rope_theta": None},
    {"rope_theta": True},
    {"rope_scaling": {"rope_theta": 321.0}},
    {"rope_scaling": {"rope_theta": 321.0}, "rope_theta": 9.0},
    {"rope_scaling": {"rope_theta": None}, "rope_theta": 9.0},
    {"rope_scaling": {}, "rope_parameters": {"rope_theta": 55.0}},
    {"rope_scaling": None, "rope_parameters": {"rope_theta": 55.0, "rope_type": "default"}, "rope_theta": 3.0},
    {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 55.0}, "rope_theta": 3.0},
    {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 55.0}},
    {"rope_scaling": {"rope_type": "default", "type": "yarn"}},
    {"rope_scaling": {"rope_type": None, "type": "default"}},
    {"rope_scaling": {"rope_type": ["default"]}},
    {"rope_scaling": {"rope_type": "su", "factor": 2.0}},
    {"rope_scaling": {"factor": 8.0}},
    {"rope_scaling": [1]},
    {"rope_scaling": "linear"},
    {"rope_parameters": {"full_attention": {"rope_theta": 5.0}}},
    {"rope_scaling": BENT},
    {"rope_scaling": BENT, "rope_theta": 77.0},
    {"rope_scaling": BENT | {"rope_theta": 78.0}, "rope_theta": 77.0},
    {"rope_scaling": BENT | {"original_max_position_embeddings": 64}},
    {"rope_scaling": BENT | {"original_max_position_embeddings": 4096}},
    {"rope_scaling": BENT, "original_max_position_embeddings": 32},
    {"rope_scaling": BENT, "original_max_position_embeddings": 256},
    {"rope_scaling": BENT | {"original_max_position_embeddings": 64}, "original_max_position_embeddings": 64},
    {"rope_scaling": BENT | {"factor": "4"}},
    {"rope_scaling": {k: v for k, v in BENT.items() if k != "factor"}},
    {"rope_scaling": {k: v for k, v in BENT.items() if k != "rope_type"} | {"type": "llama3"}},
    {"partial_rotary_factor": 0.5},
    {"rope_parameters": {"rope_theta": 44.0, "partial_rotary_factor": 0.25}},
    {"rope_scaling": BENT, "partial_rotary_factor": 0.5},
    {"rope_scaling": {"type": "linear", "factor": 2.0}, "partial_rotary_factor": 0.5},
    {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "partial_rotary_factor": 0.5}},
    {"sliding_window": None, "layer_types": ["full_attention"] * 2},
    {"num_key_value_heads": GONE},
    {"num_key_value_heads": None},
    {"num_key_value_heads": 6},
    {"head_dim": None},
    {"head_dim": 32},
    {"head_dim": 30.0},
    {"num_attention_heads": 9},
    {"num_attention_heads": 9, "head_dim": 16},
    {"num_attention_heads": 7, "num_key_value_heads": 7, "head_dim": 16},
    {"hidden_size": None},
    {"vocab_size": 50.0},
    {"max_position_embeddings": GONE},
    {"max_position_embeddings": None},
    {"hidden_act": GONE},
    {"hidden_act": None},
    {"hidden_act": "relu"},
    {"rms_norm_eps": 1},
    {"rms_norm_eps": 1e-3},
    {"rms_norm_eps": None},
    {"tie_word_embeddings": GONE},
    {"tie_word_embeddings": None},
    {"tie_word_embeddings": 0},
    {"attention_bias": True},
    {"attention_bias": None},
    {"mlp_bias": True},
    {"mlp_bias": "true"},
    {"layer_types": ["full_attention"] * 2},
    {"layer_types": ["full_attention"] * 3},
    {"layer_types": ["attention"] * 2},
    {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8},
    {"sliding_window": 8},
    {"sliding_window": 256},
    {"use_sliding_window": False, "sliding_window": 1000},
    {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
    {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
    {"use_sliding_window": True, "sliding_window": 8},
    {"use_sliding_window": True, "sliding_window": 300, "max_window_layers": 0},
    {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention", "chunked_attention"]},
    {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention"]},
    {"use_sliding_window": "yes"},
    {"max_window_layers": None},
    {"max_window_layers": 1.5},
    {"layer_types": None},
    {"attention_chunk_size": 16},
    {"is_causal": False},
    {"is_causal": True},
    {"is_encoder_decoder": True},
    {"architectures": None},
    {"architectures": "own"},
    {"architectures": ["GPT2LMHeadModel"]},
    {"model_type": None},
    {"model_type": GONE},
    {"model_type": "llamma"},
    {"model_type": "mistral", "sliding_window": 16},
    {"pad_token_id": 5000},
    {"logit_scale": 2.0, "embedding_multiplier": 12.0},
    {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    {"torch_dtype": "bfloat16"},
    {"no_rope_layers": [0, 1]},
    {"no_rope_layers": [1, 0, 1, 1]},
    {"no_rope_layers": []},
    {"no_rope_layers": [True, False]},
    {"no_rope_layers": [3, 0]},
    {"no_rope_layer_interval": 2},
    {"no_rope_layer_interval": 0},
]

LFM2: list[dict[str, Any]] = [
    {"layer_types": ["conv", "full_attention"]},
    {"layer_types": ["conv", "conv"]},
    {"layer_types": ["conv", "sliding_attention"]},
    {"layer_types": ["conv"]},
    {"full_attn_idxs": [1]},
    {"full_attn_idxs": [0, 2]},
    {"full_attn_idxs": 1},
    {"full_attn_idxs": [1], "layer_types": ["full_attention", "conv"]},
    {"full_attn_idxs": [1], "conv_bias": True, "conv_L_cache": 5},
    {"full_attn_idxs": [1], "conv_L_cache": None},
    {"conv_bias": 1},
    {"block_auto_adjust_ff_dim": False},
    {"block_ff_dim": 700, "block_multiple_of": 7, "block_ffn_dim_multiplier": 1.7},
    {"block_ffn_dim_multiplier": 2, "block_multiple_of": 1},
    {"block_ffn_dim_multiplier": None},
    {"block_multiple_of": None},
    {"tie_embedding": False},
    {"tie_embedding": False, "tie_word_embeddings": True},
    {"norm_eps": 1e-3},
    {"norm_eps": 1},
]

# Taken by transformers, refused here. That it computes with them is seen below only for what the class reads.
STRICTER = {
    "rotary kinds": ("rope_type", "type", "full_attention"),
    "read elsewhere": (
        "layer_types",
        "full_attn_idxs",
        "sliding_window",
        "attention_chunk_size",
        "is_causal",
        "is_encoder_decoder",
    ),
    "two architectures": ("architectures", "model_type"),
    "activations": ("hidden_act",),
    "a crash in the forward": ("factor", "partial_rotary_factor", "rope_theta"),
    "read in two ways by transformers": ("original_max_position_embeddings",),
}


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("transformers").setLevel(logging.CRITICAL)


def raw_of(kind: str, change: dict[str, Any]) -> dict[str, Any]:
    own = FAMILIES[kind][0]
    raw = BASE | {"model_type": kind, "architectures": [own]} | change
    if raw["architectures"] == "own":
        raw["architectures"] = own
    return {key: value for key, value in raw.items() if value != GONE}


def theirs(folder: Path, raw: dict[str, Any]) -> Any:
    """The model as transformers makes it of that config; None where it refuses, or fails in its first forward."""
    (folder / "config.json").write_text(json.dumps(raw | dict.fromkeys(TOKENS)))
    try:
        with torch.inference_mode():
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).eval()
            model(torch.arange(5)[None])
    except Exception:
        return None
    return model


READ = sorted(set(FAMILIES) - {"openelm"})  # test_openelm.py: transformers has no class


@pytest.mark.parametrize(
    ("kind", "change"),
    [*((kind, change) for change in CHANGES for kind in READ), *(("lfm2", change) for change in LFM2)],
    ids=str,
)
def test_we_read_what_transformers_reads(tmp_path, kind, change):
    raw = raw_of(kind, change)
    model = theirs(tmp_path, raw)
    try:
        config, family, reading = translate(raw, tmp_path)
    except InputError as error:
        if model is not None and change.get("head_dim", ...) is not None:
            assert any(f"'{key}'" in str(error) or key in change for keys in STRICTER.values() for key in keys), error
        return
    if (
        kind in ("granite", "lfm2", "olmo2", "phi3", "qwen2", "smollm3")
        and "head_dim" in change
        and change["head_dim"] is None
    ):
        return  # transformers' classes fail at null; the original is given none
    assert model is not None, "transformers refuses it"
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert dict(stored(family, config, name) for name in config.shapes()) == shapes
    attention = [layer.self_attn for layer in model.model.layers if hasattr(layer, "self_attn")]
    norm = model.model.norm if hasattr(model.model, "norm") else model.model.embedding_norm
    mixers, tables = config.attentions, model.model.rotary_emb
    for mixer, a in zip(mixers, attention, strict=True):
        if mixer.rotary:
            of = "inv_freq" if hasattr(tables, "inv_freq") else f"{a.layer_type}_inv_freq"
            np.testing.assert_allclose(mixer.rotary.frequencies(), getattr(tables, of).numpy(), rtol=2e-6)
    assert config.norm_eps == (norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)
    assert [mixer.rotary is not None for mixer in mixers] == [bool(getattr(a, "use_rope", True)) for a in attention]
    assert [mixer.scale for mixer in mixers] == [a.scaling for a in attention]
    whole = model.config.sliding_window if kind == "phi3" else None  # whose layers do not hold it
    windows = [getattr(a, "sliding_window", whole) or config.positions for a in attention]
    assert [min(mixer.window or config.positions, config.positions) for mixer in mixers] == [
        min(window, config.positions) for window in windows
    ]
    assert config.positions == model.config.max_position_embeddings
    elsewhere = {"model_type", "architectures", "pad_token_id", "torch_dtype", "quantization_config"}
    unread = set(raw) - reading.seen - elsewhere
    assert all(any(key in note for note in reading.notes) for key in unread)


def stored(family: Any, config: Any, name: str) -> tuple[str, tuple[int, ...]]:
    """The stored tensor that ours is made of: its name and shape."""
    found, transform = source(family.NAMES, name)
    return found, transform.stored_shape(parse(name), config) if transform else config.shapes()[name]


@pytest.mark.parametrize("scaling", [{"factor": 8.0}, {"rope_type": "default", "attention_factor": 1.5}])
def test_what_transformers_ignores_in_a_rotary_dictionary_is_said(scaling):
    _, _, reading = translate(raw_of("llama", {"rope_scaling": scaling}), "x")
    assert any(list(scaling)[-1] in note and "not read" in note for note in reading.notes)


def test_a_theta_that_is_overruled_is_said():
    _, _, reading = translate(raw_of("llama", {"rope_scaling": {"rope_theta": 12.0}, "rope_theta": 13.0}), "x")
    assert any("rope_theta" in note for note in reading.notes)
