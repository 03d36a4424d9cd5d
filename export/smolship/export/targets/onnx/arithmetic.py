"""How ONNX Runtime's CPU provider multiplies a quantized matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from smolship.export.numerics import Numerics
from smolship.export.targets.onnx.data import block_of
from smolship.export.weights import Weights


@dataclass(frozen=True)
class Blocks(Numerics):
    """MatMulNBits at accuracy level 4: activations in int8, symmetric, a scale for each `block` inputs."""

    block: int = 32

    def round(self, x: Tensor) -> Tensor:
        return self.blocks(x, self.block)


class Rows(Numerics):
    """KleidiAI's qai8dxp."""

    def round(self, x: Tensor) -> Tensor:
        return self.rows(x)


def numerics(weights: Weights) -> Callable[[str], Numerics]:
    """Each block of activations is rounded to int8, scale max|x| / 127, ties to even; the block is the weights'. The
    products are exact integers, sums over blocks are float32.

    So MLAS computes on x86, and on Arm with dot products where KleidiAI is left out.
    """

    def of(name: str) -> Numerics:
        entry = weights.entries[name]
        return Numerics() if entry.bits == 16 else Blocks(block=block_of(entry))

    return of


def rows(weights: Weights) -> Callable[[str], Numerics]:
    """With KleidiAI: int4 takes activations in int8, asymmetric, one scale and zero point a token, as XNNPACK's qd8;
    int8 as elsewhere."""
    blocks = numerics(weights)
    return lambda name: Rows() if weights.entries[name].bits == 4 else blocks(name)


def floats(weights: Weights) -> Callable[[str], Numerics]:
    """On Arm without dot products: float32 throughout."""
    return lambda name: Numerics()


ON_ARM = {"rows": rows, "float32": floats}
