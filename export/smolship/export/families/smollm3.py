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
SLIDING = "sliding_attention"


def translate(fields: Fields) -> DecoderConfig:
    """Llama's translation, `no_rope_layers`, where **1 means that the layer HAS rotary embedding**, and windows."""
    config = llama.decoder(fields, DEFAULTS, *llama.biases(fields))
    rotary, has = config.attentions[0].rotary, _rotary_layers(fields, len(config.layers))
    return with_mixers(config, rotary=[rotary if one else None for one in has], window=_windows(fields, config, has))


def _windows(fields: Fields, config: DecoderConfig, has_rotary: list[bool]) -> list[int | None]:
    """The window of each layer: where it is asked for, of those without rotary embedding, unless `layer_types` says."""
    on = fields.flag("use_sliding_window", False)
    window = fields.int("sliding_window", 1, 1 << 24) if fields.has("sliding_window") else None
    slides = [on and window is not None and not one for one in has_rotary]
    if fields.has("layer_types"):
        slides = [kind == SLIDING for kind in llama.layer_types(fields, len(has_rotary), (llama.FULL, SLIDING))]
        if any(slides) and not (on and window):
            raise fields.wrong("layer_types", "layers of full attention alone, where no sliding window is in use")
    seen = window if window and window < config.positions else None
    return [seen if slide else None for slide in slides]


def _rotary_layers(fields: Fields, count: int) -> list[bool]:
    """Which layers have rotary embedding."""
    interval = fields.int("no_rope_layer_interval", 1, 1 << 20, default=4)
    if not fields.has("no_rope_layers"):
        return [(i + 1) % interval != 0 for i in range(count)]
    layers = fields.raw["no_rope_layers"]
    if not isinstance(layers, list) or len(layers) < count or any(type(v) is not int for v in layers):
        raise fields.wrong("no_rope_layers", f"{count} whole numbers, 0 where the layer has no rotary embedding")
    return [bool(value) for value in layers[:count]]  # as transformers reads it: by index, and not 0
