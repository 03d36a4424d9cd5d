"""The primitives in plain torch: the reference, and the simulation of how each engine really computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from smolship.export.config import DecoderConfig
from smolship.export.decoder import Decoder
from smolship.export.weights import Source


@dataclass(frozen=True)
class Numerics:
    """How an engine multiplies a quantized matrix.

    activations  "float32"; "int8-token": asymmetric int8, one scale and zero point a token (XNNPACK's qd8);
                 "int8-block": symmetric int8, one scale for each `block` inputs (MatMulNBits at accuracy level 4,
                 llama.cpp); "float16": not the matrix alone but all that the engine computes, and its cache: every
                 operator's output is rounded to fp16, sums are float32 (Core ML); "float16-inputs": fp16, sums float32
    scales       what the scale of an int8 block is kept in; codes are rounded for the unrounded scale (llama.cpp)
    attention    "float16": queries, keys, values and probabilities are rounded to fp16, sums are float32 (llama.cpp)
    dither       a seed: uniform noise of the same step width instead of rounding, to price the rounding against
    constants    what the file holds the rotary tables and the root of the norms' epsilon in, where it is not what is
                 computed in: a package made for fp16, run in float32
    """

    activations: Literal["float32", "int8-token", "int8-block", "float16-inputs", "float16"] = "float32"
    block: int = 32
    scales: Literal["float32", "float16"] = "float32"
    attention: Literal["float32", "float16"] = "float32"
    dither: int | None = None
    constants: Literal["float32", "float16"] = "float32"

    def round(self, x: Tensor) -> Tensor:
        """x as the engine sees it: quantized and dequantized along the last dimension."""
        if self.activations == "int8-token":
            # In XNNPACK's order of operations: the zero point is rounded from whichever end is nearer to a code.
            low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
            steps = 255 / (high - low)  # codes a unit of x
            steps = torch.where(steps.isfinite(), steps, 1.0)  # a row of zeros, or so near them that XNNPACK gets zeros
            from_low, from_high = -128 - low * steps, 127 - high * steps
            zero = torch.where(from_low + from_high < 0, from_low, from_high).clamp(-128, 127).round()
            return ((self._nearest(x * steps) + zero).clamp(-128, 127) - zero) * (1 / steps)
        if self.activations == "int8-block":
            width = x.shape[-1]
            blocks = torch.nn.functional.pad(x, (0, -width % self.block)).unflatten(-1, (-1, self.block))
            peak = blocks.abs().amax(-1, keepdim=True)
            steps = 127 / peak  # in MLAS's order of operations
            codes = self._nearest(torch.where(steps.isfinite(), blocks * steps, 0))  # zeros, as above
            scale = peak / 127
            return (codes * (scale.half().float() if self.scales == "float16" else scale)).flatten(-2)[..., :width]
        if self.activations == "float16-inputs":
            return self.half(x, torch.Generator().manual_seed(self.dither or 0)).float()
        return x

    def output(self, x: Tensor, noise: torch.Generator) -> Tensor:
        """An operator's output as the engine keeps it: float16 where that is what it computes in, so that plain
        torch's operators between the primitives round too."""
        return self.half(x, noise) if self.activations == "float16" else x

    def half(self, x: Tensor, noise: torch.Generator) -> Tensor:
        """x in fp16, or, where rounding is priced, in float32 with that much noise."""
        if self.dither is None:
            return x.half()
        _, exponent = torch.frexp(x.abs().clamp(min=2.0**-14))  # below it fp16's steps stay as they are
        step = torch.ldexp(torch.ones_like(x), exponent - 11)
        return torch.where(x == 0, x, x + (torch.rand(x.shape, generator=noise) - 0.5) * step)  # a zero needs none

    def _nearest(self, x: Tensor) -> Tensor:
        if self.dither is None:
            return x.round()
        noise = torch.Generator().manual_seed(self.dither)
        return torch.where(x == 0, x, x + torch.rand(x.shape, generator=noise) - 0.5)  # every grid here holds 0


class Reference:
    """The primitives in torch: float32, or fp16 with sums in float32.

    weights   a checkpoint (the unquantized model) or a finished `Weights`, read at first use and kept
    context   length of the cache
    numerics  how activations are rounded before a quantized linear
    ulp       a seed: every primitive's output is then moved by up to one unit in the last place, at random. Two
              runs with different seeds show how far rounding alone can carry the logits: the noise floor.
    """

    def __init__(
        self,
        config: DecoderConfig,
        weights: Source,
        context: int,
        numerics: Numerics | Callable[[str], Numerics] = Numerics(),
        ulp: int | None = None,
    ):
        self.config, self.weights = config, weights
        self.numerics = numerics if callable(numerics) else lambda name: numerics
        throughout = self.numerics(config.head)  # an engine in fp16 is so throughout
        self.half = throughout.activations == "float16"
        self.round = partial(throughout.output, noise=torch.Generator().manual_seed(throughout.dither or 0))
        # What attention sees of a tensor, where that is rounded.
        self.seen: Callable[[Tensor], Tensor] | None = None
        if throughout.attention == "float16":
            seed = torch.Generator().manual_seed(throughout.dither or 0)
            self.seen = lambda x: throughout.half(x, seed).float()
        self.noise = None if ulp is None else torch.Generator().manual_seed(ulp)
        self.vectors = config.vectors()
        self.tensors: dict[str, Tensor] = {}
        self.k = [torch.zeros(1, s.length, s.kv_heads, s.head_dim) for s in config.cache(context)]
        self.v = [torch.zeros_like(k) for k in self.k]
        halved = throughout.constants == "float16"
        tables = (t.astype(np.float16).astype(np.float32) if halved else t for t in config.rotary.tables(context))
        self.cos, self.sin = (self._stored(t) for t in tables)
        self.eps = float(self._root(torch.float32)) ** 2 if halved else config.norm_eps

    def get(self, name: str) -> Tensor:
        """A tensor as float32."""
        if name not in self.tensors:
            self.tensors[name] = self._stored(np.asarray(self.weights.read(name), np.float32))
        return self.tensors[name]

    def _stored(self, values: np.ndarray) -> Tensor:
        """A constant, as float32, as the engine holds it: in fp16 a product of scale and code may be rounded."""
        if self.half and not np.array_equal(rounded := values.astype(np.float16).astype(np.float32), values):
            values = rounded  # else the array of the source is shared, not held twice
        return torch.from_numpy(values)

    def _out(self, x: Tensor) -> Tensor:
        x = self.round(x)
        if self.noise is None:
            return x
        sign = torch.randint(-1, 2, x.shape, generator=self.noise)
        if x.dtype == torch.float16:  # for which torch has no nextafter; its bits are in the order of its numbers
            return torch.where(x == 0, x, (x.view(torch.int16) + sign.to(torch.int16)).view(torch.float16))
        # A zero is exact in every engine: it comes of zeros, and its neighbour would be a subnormal number.
        return torch.where((sign == 0) | (x == 0), x, torch.nextafter(x, sign * torch.inf))

    def embed(self, name: str, ids: Tensor) -> Tensor:
        return self._out(self.get(name)[ids])

    def linear(self, names: Sequence[str], x: Tensor) -> list[Tensor]:
        outputs = []
        for name in names:
            seen = self.numerics(name).round(x.float())
            bias = self.get(f"{name}.bias") if f"{name}.bias" in self.vectors else None
            outputs.append(self._out(torch.nn.functional.linear(seen, self.get(name), bias)))
        return outputs

    def rms_norm(self, name: str, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        s = x if residual is None else self.round(x + residual)
        if self.half:
            return self._out(self._half_norm(s) * self.get(name)), s
        scale = torch.rsqrt(s.square().mean(-1, keepdim=True) + self.eps)
        return self._out(s * scale * self.get(name)), s

    def _half_norm(self, s: Tensor) -> Tensor:
        """s / sqrt(mean(s²) + eps) in steps that stay within fp16: y = s / max|s| is at most 1."""
        r = self.round
        root = self._root(s.dtype)
        peak = s.abs().amax(-1, keepdim=True).maximum(root)
        y, t = r(s / peak), r(root / peak)
        mean = r(r(y * y).float().mean(-1, keepdim=True))
        return r(y * r(torch.rsqrt(r(mean + r(t * t)))))

    def _root(self, dtype: torch.dtype) -> Tensor:
        """The root of the norms' epsilon as fp16 holds it, a normal number."""
        return torch.tensor(max(self.config.norm_eps**0.5, 2.0**-14), dtype=torch.float16).to(dtype)

    def rotary(self, x: Tensor, position: Tensor) -> Tensor:
        start = int(position)
        cos = self.cos[start : start + x.shape[1], None]  # [S, 1, K / 2]
        sin = self.sin[start : start + x.shape[1], None]
        a, b = x.chunk(2, dim=-1)  # [1, S, heads, K / 2]
        r = self.round
        return self._out(torch.cat([r(a * cos) - r(b * sin), r(b * cos) + r(a * sin)], dim=-1))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
        start, s = int(position), q.shape[1]
        if self.seen:
            q, k, v = self.seen(q), self.seen(k), self.seen(v)
        self.k[layer][:, start : start + s] = k
        self.v[layer][:, start : start + s] = v
        mask = torch.ones(s, start + s, dtype=torch.bool).tril(start)  # token i sees all up to start + i
        q = q.float().transpose(1, 2)  # [1, H, S, K]
        k, v = (t[layer][:, : start + s].transpose(1, 2) for t in (self.k, self.v))  # [1, G, T, K]
        if self.seen:
            mixed = self._mix(q, k, v, mask)
        else:
            scale = self.config.attention_scale
            mixed = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, scale=scale, enable_gqa=True
            )
        return self._out(mixed.transpose(1, 2).flatten(2))  # [1, S, H * K]

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attention step by step, where the probabilities are rounded before they meet the values."""
        assert self.seen
        grouped = q.unflatten(1, (self.config.kv_heads, -1))  # [1, G, H / G, S, K]
        scores = self._out(grouped @ k[:, :, None].mT) * self.config.attention_scale
        weights = self._out(torch.softmax(scores.masked_fill(~mask, -torch.inf), -1))
        return (self.seen(weights) @ v[:, :, None]).flatten(1, 2)  # [1, H, S, K]


def run(
    config: DecoderConfig, ops: Reference, ids: Sequence[int], position: int = 0, last_only: bool = False
) -> np.ndarray:
    """Logits float32 [S, V] of `ids`, whose first is at `position`; [1, V] of the last where no other is wanted."""
    with torch.inference_mode():
        logits = Decoder(config, ops, last_only)(torch.tensor([list(ids)]), torch.tensor([position]))
    return logits[0].float().numpy()
