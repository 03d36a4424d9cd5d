"""Qwen2 and Qwen2.5: Llama with biases of q, k and v, and a sliding window on request."""

from __future__ import annotations

from typing import Any

from smolship.export.config import DecoderConfig, with_mixers
from smolship.export.families import llama
from smolship.export.families.fields import Fields

NAMES = llama.NAMES
DEFAULTS: dict[str, Any] = llama.DEFAULTS | {  # Qwen2Config
    "intermediate_size": 22_016,
    "num_key_value_heads": 32,
    "vocab_size": 151_936,
    "max_position_embeddings": 32_768,
}
SLIDING = "sliding_attention"


def translate(fields: Fields) -> DecoderConfig:
    """Llama's translation; the biases are in the class, whatever the config says."""
    return windows(fields, llama.decoder(fields, DEFAULTS, bias=True))


def windows(fields: Fields, config: DecoderConfig) -> DecoderConfig:
    """The window of each layer: by `layer_types`, else of all from `max_window_layers` on, where it is asked for at
    all (`use_sliding_window`)."""
    count = len(config.layers)
    on, window = fields.flag("use_sliding_window", False), None
    given = fields.raw.get("sliding_window", 4096)
    fields.seen.add("sliding_window")
    if on and given is not None:
        window = fields.int("sliding_window", 1, 1 << 24, default=4096)
    first = fields.int("max_window_layers", 0, 1 << 20, default=28)
    slides = [window is not None and i >= first for i in range(count)]
    if fields.has("layer_types"):
        slides = [kind == SLIDING for kind in llama.layer_types(fields, count, (llama.FULL, SLIDING))]
        if any(slides) and window is None:
            raise fields.wrong("layer_types", "layers of full attention alone, where no sliding window is in use")
    sees_all = window is None or window >= config.positions
    return with_mixers(config, window=[window if slide and not sees_all else None for slide in slides])
