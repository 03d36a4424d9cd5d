"""How Core ML computes on the GPU, and what the interpreter of its packages can compute in besides."""

from __future__ import annotations

from collections.abc import Callable

from smolship.export.numerics import Numerics
from smolship.export.weights import Weights

MIN_ROOT = 2.0**-14  # the smallest normal fp16 number
STREAM = 2.0**-4  # it shifts exponents alone; the root of an epsilon of 1e-6 times it is still a normal number


def stream_of(weights: Weights) -> float:
    """What the hidden state is multiplied by where norms stand on both sides: it grows to hundreds of thousands there
    (Gemma 3's passes fp16's 65,504 in its 9th layer of 18), and only norms read it."""
    return STREAM if {"layers.0.attn_norm", "layers.0.attn_out_norm"} <= {*weights.entries} else 1.0


class Half(Numerics):
    """Every operator's output is fp16; products are summed in float32."""

    half = True


class HalfConstants(Numerics):
    """A package made for fp16, run in float32."""

    half_constants = True


OTHER_ARITHMETICS = {"float32": HalfConstants()}  # on a Mac too, in smolship's interpreter


def numerics(weights: Weights) -> Callable[[str], Numerics]:
    """The same for every matrix."""
    half = Half(stream=stream_of(weights))
    return lambda name: half
