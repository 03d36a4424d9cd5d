"""SmolLM3: Llama with layers that carry no position (NoPE; Yang et al. 2025, arXiv:2501.18795)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smolship.export.config import DecoderConfig, Fields
from smolship.export.families import llama

NAMES = llama.NAMES
DEFAULTS: dict[str, Any] = llama.DEFAULTS | {  # SmolLM3Config
    "num_hidden_layers": 36,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 128_256,
    "max_position_embeddings": 32_768,
    "rope_theta": 2e6,
    "tie_word_embeddings": True,
}


def translate(fields: Fields) -> DecoderConfig:
    """Llama's translation, and `no_rope_layers`, where **1 means that the layer HAS rotary embedding**."""
    config = llama.decoder(fields, DEFAULTS)
    window = fields.has("sliding_window")
    if (
        fields.flag("use_sliding_window", False)
        and window
        and fields.int("sliding_window", 1, 1 << 24) < config.positions
    ):
        raise fields.wrong("sliding_window", f"null, or at least the {config.positions:,} positions")
    return replace(config, architecture="smollm3", model_type="smollm3", rotary_layers=_rotary_layers(fields, config))


def _rotary_layers(fields: Fields, config: DecoderConfig) -> tuple[bool, ...]:
    interval = fields.int("no_rope_layer_interval", 1, 1 << 20, default=4)
    if not fields.has("no_rope_layers"):
        return tuple((i + 1) % interval != 0 for i in range(config.layers))
    layers = fields.raw["no_rope_layers"]
    if not isinstance(layers, list) or len(layers) < config.layers or any(type(v) is not int for v in layers):
        raise fields.wrong(
            "no_rope_layers", f"{config.layers} whole numbers, 0 where the layer has no rotary embedding"
        )
    return tuple(bool(value) for value in layers[: config.layers])  # as transformers reads it: by index, and not 0
