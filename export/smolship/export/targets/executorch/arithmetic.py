"""How XNNPACK multiplies a quantized matrix."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from smolship.export.numerics import Numerics
from smolship.export.weights import Weights


class Tokens(Numerics):
    """XNNPACK's qd8: activations in int8, asymmetric, one scale and zero point a token."""

    def round(self, x: Tensor) -> Tensor:
        return self.rows(x)


def numerics(weights: Weights) -> Callable[[str], Numerics]:
    """Quantized matrices take int8, the others float32."""
    return lambda name: Tokens() if weights.quantized(name) else Numerics()
