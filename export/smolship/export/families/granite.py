"""Granite: Llama with four multipliers."""

from __future__ import annotations

from dataclasses import replace

from smolship.export.config import DecoderConfig, with_mixers
from smolship.export.families import llama
from smolship.export.families.fields import Fields

NAMES = llama.NAMES
LARGEST = 1e6  # multiplier


def translate(fields: Fields) -> DecoderConfig:
    """Llama's translation; of the embedding, the scores, what each block adds, and, as a divisor, the logits."""

    def multiplier(key: str) -> float:
        return fields.number(key, 1 / LARGEST, LARGEST, default=1.0)

    config = llama.decoder(fields, llama.DEFAULTS, *llama.biases(fields))
    llama.all_full(fields, config)
    config = with_mixers(config, scale=[multiplier("attention_multiplier")] * len(config.layers))
    residual = multiplier("residual_multiplier")
    return replace(
        config,
        layers=tuple(replace(layer, residual=residual) for layer in config.layers),
        embedding_scale=multiplier("embedding_multiplier"),
        logits_scale=1 / multiplier("logits_scaling"),
    )
