"""Rotary embedding out of a config.json, in the order in which transformers 5 reads it, for every family."""

from __future__ import annotations

from smolship.export.families.fields import Fields
from smolship.export.rotary import LinearScaling, Llama3Scaling, Rotary, Scaling
from smolship.runtime.errors import InputError, show

KINDS = ("default", "linear", "llama3")


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


def of(rope: Fields, fields: Fields, beside: str, head_dim: int, positions: int, theta: float) -> Rotary:
    """One rotary embedding out of its dictionary; its theta may be there, or in the config as `beside`.

    A scaling that we do not know is refused: read as "default" it would be wrong without a word.
    """
    home, key = (rope, "rope_theta") if "rope_theta" in rope.raw else (fields, beside)
    theta = home.number(key, 1.0, 1e12, default=theta)
    fields.seen.add(beside)
    if home is rope and fields.raw.get(beside, theta) != theta:
        fields.notes.append(f"config.json: the {beside} beside {rope.where.split()[0]} is not read where that has one")
    named = "rope_type" in rope.raw
    kind = rope.choice("rope_type" if named else "type", KINDS, "default")  # "type" until transformers 4.43
    rope.seen.add("type")
    scaling: Scaling | None = None
    if kind == "linear":
        scaling = LinearScaling(rope.number("factor", 1e-3, 1e6))
    elif kind == "llama3":
        scaling = smoothed = _llama3(rope, positions)
        # transformers reads this one beside the dictionary too, in some ways of loading before and in some after it.
        if fields.has("original_max_position_embeddings"):
            fields.only("original_max_position_embeddings", int(smoothed.original))
        for part in (fields, rope):
            part.only("partial_rotary_factor", 1, 1.0)
    if unread := rope.unseen():
        fields.notes.append(
            f"config.json: {', '.join(map(show, unread))} in a rotary embedding of type {kind!r}: not "
            "read, in transformers neither"
        )
    return Rotary(theta, head_dim, scaling)


def _llama3(rope: Fields, positions: int) -> Llama3Scaling:
    """The original positions are all of them where none are given."""
    low = rope.number("low_freq_factor", 1e-6, 1e6)
    return Llama3Scaling(
        rope.number("factor", 1e-3, 1e6),
        low,
        rope.number("high_freq_factor", low * (1 + 1e-6), 1e6),
        rope.number("original_max_position_embeddings", 1, 1 << 24, default=positions),
    )
