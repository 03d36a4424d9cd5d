"""How llama.cpp's CPU backend multiplies matrices and attends."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from smolship.export.numerics import Numerics
from smolship.export.weights import Weights

BLOCK = 32  # inputs that share a scale
SCALED_QUERIES = frozenset(("gemma3_text", "phi3"))  # architectures in whose graph a scaling of the queries stands


class Q8Blocks(Numerics):
    """Activations in Q8_0: int8, a scale max|x| / 127 for each 32 inputs, kept in fp16."""

    half_attention = half_gelu = True
    scaled_queries = SCALED_QUERIES

    def round(self, x: Tensor) -> Tensor:
        return self.blocks(x, BLOCK, half_scales=True)


class HalfInputs(Numerics):
    """Activations of an F16 matrix in fp16."""

    half_attention = half_gelu = True
    scaled_queries = SCALED_QUERIES

    def round(self, x: Tensor) -> Tensor:
        return self.to_half(x, self.seeded()).float()


def numerics(weights: Weights) -> Callable[[str], Numerics]:
    """Queries, probabilities and the cache are fp16 besides, and what GELU takes and gives: it is a table.

    So it computes on x86. On Arm cores with fp16 arithmetic it also sums products of fp16 in fp16.
    """
    return lambda name: Q8Blocks() if weights.quantized(name) else HalfInputs()
