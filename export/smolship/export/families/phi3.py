"""Phi-3 and Phi-4-mini: Llama with fused matrices, a rotary embedding of a part of each head, LongRoPE, a window."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from smolship.export.config import DecoderConfig, with_mixers
from smolship.export.families import llama, rope
from smolship.export.families.fields import Fields
from smolship.export.rotary import LongRope, Rotary
from smolship.export.transforms import Fused, Names
from smolship.runtime.errors import show

AT = "model.layers.{}."
QKV, GATE_UP = AT + "self_attn.qkv_proj.weight", AT + "mlp.gate_up_proj.weight"
NAMES: Names = (
    llama.NAMES
    | {kind: Fused(QKV, ("q", "k", "v")) for kind in ("q", "k", "v")}
    | {kind: Fused(GATE_UP, ("gate", "up")) for kind in ("gate", "up")}
)
DEFAULTS: dict[str, Any] = llama.DEFAULTS | {  # Phi3Config
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "vocab_size": 32_064,
    "max_position_embeddings": 4096,
    "norm_eps": {"rms_norm_eps": 1e-5},
}
ORIGINAL = "original_max_position_embeddings"
LONG = ("longrope", "su", "yarn")  # what the class calls longrope


def translate(fields: Fields) -> DecoderConfig:
    """Llama's translation, with the window in every layer."""
    config = llama.decoder(fields, DEFAULTS, rotary=_rotary)
    windowed = fields.has("sliding_window")
    llama.all_full(fields, config, () if windowed else ("attention_chunk_size",))
    if not windowed:
        return config
    window = fields.int("sliding_window", 1, 1 << 24)
    return with_mixers(config, window=[window if window < config.positions else None] * len(config.layers))


def _rotary(fields: Fields, head_dim: int, positions: int, theta: float) -> Rotary:
    """Of the part of each head that `partial_rotary_factor` says, plain or with LongRoPE's factors."""
    old, new = fields.sub("rope_scaling"), fields.sub("rope_parameters")
    found = old if old.raw else new
    home = found if "partial_rotary_factor" in found.raw else fields
    width = int(head_dim * home.number("partial_rotary_factor", 1e-3, 1.0, default=1.0))
    fields.seen.add("partial_rotary_factor")
    found.seen.add("partial_rotary_factor")
    original = fields.int(ORIGINAL, 1, 1 << 24, default=4096)
    if width < 2 or width % 2:
        raise home.wrong("partial_rotary_factor", "an even number of dimensions, 2 or more")
    kind = found.raw.get("rope_type", found.raw.get("type"))
    if kind not in LONG:
        return rope.of(found, fields, "rope_theta", width, positions, theta, ("default",))
    plain = Fields({"rope_theta": found.raw["rope_theta"]} if "rope_theta" in found.raw else {}, found.where)
    theta = rope.of(plain, fields, "rope_theta", width, positions, theta).theta
    found.seen |= {"rope_type", "type", "rope_theta", ORIGINAL}
    if ORIGINAL in found.raw and found.raw[ORIGINAL] != original:
        fields.notes.append(f"config.json: {ORIGINAL} in {found.where.split()[0]} is not read: the one beside it is")
    short, long = (_divisors(found, key, width // 2) for key in ("short_factor", "long_factor"))
    factor = found.number("factor", 1e-3, 1e6) if found.has("factor") else positions / original
    amount = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    if found.has("attention_factor"):
        amount = found.number("attention_factor", 0, 1e6, whole=False)
    if unread := found.unseen():
        fields.notes.append(f"config.json: {', '.join(map(show, unread))} in a rotary embedding: not read")
    return Rotary(theta, width, LongRope(short, long, original, float(np.float32(amount))))


def _divisors(fields: Fields, key: str, count: int) -> tuple[float, ...]:
    """Numbers above 0, one for each pair of dimensions, in float32."""
    fields.seen.add(key)
    values = fields.raw.get(key)
    if not isinstance(values, list) or len(values) != count:
        raise fields.wrong(key, f"a list of {count} numbers")
    if any(isinstance(v, bool) or not isinstance(v, int | float) or not 0 < v < 1e6 for v in values):
        raise fields.wrong(key, f"{count} numbers above 0")
    return tuple(float(np.float32(value)) for value in values)
