"""SmolLM3: Llama with layers that carry no position (NoPE; Yang et al. 2025, arXiv:2501.18795)."""

from __future__ import annotations

from dataclasses import replace

from smolship.export.config import DecoderConfig, Fields
from smolship.export.families import llama
from smolship.runtime.errors import InputError, show

NAMES = llama.NAMES


def translate(fields: Fields) -> DecoderConfig:
    """Llama's translation, and `no_rope_layers`, where **1 means that the layer HAS rotary embedding**."""
    config = llama.translate(Fields({"tie_word_embeddings": True, **fields.raw}, fields.where))
    if fields.flag("use_sliding_window", False):
        raise InputError("sliding windows are not supported in SmolLM3", got=f"use_sliding_window in {fields.where}")
    interval = fields.int("no_rope_layer_interval", 1, 512, default=4)
    layers = fields.raw.get("no_rope_layers") or [int((i + 1) % interval != 0) for i in range(config.layers)]
    if not isinstance(layers, list) or len(layers) != config.layers or any(value not in (0, 1) for value in layers):
        raise InputError(
            "config value 'no_rope_layers' cannot be used",
            got=f"{show(layers)} in {fields.where}",
            expected=f"{config.layers} values, 1 where the layer has rotary embedding and 0 where not",
        )
    rotary_layers = tuple(bool(value) for value in layers)
    return replace(config, architecture="smollm3", model_type="smollm3", rotary_layers=rotary_layers)
