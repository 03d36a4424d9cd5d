"""How Core ML computes on the GPU, and what the interpreter of its packages can compute in besides."""

from __future__ import annotations

from collections.abc import Callable

from smolship.export.numerics import Numerics
from smolship.export.weights import Weights


class Half(Numerics):
    """Every operator's output is fp16; products are summed in float32."""

    half = True


class HalfConstants(Numerics):
    """A package made for fp16, run in float32."""

    half_constants = True


OTHER_ARITHMETICS = {"float32": HalfConstants()}  # on a Mac too, in smolship's interpreter


def numerics(weights: Weights) -> Callable[[str], Numerics]:
    """The same for every matrix."""
    return lambda name: Half()
