"""Rotary embedding out of a config.json, in the order in which transformers 5 reads it, for every family."""

from __future__ import annotations

import math

from smolship.export.families.fields import Fields
from smolship.export.rotary import LinearScaling, Llama3Scaling, Rotary, Scaling, YarnScaling
from smolship.runtime.errors import InputError, show

KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


def rotary(fields: Fields, head_dim: int, positions: int, theta: float) -> Rotary:
    """`rope_scaling` (written until transformers 4) where it holds anything, else `rope_parameters`; theta from there,
    else from `rope_theta` beside it, else the class's own `theta`."""
    old, new = fields.sub("rope_scaling"), fields.sub("rope_parameters")
    rope = old if old.raw else new
    if old.raw and new.raw and old.raw != new.raw:
        fields.notes.append("config.json: rope_parameters is not read where there is a rope_scaling")
    for key, value in rope.raw.items():
        if isinstance(value, dict):
            raise InputError(
                "rotary embeddings that differ by layer are not supported",
                got=f"{show(key)} in {rope.where}",
                expected="one for all layers",
            )
    return of(rope, fields, "rope_theta", head_dim, positions, theta)


def of(
    rope: Fields, fields: Fields, beside: str, width: int, positions: int, theta: float, kinds: tuple[str, ...] = KINDS
) -> Rotary:
    """One rotary embedding out of its dictionary; its theta may be there, or in the config as `beside`.

    A scaling that we do not know is refused: read as "default" it would be wrong without a word.
    """
    home, key = (rope, "rope_theta") if "rope_theta" in rope.raw else (fields, beside)
    theta = home.number(key, 1.0, 1e12, default=theta)
    fields.seen.add(beside)
    if home is rope and fields.raw.get(beside, theta) != theta:
        fields.notes.append(f"config.json: the {beside} beside {rope.where.split()[0]} is not read where that has one")
    named = "rope_type" in rope.raw
    kind = rope.choice("rope_type" if named else "type", kinds, "default")  # "type" until transformers 4.43
    rope.seen.add("type")
    if named and rope.raw.get("type", kind) != kind:
        fields.notes.append(f"config.json: the type {show(rope.raw['type'])} beside a rope_type {kind!r} is not read")
    scaling = _scaling(kind, rope, fields, positions)
    if kind != "default":  # these read it, from the dictionary or beside it, and the class then rotates whole heads
        for part in (fields, rope):
            part.only("partial_rotary_factor", 1, 1.0)
    if unread := rope.unseen():
        fields.notes.append(
            f"config.json: {', '.join(map(show, unread))} in a rotary embedding of type {kind!r}: not "
            "read, in transformers neither"
        )
    return Rotary(theta, width, scaling)


def _scaling(kind: str, rope: Fields, fields: Fields, positions: int) -> Scaling | None:
    if kind == "default":
        return None
    factor = rope.number("factor", 1e-3, 1e6)
    if kind == "linear":
        return LinearScaling(factor)
    if kind == "dynamic":  # another theta for positions beyond those of the model, which no context reaches
        return None
    # The original positions are all of them where none are given.
    original = rope.number("original_max_position_embeddings", 1, 1 << 24, default=positions)
    if fields.has("original_max_position_embeddings"):
        fields.only("original_max_position_embeddings", int(original))
    if kind == "llama3":
        low = rope.number("low_freq_factor", 1e-6, 1e6)
        return Llama3Scaling(factor, low, rope.number("high_freq_factor", low * (1 + 1e-6), 1e6), original)
    return YarnScaling(
        factor,
        original,
        _yarn_amplitude(rope, factor),
        rope.number("beta_fast", 1e-3, 1e6, default=32.0) if rope.has("beta_fast") else 32.0,
        rope.number("beta_slow", 1e-3, 1e6, default=1.0) if rope.has("beta_slow") else 1.0,
        rope.flag("truncate", True),
    )


def _yarn_amplitude(rope: Fields, factor: float) -> float:
    """As it is given, or by `mscale` and `mscale_all_dim` (DeepSeek's), or 0.1 ln(factor) + 1."""
    if rope.has("attention_factor"):
        return rope.number("attention_factor", 0, 1e6, whole=False)

    def by(key: str) -> float:
        return rope.number(key, 0, 1e6) if rope.has(key) else 0.0

    def amplitude(scale: float = 1.0) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    one, other = by("mscale"), by("mscale_all_dim")
    return amplitude(one) / amplitude(other) if one and other else amplitude()
