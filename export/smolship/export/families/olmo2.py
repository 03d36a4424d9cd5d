"""OLMo 2: Llama with its norms behind the attention and the MLP, one norm over all queries and one over all keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smolship.export.config import DecoderConfig
from smolship.export.families import llama
from smolship.export.families.fields import Fields
from smolship.export.transforms import Names

AT = "model.layers.{}."
NAMES: Names = llama.NAMES | {
    "attn_out_norm": AT + "post_attention_layernorm.weight",
    "mlp_out_norm": AT + "post_feedforward_layernorm.weight",
    "q_norm": AT + "self_attn.q_norm.weight",
    "k_norm": AT + "self_attn.k_norm.weight",
}
DEFAULTS: dict[str, Any] = llama.DEFAULTS | {"vocab_size": 50_304, "norm_eps": {"rms_norm_eps": 1e-5}}  # Olmo2Config


def translate(fields: Fields) -> DecoderConfig:
    """Llama's translation, without biases of the MLP."""
    bias = fields.flag("attention_bias", False)
    config = llama.decoder(fields, DEFAULTS, bias=bias, output_bias=bias, qk_norm="full")
    llama.all_full(fields, config)
    return replace(config, layers=tuple(replace(layer, norms="after") for layer in config.layers))
