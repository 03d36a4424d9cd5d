"""The decoder's primitives in torch, for batches of texts of one length, each from position 0, with gradients where
they are wanted.

B texts, S tokens of this step, D hidden, H query heads, G key/value heads, K head_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from smolship.export import reference
from smolship.export.calibrate.pool import Pool
from smolship.export.config import Activation, Attention, DecoderConfig
from smolship.export.decoder import ACTIVATIONS
from smolship.export.rotary import Rotary

TOKENS = 512  # of a piece, where there are many
ROWS = 48  # texts of a piece, where each has one token
SLICED = 1 << 22  # numbers
Get = Callable[[str], Tensor]


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] by weight [out, in], plus a bias."""
    if x.device.type == "cpu":
        return reference.product(x, weight, bias)
    return functional.linear(x, weight, bias)


def back(dy: Tensor, weight: Tensor) -> Tensor:
    """dy [n, out] by weight [out, in]: what a product's gradient is. oneDNN takes a turned weight as it is, but for a
    slice of one, as `reference.product` makes of large ones, it is a hundred times as slow."""
    return product(dy, weight.t()) if weight.numel() <= SLICED else dy @ weight


def by_scales(dy: Tensor, x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The gradient [out, groups] of the logarithms of a weight's scales, from dy [n, out] and x [n, in]: the weight's
    own gradient exists for a part of its rows at a time."""
    found, rows = torch.empty(len(weight), groups, device=x.device), max(1, SLICED // weight.shape[1])
    turned = x.t()
    for start in range(0, len(weight), rows):
        at = slice(start, start + rows)
        by_weight = product(dy[:, at].t(), turned).mul_(weight[at])
        torch.sum(by_weight.unflatten(1, (groups, -1)), -1, out=found[at])
    return found


class Linear(torch.autograd.Function):
    """x by a weight that is fixed but for its scales: `log` [out, groups] are the logarithms of what they are
    multiplied by. The weight is given as it is with them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, log: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = None if log is None else log.shape[1]
        return product(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        x, weight = ctx.saved_tensors
        dy = grads[0].flatten(0, -2)
        dx = back(dy, weight).view(x.shape) if ctx.needs_input_grad[0] else None
        if ctx.groups is None:
            return dx, None, None
        return dx, None, by_scales(dy, x.flatten(0, -2), weight, ctx.groups)


class Rows(torch.autograd.Function):
    """Rows `ids` of a table that is fixed but for its scales, as `Linear` has it."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, table: Tensor, log: Tensor) -> Tensor:
        found = functional.embedding(ids, table)
        ctx.save_for_backward(ids, found)
        ctx.shape = log.shape
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        ids, found = ctx.saved_tensors
        by_row = (grads[0] * found).flatten(0, -2).unflatten(1, (ctx.shape[1], -1)).sum(-1)
        return None, None, found.new_zeros(ctx.shape).index_add_(0, ids.flatten(), by_row)


class Norm(torch.autograd.Function):
    """s times its inverse root mean square `r` [..., 1], a factor and gains [D]. For the way back s and r are kept,
    not what they give."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, gain: Tensor, eps: float, scale: float) -> Tensor:
        r = torch.rsqrt(s.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(s, gain, r)
        ctx.scale = scale
        normed = s * r
        return (normed if scale == 1 else normed.mul_(scale)).mul_(gain)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        s, gain, r = ctx.saved_tensors
        normed = s * r
        by_gain = (grads[0] * normed).flatten(0, -2).sum(0).mul_(ctx.scale) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, by_gain, None, None
        dn = grads[0] * (gain * ctx.scale)
        return (dn - normed * (dn * normed).mean(-1, keepdim=True)).mul_(r), by_gain, None, None


class Ops:
    """The primitives over tensors that `get` gives. `logs` are those of the matrices whose scales are trained."""

    stream = 1.0

    def __init__(self, config: DecoderConfig, get: Get, positions: int, logs: dict[str, Tensor] | None = None):
        self.config, self.get, self.logs = config, get, logs or {}
        self.vectors = config.vectors()
        self.positions = positions
        self.tables: dict[Rotary, tuple[Tensor, Tensor]] = {}

    def embed(self, name: str, ids: Tensor) -> Tensor:
        log = self.logs.get(name)
        return functional.embedding(ids, self.get(name)) if log is None else Rows.apply(ids, self.get(name), log)

    def linear(self, names: Sequence[str], x: Tensor) -> list[Tensor]:
        outputs = []
        for name in names:
            y = Linear.apply(x, self.get(name), self.logs.get(name))
            outputs.append(y + self.get(f"{name}.bias") if f"{name}.bias" in self.vectors else y)
        return outputs

    def rms_norm(
        self, name: str, x: Tensor, residual: Tensor | None, eps: float, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        s = x if residual is None else x + residual
        return Norm.apply(s, self.get(name), eps, scale), s

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        return x * factor

    def activate(self, kind: Activation, x: Tensor) -> Tensor:
        return ACTIVATIONS[kind](x)

    def rotary(self, rotary: Rotary, x: Tensor, position: Tensor) -> Tensor:
        if rotary not in self.tables:
            cos, sin = (torch.from_numpy(table).to(x.device) for table in rotary.tables(self.positions))
            self.tables[rotary] = cos, sin
        start, width = int(position), rotary.width
        cos, sin = (t[start : start + x.shape[1], None] for t in self.tables[rotary])  # [S, 1, width / 2]
        turned = x[..., :width]
        a, b = (turned[..., ::2], turned[..., 1::2]) if rotary.interleaved else turned.chunk(2, dim=-1)
        a, b = a * cos - b * sin, b * cos + a * sin
        turned = torch.stack([a, b], -1).flatten(-2) if rotary.interleaved else torch.cat([a, b], -1)
        return turned if width == x.shape[-1] else torch.cat([turned, x[..., width:]], -1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
        return self.mix(layer, q, k, v)

    def mix(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, S, H, K] of the last positions of k, v [B, T, G, K] -> [B, S, H * K]."""
        mixer, s = self.config.layers[layer].mixer, q.shape[1]
        assert isinstance(mixer, Attention)
        if mixer.window and s == 1:
            k, v = k[:, -mixer.window :], v[:, -mixer.window :]
        start = k.shape[1] - s
        mask = None
        if s > 1 and (start or (mixer.window and mixer.window < s)):
            mask = torch.ones(s, start + s, dtype=torch.bool, device=q.device).tril(start)
            if mixer.window:
                mask &= ~torch.ones_like(mask).tril(start - mixer.window)
        mixed = functional.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask,
            is_causal=s > 1 and mask is None,
            scale=mixer.scale,
            enable_gqa=True,
        )
        return mixed.transpose(1, 2).flatten(2)

    def convolve(self, layer: int, x: Tensor, position: Tensor) -> Tensor:
        return self.slide(layer, x, x.shape[1])

    def slide(self, layer: int, x: Tensor, s: int) -> Tensor:
        """The last `s` positions of x [B, T, D] by the layer's kernel -> [B, s, D]."""
        name = f"layers.{layer}.conv"
        kernel = self.get(name)  # [D, tokens]
        before = kernel.shape[1] - 1
        seen = functional.pad(x, (0, 0, before, 0))[:, -(s + before) :]
        y = torch.stack([seen[:, i : i + s] * kernel[:, i] for i in range(before + 1)]).sum(0)
        return y + self.get(f"{name}.bias") if f"{name}.bias" in self.vectors else y


class Batched:
    """The primitives of `ops` over a batch in pieces, without gradients.

    see     is called before matrices meet their input: (names, x)
    caches  where tokens come one by one, the states of each layer: keys and values [B, length, G, K], or what a
            convolution was given, [B, length, 1, D]
    """

    stream = 1.0

    def __init__(self, ops: Ops, pool: Pool, see: Callable[[Sequence[str], Tensor], None] | None = None):
        self.ops, self.pool, self.see = ops, pool, see
        self.caches: list[list[Tensor]] | None = None

    def _map(self, function: Callable[..., Any], *given: Tensor | None) -> Any:
        """What `function` gives for each piece of texts, put together."""
        first = next(x for x in given if x is not None)
        size = ROWS if first.shape[1] == 1 else max(1, TOKENS // first.shape[1])
        pieces = zip(*([None] * -(-len(first) // size) if x is None else x.split(size) for x in given), strict=True)
        found = list(self.pool.map(lambda piece: function(*piece), pieces))
        if isinstance(found[0], Tensor):
            return found[0] if len(found) == 1 else torch.cat(found)
        return [part[0] if len(part) == 1 else torch.cat(part) for part in zip(*found, strict=True)]

    def embed(self, name: str, ids: Tensor) -> Tensor:
        return self.ops.embed(name, ids)

    def linear(self, names: Sequence[str], x: Tensor) -> list[Tensor]:
        if self.see:
            self.see(names, x)
        for name in names:
            self.ops.get(name)  # read once, by all threads
        return self._map(lambda part: self.ops.linear(names, part), x)

    def rms_norm(
        self, name: str, x: Tensor, residual: Tensor | None, eps: float, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        normed, s = self._map(lambda a, b: self.ops.rms_norm(name, a, b, eps, scale), x, residual)
        return normed, s

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        return x * factor

    def activate(self, kind: Activation, x: Tensor) -> Tensor:
        return self._map(lambda part: self.ops.activate(kind, part), x)

    def rotary(self, rotary: Rotary, x: Tensor, position: Tensor) -> Tensor:
        return self._map(lambda part: self.ops.rotary(rotary, part, position), x)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
        if self.caches is not None:
            keys, values = self.caches[layer]
            start = int(position)
            keys[:, start : start + k.shape[1]], values[:, start : start + v.shape[1]] = k, v
            k, v = keys[:, : start + k.shape[1]], values[:, : start + v.shape[1]]
        return self._map(lambda *part: self.ops.mix(layer, *part), q, k, v)

    def convolve(self, layer: int, x: Tensor, position: Tensor) -> Tensor:
        s = x.shape[1]
        if self.caches is not None:
            (inputs,), start = self.caches[layer], int(position)
            inputs[:, start : start + s, 0] = x
            x = inputs[:, : start + s, 0]
        return self.ops.slide(layer, x, s)
