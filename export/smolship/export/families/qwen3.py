"""Qwen3: Qwen2 without its biases, with a norm of each query and key, and a size of heads of its own."""

from __future__ import annotations

from typing import Any

from smolship.export.config import DecoderConfig
from smolship.export.families import llama, qwen2
from smolship.export.families.fields import Fields

NAMES = llama.NAMES | {
    "q_norm": "model.layers.{}.self_attn.q_norm.weight",
    "k_norm": "model.layers.{}.self_attn.k_norm.weight",
}
DEFAULTS: dict[str, Any] = qwen2.DEFAULTS | {"head_dim": 128}  # Qwen3Config


def translate(fields: Fields) -> DecoderConfig:
    """Qwen2's translation; `attention_bias` is of o too."""
    bias = fields.flag("attention_bias", False)
    config = llama.decoder(fields, DEFAULTS, bias=bias, output_bias=bias, qk_norm="head")
    return qwen2.windows(fields, config)
