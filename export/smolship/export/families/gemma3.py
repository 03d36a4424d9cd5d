"""Gemma 3's text model: Llama with norms on both sides of the attention and the MLP, norms of queries and keys, all
stored as their distance from 1, tanh's GELU, a scaled embedding, and windows with a rotary embedding of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from smolship.export.config import DecoderConfig, with_mixers
from smolship.export.families import llama, rope
from smolship.export.families.fields import Fields
from smolship.export.rotary import Rotary
from smolship.export.transforms import Names, Plus

AT = "model.layers.{}."
NAMES: Names = llama.NAMES | {
    kind: Plus(f"{name}.weight")
    for kind, name in {
        "norm": "model.norm",
        "attn_norm": AT + "input_layernorm",
        "attn_out_norm": AT + "post_attention_layernorm",
        "mlp_norm": AT + "pre_feedforward_layernorm",
        "mlp_out_norm": AT + "post_feedforward_layernorm",
        "q_norm": AT + "self_attn.q_norm",
        "k_norm": AT + "self_attn.k_norm",
    }.items()
}
DEFAULTS: dict[str, Any] = llama.DEFAULTS | {  # Gemma3TextConfig
    "num_hidden_layers": 26,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "activation": {"hidden_activation": ("gelu_pytorch_tanh", "gelu_tanh")},
}
LOCAL_THETA = 10_000.0
SLIDING = "sliding_attention"


def translate(fields: Fields) -> DecoderConfig:
    """The decoder that a Gemma3TextConfig describes."""
    fields.int("num_key_value_heads", 1, 1024, DEFAULTS["num_key_value_heads"])  # null is nothing to this class
    bias = fields.flag("attention_bias", False)
    config = llama.decoder(fields, DEFAULTS, bias=bias, output_bias=bias, qk_norm="head", rotary=_full)
    llama.whole_heads(fields, config)
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        fields.only(key)
    fields.only("use_bidirectional_attention", False)
    mixer, slides = config.attentions[0], _slides(fields, len(config.layers))
    window = fields.int("sliding_window", 1, 1 << 24, default=4096)  # the class wants one, used or not
    seen = window if window < config.positions else None
    local = rope.of(
        _parameters(fields, SLIDING), fields, "rope_local_base_freq", mixer.head_dim, config.positions, LOCAL_THETA
    )
    scale = fields.int("query_pre_attn_scalar", 1, 1 << 20, default=256) ** -0.5
    config = with_mixers(
        config,
        scale=[scale] * len(slides),
        window=[seen if slide else None for slide in slides],
        rotary=[local if slide else mixer.rotary for slide in slides],
    )
    layers = tuple(replace(layer, norms="both") for layer in config.layers)
    return replace(config, layers=layers, embedding_scale=float(np.float32(config.hidden**0.5)))


def _slides(fields: Fields, count: int) -> list[bool]:
    """Which layers see a window: by `layer_types`, else all but every sixth."""
    step = fields.int("sliding_window_pattern", 1, 1 << 20, default=6)
    if not fields.has("layer_types"):
        return [(i + 1) % step != 0 for i in range(count)]
    return [kind == SLIDING for kind in llama.layer_types(fields, count, (llama.FULL, SLIDING))]


def _full(fields: Fields, head_dim: int, positions: int, theta: float) -> Rotary:
    """Of layers that see everything; a `rope_scaling` is theirs."""
    return rope.of(_parameters(fields, llama.FULL), fields, "rope_theta", head_dim, positions, theta)


def _parameters(fields: Fields, kind: str) -> Fields:
    """The dictionary of one kind of layer."""
    whole = fields.sub("rope_parameters")
    if not {*whole.raw} <= {llama.FULL, SLIDING}:
        raise fields.wrong("rope_parameters", f"one rotary embedding for {llama.FULL} and one for {SLIDING}")
    found = whole.sub(kind)
    if kind == llama.FULL:  # a rope_scaling is laid over what is there, or over the default, whose rope_type stays
        plain = {} if fields.has("rope_parameters") else {"rope_type": "default"}
        found.raw = plain | found.raw | fields.sub("rope_scaling").raw
    if "truncate" in found.raw:  # transformers looks for it beside the two dictionaries, where nothing may stand
        found.raw = {key: value for key, value in found.raw.items() if key != "truncate"}
        fields.notes.append(f"config.json: 'truncate' in {kind}'s rotary embedding: not read, in transformers neither")
    return found
