"""OpenELM: Llama whose heads and MLPs grow from layer to layer, with fused matrices and norms of queries and keys.

The published config.json lists the heads and the MLP's multiplier of each layer, beside the two ends that they were
made of (layer-wise scaling; Mehta et al. 2024, arXiv:2404.14619).
"""

from __future__ import annotations

import numpy as np

from smolship.export.config import Attention, DecoderConfig, Layer, Mlp
from smolship.export.families.fields import Fields
from smolship.export.rotary import Rotary
from smolship.export.transforms import Fused, Names
from smolship.runtime.errors import InputError

OWN_ORIGINAL = "smolship.export.families.openelm_original"
TOKENIZER = "Llama 2's tokenizer"  # which its checkpoints do not bring
AT = "transformer.layers.{}."
QKV, GATE_UP = AT + "attn.qkv_proj.weight", AT + "ffn.proj_1.weight"
NAMES: Names = {
    "embed": "transformer.token_embeddings.weight",
    "norm": "transformer.norm.weight",
    "head": "lm_head.weight",
    "attn_norm": AT + "attn_norm.weight",
    **{kind: Fused(QKV, ("q", "k", "v")) for kind in ("q", "k", "v")},
    "q_norm": AT + "attn.q_norm.weight",
    "k_norm": AT + "attn.k_norm.weight",
    "o": AT + "attn.out_proj.weight",
    "mlp_norm": AT + "ffn_norm.weight",
    **{kind: Fused(GATE_UP, ("gate", "up")) for kind in ("gate", "up")},
    "down": AT + "ffn.proj_2.weight",
}
EPSILON = 1e-6  # of its norms: the config has no key for it
HEADS, LARGEST = 1024, 64.0  # a layer's heads, and a multiplier, at most


def translate(fields: Fields) -> DecoderConfig:
    """The decoder that an OpenELMConfig describes."""
    count, hidden = fields.int("num_transformer_layers", 1, 512, 12), fields.int("model_dim", 2, 65_536, 2048)
    head_dim, vocab = fields.int("head_dim", 2, 1024, 128), fields.int("vocab_size", 1, 2_000_000, 32_000)
    if head_dim % 2:
        raise InputError("head_dim is odd", got=f"{head_dim} in {fields.where}", expected="an even number")
    if not fields.flag("share_input_output_layers", False):
        raise fields.wrong("share_input_output_layers", "true: a head of its own is in no published OpenELM")
    fields.only("tie_word_embeddings", True)
    for key, known in (("ffn_with_glu", True), ("normalization_layer_name", "rms_norm"), ("rms_norm_eps", EPSILON)):
        fields.only(key, known)
    fields.choice("activation_fn_name", ("swish", "silu"), "swish")
    fields.int("rope_max_length", 1, 1 << 24, 4096)  # of a table that its makers extended where it was too short
    rotary = Rotary(fields.number("rope_freq_constant", 1.0, 1e12, default=10_000.0), head_dim)
    norm = "head" if fields.flag("normalize_qk_projections", False) else None
    mixers = [
        Attention(heads, kv_heads, head_dim, scale=head_dim**-0.5, rotary=rotary, qk_norm=norm)  # type: ignore[arg-type]
        for heads, kv_heads in zip(*_heads(fields, count, hidden, head_dim), strict=True)
    ]
    mlps = [Mlp(width) for width in _widths(fields, count, hidden)]
    bos = fields.ids("bos_token_id", vocab)
    return DecoderConfig(
        architecture="openelm",
        layers=tuple(map(Layer, mixers, mlps)),
        hidden=hidden,
        vocab=vocab,
        norm_eps=EPSILON,
        tied_head=True,
        positions=fields.int("max_context_length", 1, 1 << 24, 2048),
        bos=bos[0] if bos else None,
        eos=fields.ids("eos_token_id", vocab),
    )


def _heads(fields: Fields, count: int, hidden: int, head_dim: int) -> tuple[list[int], list[int]]:
    """Of queries and of keys, by layer. Where the file has what they are made of, too, both must agree: its makers'
    class computes them, and other programs go by the lists."""
    groups, names = fields.int("num_gqa_groups", 1, HEADS, 1), ("num_query_heads", "num_kv_heads")
    listed, listed_kv = (_listed(fields, name, count) for name in names)
    scales = _multipliers(fields, "qkv_multipliers", 1.0, count, (2,))
    heads = [divisible(hidden * scale, head_dim * groups) // head_dim for scale in scales]
    if listed and "qkv_multipliers" not in fields.raw:
        heads = listed
    kv_heads = listed_kv if listed_kv and "num_gqa_groups" not in fields.raw else [one // groups for one in heads]
    for name, found, used in zip(names, (listed, listed_kv), (heads, kv_heads), strict=True):
        if found not in (None, used):
            raise fields.wrong(name, f"{used}, which qkv_multipliers and num_gqa_groups make")
    if max(heads) > HEADS or any(not kv or one % kv for one, kv in zip(heads, kv_heads, strict=True)):
        raise fields.wrong("num_kv_heads", f"numbers that divide the heads of the queries, {heads}")
    return heads, kv_heads


def _widths(fields: Fields, count: int, hidden: int) -> list[int]:
    """Of the MLPs, by layer."""
    divisor = fields.int("ffn_dim_divisor", 1, 1 << 20, 256)
    return [divisible(hidden * scale, divisor) for scale in _multipliers(fields, "ffn_multipliers", 4.0, count)]


def divisible(number: float, divisor: int) -> int:
    """The nearest multiple of the divisor; the next one where that is less than nine tenths of the number."""
    nearest = max(divisor, int(number + divisor / 2) // divisor * divisor)
    return nearest + divisor * (nearest < 0.9 * number)


def _multipliers(
    fields: Fields, key: str, default: float, count: int, lengths: tuple[int, ...] | None = None
) -> list[float]:
    """By layer: one for all; or the first and the last, with even steps between them, rounded to hundredths; or, where
    no other `lengths` are allowed, each."""
    value = fields.raw.get(key, default)
    fields.seen.add(key)
    many = value if isinstance(value, list) else [value]
    sound = all(isinstance(v, int | float) and not isinstance(v, bool) and 0 < v <= LARGEST for v in many)
    if not sound or (many is value and len(many) not in (lengths or (2, count))):
        raise fields.wrong(key, f"a number above 0 and up to {LARGEST:g}, or a list of {lengths or (2, count)} of them")
    if len(many) == 2:
        return [float(round(step, 2)) for step in np.linspace(many[0], many[1], count)]
    return [float(one) for one in many] * (1 if len(many) > 1 else count)


def _listed(fields: Fields, key: str, count: int) -> list[int] | None:
    """A number for each layer, or one for all; None where the key is absent."""
    if not fields.has(key):
        return None
    value = fields.raw[key]
    many = value if isinstance(value, list) else [value] * count
    if len(many) != count or any(type(v) is not int or not 1 <= v <= HEADS for v in many):
        raise fields.wrong(key, f"{count} whole numbers from 1 to {HEADS:,}")
    return many
