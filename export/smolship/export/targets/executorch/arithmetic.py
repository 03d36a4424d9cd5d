"""How XNNPACK multiplies a quantized matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from smolship.export.numerics import Numerics
from smolship.export.weights import Weights


class Tokens(Numerics):
    """XNNPACK's qd8: activations in int8, asymmetric, one scale and zero point a token."""

    def round(self, x: Tensor) -> Tensor:
        """In XNNPACK's order of operations: the zero point is rounded from whichever end is nearer to a code."""
        low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
        steps = 255 / (high - low)  # codes a unit of x
        steps = torch.where(steps.isfinite(), steps, 1.0)  # a row of zeros, or so near them that XNNPACK gets zeros
        from_low, from_high = -128 - low * steps, 127 - high * steps
        zero = torch.where(from_low + from_high < 0, from_low, from_high).clamp(-128, 127).round()
        return ((self.nearest(x * steps) + zero).clamp(-128, 127) - zero) * (1 / steps)


def numerics(weights: Weights) -> Callable[[str], Numerics]:
    """Quantized matrices take int8, the others float32."""
    return lambda name: Tokens() if weights.quantized(name) else Numerics()
