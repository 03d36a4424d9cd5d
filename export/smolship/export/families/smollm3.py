"""SmolLM3: Llama with layers that carry no position (NoPE; Yang et al. 2025, arXiv:2501.18795)."""

from __future__ import annotations

from typing import Any

from smolship.export.config import DecoderConfig, with_mixers
from smolship.export.families import llama
from smolship.export.families.fields import Fields

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
    config = llama.decoder(fields, DEFAULTS, *llama.biases(fields))
    llama.all_full(fields, config)
    if (
        fields.flag("use_sliding_window", False)
        and fields.has("sliding_window")
        and fields.int("sliding_window", 1, 1 << 24) < config.positions
    ):
        raise fields.wrong("sliding_window", f"null, or at least the {config.positions:,} positions")
    rotary = config.layers[0].mixer.rotary
    return with_mixers(config, rotary=[rotary if has else None for has in _rotary_layers(fields, len(config.layers))])


def _rotary_layers(fields: Fields, count: int) -> list[bool]:
    """Which layers have rotary embedding."""
    interval = fields.int("no_rope_layer_interval", 1, 1 << 20, default=4)
    if not fields.has("no_rope_layers"):
        return [(i + 1) % interval != 0 for i in range(count)]
    layers = fields.raw["no_rope_layers"]
    if not isinstance(layers, list) or len(layers) < count or any(type(v) is not int for v in layers):
        raise fields.wrong("no_rope_layers", f"{count} whole numbers, 0 where the layer has no rotary embedding")
    return [bool(value) for value in layers[:count]]  # as transformers reads it: by index, and not 0
