"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864): its frequencies, its tables, its scalings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class Scaling(Protocol):
    """What a context that was stretched after the training does to a rotary embedding."""

    @property
    def amplitude(self) -> float:
        """What cos and sin are multiplied by."""
        ...

    @property
    def longest(self) -> int | None:
        """The longest context for which it is this one; None: any."""
        ...

    def at(self, context: int) -> Scaling:
        """What it is for that context."""
        ...

    def apply(self, frequencies: Tensor, rotary: Rotary) -> Tensor:
        """Radians per position, float32 [width / 2], scaled."""
        ...


@dataclass(frozen=True)
class Plain:
    """What most scalings leave as it is."""

    @property
    def amplitude(self) -> float:
        return 1.0

    @property
    def longest(self) -> int | None:
        return None

    def at(self, context: int) -> Self:
        return self


@dataclass(frozen=True)
class LinearScaling(Plain):
    """Positions divided by `factor` (Chen et al. 2023, arXiv:2306.15595)."""

    factor: float

    def apply(self, frequencies: Tensor, rotary: Rotary) -> Tensor:
        return frequencies / self.factor


@dataclass(frozen=True)
class Llama3Scaling(Plain):
    """Llama 3's smoothing, from the Llama 3.1 reference implementation: high frequencies stay, low ones are divided by
    `factor`, and those between are blended. `original` is the context of the training, in positions."""

    factor: float
    low: float
    high: float
    original: float

    def apply(self, frequencies: Tensor, rotary: Rotary) -> Tensor:
        import torch

        wavelength = 2 * math.pi / frequencies  # positions to a full turn
        smooth = (self.original / wavelength - self.low) / (self.high - self.low)
        between = (1 - smooth) * frequencies / self.factor + smooth * frequencies
        slow, fast = wavelength > self.original / self.low, wavelength < self.original / self.high
        stretched = torch.where(slow, frequencies / self.factor, frequencies)
        return torch.where(fast | slow, stretched, between)


@dataclass(frozen=True)
class YarnScaling(Plain):
    """YaRN (Peng et al. 2023, arXiv:2309.00071): dimensions that turn more than `fast` times in the context of the
    training stay, those that turn less than `slow` times are divided by `factor`, with a ramp between.

    original  positions of the training
    amount    its amplitude
    whole     the ramp begins and ends at whole dimensions
    """

    factor: float
    original: float
    amount: float
    fast: float = 32.0
    slow: float = 1.0
    whole: bool = True

    @property
    def amplitude(self) -> float:
        return self.amount

    def apply(self, frequencies: Tensor, rotary: Rotary) -> Tensor:
        import torch

        def dimension(turns: float) -> float:
            return rotary.width * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(rotary.theta))

        low, high = dimension(self.fast), dimension(self.slow)
        if self.whole:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rotary.width - 1)
        ramp = (torch.arange(rotary.width // 2, dtype=torch.float32) - low) / (high - low if high != low else 0.001)
        kept = 1 - ramp.clamp(0, 1)
        turns = rotary.theta ** (torch.arange(0, rotary.width, 2, dtype=torch.float32) / rotary.width)
        return 1.0 / (self.factor * turns) * (1 - kept) + frequencies * kept


@dataclass(frozen=True)
class LongRope(Plain):
    """LongRoPE (Ding et al. 2024, arXiv:2402.13753): a divisor of each frequency for texts of up to `original`
    positions, and another for longer ones, from their first position on.

    A cache cannot take its keys back, so that the context decides: one of more than `original` positions has the `long`
    divisors throughout. (llama.cpp does so, too.) All are float32 numbers, as the original computes with them.
    """

    short: tuple[float, ...]
    long: tuple[float, ...]
    original: int
    amount: float

    @property
    def amplitude(self) -> float:
        return self.amount

    @property
    def longest(self) -> int | None:
        return self.original

    def at(self, context: int) -> Self:
        return replace(self, short=self.long) if context > self.original else self

    def apply(self, frequencies: Tensor, rotary: Rotary) -> Tensor:
        import torch

        of = torch.arange(0, rotary.width, 2, dtype=torch.int64).float() / rotary.width
        return 1.0 / (torch.tensor(self.short, dtype=torch.float32) * rotary.theta**of)


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

    def frequencies(self, context: int = 0) -> np.ndarray:
        """Radians per position, float32 [width / 2], bit for bit those of transformers for texts of such a length.

        Computed as it does, in float32 and by torch, for each step's rounding is part of the model: a float64 power
        rounded once is up to 4e-3 rad away at position 65,000, and numpy's float32 power is another one too. (llama.cpp
        makes its own from theta by repeated multiplication in float32, which a GGUF file cannot change: with 64 or 128
        dimensions it is up to 2e-4 rad away at position 2,048, 1e-3 at 8,192 and 8e-3 at 65,000.)
        """
        import torch

        plain = 1.0 / (self.theta ** (torch.arange(0, self.width, 2, dtype=torch.float32) / self.width))
        return np.asarray((self.scaling.at(context).apply(plain, self) if self.scaling else plain).numpy())

    def tables(self, positions: int) -> tuple[np.ndarray, np.ndarray]:
        """cos and sin for a context, float32 [positions, width / 2], those of transformers too: the angles are rounded
        to float32, and numpy's cosine is sometimes another neighbour of the true one than torch's."""
        import torch

        angle = torch.arange(positions, dtype=torch.float32)[:, None] * torch.from_numpy(self.frequencies(positions))
        amplitude = 1.0 if self.scaling is None else self.scaling.amplitude
        return (angle.cos() * amplitude).numpy(), (angle.sin() * amplitude).numpy()
