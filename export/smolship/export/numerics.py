"""How an engine computes, for the simulation of it: the base of what each target says in its `numerics.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Numerics:
    """Float32 throughout, which every target takes as the base and says where it differs.

    dither         a seed: uniform noise of the same step width instead of rounding, to price the rounding against
    stream         what the hidden state is multiplied by (decoder.Primitives)
    half           all that the engine computes and its cache are fp16: every operator's output is rounded, sums are
                   float32
    half_attention queries, keys, values and probabilities are rounded to fp16, sums are float32
    half_gelu      what GELU takes and gives is rounded to fp16
    scaled_queries architectures, as config.json calls them, whose queries are scaled before they are rounded to fp16,
                   and not the scores
    half_constants the file holds the rotary tables, the root of the norms' epsilon and what queries are multiplied by
                   in fp16, whatever is computed in
    """

    dither: int | None = None
    stream: float = 1.0
    half: ClassVar[bool] = False
    half_attention: ClassVar[bool] = False
    scaled_queries: ClassVar[frozenset[str]] = frozenset()
    half_gelu: ClassVar[bool] = False
    half_constants: ClassVar[bool] = False

    def round(self, x: Tensor) -> Tensor:
        """x [..., in], the input of a matrix, as the engine sees it: rounded and float32 again."""
        return x

    def output(self, x: Tensor, noise: torch.Generator) -> Tensor:
        """An operator's output as the engine keeps it: fp16 where that is what it computes in, so that plain torch's
        operators between the primitives round too."""
        return self.to_half(x, noise) if self.half else x

    def to_half(self, x: Tensor, noise: torch.Generator) -> Tensor:
        """x in fp16, or, where rounding is priced, in float32 with that much noise."""
        if self.dither is None:
            return x.half()
        _, exponent = torch.frexp(x.abs().clamp(min=2.0**-14))  # below it fp16's steps stay as they are
        step = torch.ldexp(torch.ones_like(x), exponent - 11)
        return torch.where(x == 0, x, x + (torch.rand(x.shape, generator=noise) - 0.5) * step)  # a zero needs none

    def seeded(self) -> torch.Generator:
        """Noise of the seed."""
        return torch.Generator().manual_seed(self.dither or 0)

    def nearest(self, x: Tensor) -> Tensor:
        """The nearest whole numbers, ties to even; or, where rounding is priced, x with as much noise."""
        if self.dither is None:
            return x.round()
        return torch.where(x == 0, x, x + torch.rand(x.shape, generator=self.seeded()) - 0.5)  # every grid here holds 0

    def blocks(self, x: Tensor, block: int, half_scales: bool = False) -> Tensor:
        """Symmetric int8 with a scale max|x| / 127 for each `block` inputs, in MLAS's order of operations. Codes are
        rounded for the scale as it is; it may be kept in fp16 (llama.cpp)."""
        width = x.shape[-1]
        blocks = torch.nn.functional.pad(x, (0, -width % block)).unflatten(-1, (-1, block))
        peak = blocks.abs().amax(-1, keepdim=True)
        steps = 127 / peak
        # A block of zeros, or so near them that the engine gets zeros.
        codes = self.nearest(torch.where(steps.isfinite(), blocks * steps, 0))
        scale = peak / 127
        return (codes * (scale.half().float() if half_scales else scale)).flatten(-2)[..., :width]

    def rows(self, x: Tensor) -> Tensor:
        """Asymmetric int8 with a scale and a zero point a token, in XNNPACK's order of operations (and KleidiAI's):
        the zero point is rounded from whichever end is nearer to a code."""
        low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
        steps = 255 / (high - low)  # codes a unit of x
        steps = torch.where(steps.isfinite(), steps, 1.0)  # a row of zeros, or so near them that XNNPACK gets zeros
        from_low, from_high = -128 - low * steps, 127 - high * steps
        zero = torch.where(from_low + from_high < 0, from_low, from_high).clamp(-128, 127).round()
        return ((self.nearest(x * steps) + zero).clamp(-128, 127) - zero) * (1 / steps)
