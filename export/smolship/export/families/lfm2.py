"""LFM2 and LFM2.5: Qwen3's attention in some layers, and a short convolution between two gates in the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smolship.export.config import DecoderConfig, Mlp, ShortConv
from smolship.export.families import llama
from smolship.export.families.fields import Fields
from smolship.export.transforms import Names, Squeezed
from smolship.runtime.errors import InputError

AT = "model.layers.{}."
NAMES: Names = {
    "embed": "model.embed_tokens.weight",
    "norm": "model.embedding_norm.weight",
    "head": "lm_head.weight",
    "attn_norm": AT + "operator_norm.weight",
    "q": AT + "self_attn.q_proj.weight",
    "k": AT + "self_attn.k_proj.weight",
    "v": AT + "self_attn.v_proj.weight",
    "o": AT + "self_attn.out_proj.weight",
    "q_norm": AT + "self_attn.q_layernorm.weight",
    "k_norm": AT + "self_attn.k_layernorm.weight",
    "conv_in": AT + "conv.in_proj.weight",
    "conv": Squeezed(AT + "conv.conv.weight"),
    "conv_out": AT + "conv.out_proj.weight",
    "mlp_norm": AT + "ffn_norm.weight",
    "gate": AT + "feed_forward.w1.weight",
    "up": AT + "feed_forward.w3.weight",
    "down": AT + "feed_forward.w2.weight",
}
DEFAULTS: dict[str, Any] = llama.DEFAULTS | {  # Lfm2Config
    "hidden_size": 2560,
    "intermediate_size": 12_288,
    "num_key_value_heads": 8,
    "vocab_size": 65_536,
    "max_position_embeddings": 128_000,
    "rope_theta": 1e6,
    "norm_eps": {"norm_eps": 1e-5},
    "tie_word_embeddings": True,
    "activation": {None: ("silu", "silu")},
}
CONV = "conv"


def translate(fields: Fields) -> DecoderConfig:
    """The decoder that an Lfm2Config describes."""
    fields.int("num_key_value_heads", 1, 1024, DEFAULTS["num_key_value_heads"])  # null is nothing to this class
    config = llama.decoder(fields, DEFAULTS, qk_norm="head")
    attends = _attends(fields, len(config.layers))
    convolution = ShortConv(fields.int("conv_L_cache", 2, 64, default=3), fields.flag("conv_bias", False))
    mlp = Mlp(_width(fields, config.layers[0].mlp.width))
    layers = [
        replace(layer, mixer=layer.mixer if one else convolution, mlp=mlp)
        for layer, one in zip(config.layers, attends, strict=True)
    ]
    return replace(config, layers=tuple(layers), tied_head=fields.flag("tie_embedding", config.tied_head))


def _attends(fields: Fields, count: int) -> list[bool]:
    """Which layers attend: by `layer_types`, else by `full_attn_idxs`, else all."""
    if fields.has("layer_types"):
        attends = [kind != CONV for kind in llama.layer_types(fields, count, (llama.FULL, CONV))]
    elif fields.has("full_attn_idxs"):
        listed = fields.raw["full_attn_idxs"]
        if not isinstance(listed, list) or any(type(i) is not int or not 0 <= i < count for i in listed):
            raise fields.wrong("full_attn_idxs", f"a list of layers below {count}")
        attends = [i in listed for i in range(count)]
    else:
        attends = [True] * count
    if not any(attends):
        raise InputError(
            "no layer attends",
            got=f"{count} convolutions in {fields.where}",
            expected=f"at least one {llama.FULL}: nothing else here knows how long a text is",
        )
    return attends


def _width(fields: Fields, width: int) -> int:
    """Of the MLP: as it is given, or two thirds of it, times a factor, up to the next multiple."""
    width = fields.int("block_ff_dim", 1, 1 << 20, default=width)
    if not fields.flag("block_auto_adjust_ff_dim", True):
        return width
    width, multiple = int(2 * width / 3), fields.int("block_multiple_of", 1, 1 << 20, default=256)
    factor = fields.number("block_ffn_dim_multiplier", 1e-3, 1e3, default=1.0)
    return -(-int(factor * width) // multiple) * multiple
