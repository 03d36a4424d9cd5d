"""Names the operator that makes the first infinity or NaN of a run: a gap that is not a number is then told from an
engine's fault."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from smolship.export.config import Activation
from smolship.export.decoder import Primitives
from smolship.export.rotary import Rotary


class Watched:
    """Primitives whose every tensor is looked at.

    first  the operator that made the first infinity or NaN; empty while there is none
    """

    def __init__(self, ops: Primitives):
        self.ops, self.first, self.stream = ops, "", ops.stream

    def _look(self, name: str, *tensors: Tensor) -> None:
        if not self.first and not all(bool(t.isfinite().all()) for t in tensors):
            self.first = name

    def embed(self, name: str, ids: Tensor) -> Tensor:
        out = self.ops.embed(name, ids)
        self._look(name, out)
        return out

    def linear(self, names: Sequence[str], x: Tensor) -> list[Tensor]:
        self._look(f"the input of {names[0]}", x)
        out = self.ops.linear(names, x)
        for name, y in zip(names, out, strict=True):
            self._look(name, y)
        return out

    def rms_norm(
        self, name: str, x: Tensor, residual: Tensor | None, eps: float, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        out, s = self.ops.rms_norm(name, x, residual, eps, scale)
        self._look(f"the sum before {name}", s)
        self._look(name, out)
        return out, s

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        out = self.ops.scaled(x, factor)
        self._look(f"what is multiplied by {factor:g}", out)
        return out

    def activate(self, kind: Activation, x: Tensor) -> Tensor:
        return self.ops.activate(kind, x)

    def rotary(self, rotary: Rotary, x: Tensor, position: Tensor) -> Tensor:
        return self.ops.rotary(rotary, x, position)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
        out = self.ops.attend(layer, q, k, v, position)
        self._look(f"layers.{layer}'s attention", out)
        return out

    def convolve(self, layer: int, x: Tensor, position: Tensor) -> Tensor:
        self._look(f"the input of layers.{layer}'s convolution", x)
        out = self.ops.convolve(layer, x, position)
        self._look(f"layers.{layer}'s convolution", out)
        return out
