"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864): its frequencies, its tables, its scalings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class Scaling(Protocol):
    """What a context that was stretched after the training does to the frequencies."""

    def apply(self, frequencies: Tensor) -> Tensor:
        """Radians per position, float32 [width / 2], scaled."""
        ...


@dataclass(frozen=True)
class LinearScaling:
    """Positions divided by `factor` (Chen et al. 2023, arXiv:2306.15595)."""

    factor: float

    def apply(self, frequencies: Tensor) -> Tensor:
        return frequencies / self.factor


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3's smoothing, from the Llama 3.1 reference implementation: high frequencies stay, low ones are divided by
    `factor`, and those between are blended. `original` is the context of the training, in positions."""

    factor: float
    low: float
    high: float
    original: float

    def apply(self, frequencies: Tensor) -> Tensor:
        import torch

        wavelength = 2 * math.pi / frequencies  # positions to a full turn
        smooth = (self.original / wavelength - self.low) / (self.high - self.low)
        between = (1 - smooth) * frequencies / self.factor + smooth * frequencies
        slow, fast = wavelength > self.original / self.low, wavelength < self.original / self.high
        stretched = torch.where(slow, frequencies / self.factor, frequencies)
        return torch.where(fast | slow, stretched, between)


@dataclass(frozen=True)
class Rotary:
    """One rotary embedding; layers may share it or differ in it.

    theta        base of the frequencies
    width        dimensions of a head that are rotated, the first ones; the rest stays as it is
    scaling      of the frequencies, or None
    interleaved  neighbours (0, 1), (2, 3), … are rotated, not halves (0, width / 2), (1, width / 2 + 1), …
    """

    theta: float
    width: int
    scaling: Scaling | None = None
    interleaved: bool = False

    def frequencies(self) -> np.ndarray:
        """Radians per position, float32 [width / 2], bit for bit those of transformers.

        Computed as it does, in float32 and by torch, for each step's rounding is part of the model: a float64 power
        rounded once is up to 4e-3 rad away at position 65,000, and numpy's float32 power is another one too. (llama.cpp
        makes its own from theta by repeated multiplication in float32, which a GGUF file cannot change: with 64 or 128
        dimensions it is up to 2e-4 rad away at position 2,048, 1e-3 at 8,192 and 8e-3 at 65,000.)
        """
        import torch

        plain = 1.0 / (self.theta ** (torch.arange(0, self.width, 2, dtype=torch.float32) / self.width))
        return np.asarray((plain if self.scaling is None else self.scaling.apply(plain)).numpy())

    def tables(self, positions: int) -> tuple[np.ndarray, np.ndarray]:
        """cos and sin, float32 [positions, width / 2], those of transformers too: the angles are rounded to float32,
        and numpy's cosine is sometimes another neighbour of the true one than torch's."""
        import torch

        angle = torch.arange(positions, dtype=torch.float32)[:, None] * torch.from_numpy(self.frequencies())
        return angle.cos().numpy(), angle.sin().numpy()
