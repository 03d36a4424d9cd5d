"""The primitives in plain torch: the reference, and, given an engine's numerics, the simulation of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from smolship.export.config import Activation, Attention, CacheSpec, ConvSpec, DecoderConfig, State
from smolship.export.decoder import ACTIVATIONS, Decoder
from smolship.export.freed import trim
from smolship.export.numerics import Numerics
from smolship.export.rotary import Rotary
from smolship.export.slots import row_chunks
from smolship.export.weights import Source

CHUNK = 1 << 19  # numbers that a source is asked for at once: they stay in a core's cache
READERS = ThreadPoolExecutor(torch.get_num_threads())


class Arrays:
    """Arrays float32 for tensors that come and go: a new one costs the system more time than it takes to fill it. Large
    ones, of which a model has one or two, are not kept."""

    LARGE = 1 << 26  # numbers

    def __init__(self) -> None:
        self.free: dict[tuple[int, ...], list[np.ndarray]] = {}

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        free = self.free.get(shape)
        return free.pop() if free else np.empty(shape, np.float32)

    def give(self, array: np.ndarray) -> None:
        """Nobody looks at it any more."""
        if array.size <= self.LARGE:
            self.free.setdefault(array.shape, []).append(array)
        trim(array.size)


def _stored(values: np.ndarray, half: bool) -> Tensor:
    """Constants, as float32, as an engine holds them: in fp16, where `half`, a product of scale and code is rounded."""
    plain = torch.from_numpy(np.asarray(values, np.float32))
    return plain.half().float() if half else plain


def fill(whole: np.ndarray, read: Callable[[int, int], np.ndarray]) -> None:
    """Read an array float32 in pieces, (start, stop) of its rows, as many at once as torch has threads."""

    def piece(rows: tuple[int, int]) -> None:
        whole[slice(*rows)] = read(*rows)

    list(READERS.map(piece, row_chunks(len(whole), math.prod(whole.shape[1:]), CHUNK)))


class Held:
    """A source whose tensors stay in memory as float32, for whoever asks next, until they are let go of."""

    def __init__(self, source: Source, shapes: dict[str, tuple[int, ...]]):
        self.source, self.shapes, self.arrays = source, shapes, Arrays()
        self.tensors: dict[tuple[str, bool], np.ndarray] = {}

    def read(self, name: str, half: bool) -> np.ndarray:
        """As an engine in fp16 holds it, where `half`."""
        if (name, half) not in self.tensors:
            whole, plain = self.arrays.take(self.shapes[name]), self.tensors.get((name, False))
            if plain is not None:
                fill(whole, lambda start, stop: _stored(plain[start:stop], half).numpy())
            else:
                fill(whole, lambda *rows: _stored(self.source.read(name, *rows), half).numpy())
            self.tensors[name, half] = whole
        return self.tensors[name, half]

    def rows(self, name: str, at: Sequence[int], half: bool) -> np.ndarray:
        """Some rows of a matrix; where they are fewer than its pieces, no others are read."""
        if (name, half) in self.tensors or len(at) >= math.prod(self.shapes[name]) // CHUNK:
            return self.read(name, half)[at]
        return np.concatenate([_stored(self.source.read(name, i, i + 1), half).numpy() for i in at])

    def forget(self) -> None:
        while self.tensors:
            self.arrays.give(self.tensors.popitem()[1])


class Cache:
    """The states of the layers that were asked for: keys and values, [1, length, kv_heads, head_dim] each, or the one
    [1, length, 1, width] of a convolution."""

    def __init__(self, specs: Sequence[State]):
        self.specs = specs
        self.layers: dict[int, tuple[Tensor, ...]] = {}

    def __getitem__(self, layer: int) -> tuple[Tensor, ...]:
        if layer not in self.layers:
            self.layers[layer] = tuple(torch.zeros(1, *shape) for shape in self.specs[layer].shapes)
        return self.layers[layer]


class Reference:
    """The primitives in torch: float32, or fp16 with sums in float32.

    weights   a checkpoint (the unquantized model) or a finished `Weights`, read at first use and kept until `forget`;
              held for others too, where it is `Held`
    context   length of the cache
    numerics  how activations are rounded before a quantized linear
    ulp       a seed: every primitive's output is then moved by up to one unit in the last place, at random. Two
              runs with different seeds show how far rounding alone can carry the logits: the noise floor.
    """

    def __init__(
        self,
        config: DecoderConfig,
        weights: Source | Held,
        context: int,
        numerics: Numerics | Callable[[str], Numerics] = Numerics(),
        ulp: int | None = None,
    ):
        self.config = config
        self.weights = weights if isinstance(weights, Held) else Held(weights, config.shapes())
        self.numerics = numerics if callable(numerics) else lambda name: numerics
        throughout = self.numerics(config.head)  # an engine in fp16 is so throughout
        self.half, self.ulp, self.stream = throughout.half, ulp, throughout.stream
        self.noise = torch.Generator()
        self.seed()
        self.round = partial(throughout.output, noise=self.noise)
        # What attention sees of a tensor, and GELU takes and gives, where that is rounded.
        halved = lambda x: throughout.to_half(x, self.noise).float()  # noqa: E731
        self.seen: Callable[[Tensor], Tensor] | None = halved if throughout.half_attention else None
        self.table: Callable[[Tensor], Tensor] | None = halved if throughout.half_gelu else None
        self.early = config.architecture in throughout.scaled_queries
        self.vectors = config.vectors()
        self.tensors: dict[str, Tensor] = {}
        self.cache = Cache(config.cache(context))
        # Several texts in one call, one after the other: cache, position of the first token, tokens. Else `cache`'s.
        self.texts: list[tuple[Cache, int, int]] = []
        self.halved = throughout.half_constants
        self.tables = {
            rotary: tuple(_stored(t, self.half or self.halved) for t in rotary.tables(context))
            for rotary in config.rotaries.values()
        }

    def seed(self, part: int = 0) -> None:
        """Begin the noise of that part of a run: it is the same then, whatever was computed before."""
        self.noise.manual_seed((self.ulp or 0) + 1000 * part)

    def forget(self) -> None:
        """Let go of the tensors that were read, and of those that are held for others, too."""
        self.tensors.clear()
        self.weights.forget()

    def get(self, name: str) -> Tensor:
        """A tensor as float32."""
        if name not in self.tensors:
            self.tensors[name] = torch.from_numpy(self.weights.read(name, self.half))
        return self.tensors[name]

    def _out(self, x: Tensor) -> Tensor:
        x = self.round(x)
        if self.ulp is None:
            return x
        bits = torch.int16 if x.dtype == torch.float16 else torch.int32  # in the order of the magnitudes
        moved = x.view(bits) + torch.randint(-1, 2, x.shape, generator=self.noise, dtype=bits)
        # A zero is exact in every engine: it comes of zeros, and its neighbour would be a subnormal number.
        return torch.where(x == 0, x, moved.view(x.dtype))

    def embed(self, name: str, ids: Tensor) -> Tensor:
        found, places = ids.unique(return_inverse=True)
        return self._out(torch.from_numpy(self.weights.rows(name, found.tolist(), self.half))[places])

    def linear(self, names: Sequence[str], x: Tensor) -> list[Tensor]:
        outputs = []
        for name in names:
            seen = self.numerics(name).round(x.float())
            bias = self.get(f"{name}.bias") if f"{name}.bias" in self.vectors else None
            outputs.append(self._out(product(seen, self.get(name), bias)))
        return outputs

    def rms_norm(
        self, name: str, x: Tensor, residual: Tensor | None, eps: float, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        s = x if residual is None else self.round(x + residual)
        if self.half:
            return self._out(self._half_norm(s, eps, scale) * self.get(name)), s
        eps = float(_root(eps, torch.float32)) ** 2 if self.halved else eps
        normed = s * torch.rsqrt(s.square().mean(-1, keepdim=True) + eps)
        return self._out((normed if scale == 1 else normed * scale) * self.get(name)), s

    def _half_norm(self, s: Tensor, eps: float, scale: float) -> Tensor:
        """s / sqrt(mean(s²) + eps) in steps that stay within fp16: y = s / max|s| is at most 1."""
        r = self.round
        root = _root(eps, s.dtype)
        peak = s.abs().amax(-1, keepdim=True).maximum(root)
        y, t = r(s / peak), r(root / peak)
        mean = r(r(y * y).float().mean(-1, keepdim=True))
        return r(y * r(r(torch.rsqrt(r(mean + r(t * t)))) * scale))

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        return self._out(x * float(_stored(np.array(factor), self.half or self.halved)))

    def activate(self, kind: Activation, x: Tensor) -> Tensor:
        if kind == "gelu_tanh" and self.table:
            return self.table(ACTIVATIONS[kind](self.table(x)))
        return ACTIVATIONS[kind](x)

    def rotary(self, rotary: Rotary, x: Tensor, position: Tensor) -> Tensor:
        if self.texts:
            pieces = zip(x.split([s for _, _, s in self.texts], 1), self.texts, strict=True)
            return torch.cat([self._rotated(rotary, piece, start) for piece, (_, start, _) in pieces], 1)
        return self._rotated(rotary, x, int(position))

    def _rotated(self, rotary: Rotary, x: Tensor, start: int) -> Tensor:
        width = rotary.width
        cos, sin = (t[start : start + x.shape[1], None] for t in self.tables[rotary])  # [S, 1, width / 2]
        r, turned = self.round, x[..., :width]
        a, b = (turned[..., ::2], turned[..., 1::2]) if rotary.interleaved else turned.chunk(2, dim=-1)
        a, b = r(a * cos) - r(b * sin), r(b * cos) + r(a * sin)  # [1, S, heads, width / 2]
        turned = torch.stack([a, b], dim=-1).flatten(-2) if rotary.interleaved else torch.cat([a, b], dim=-1)
        return self._out(turned if width == x.shape[-1] else torch.cat([turned, x[..., width:]], dim=-1))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
        if not self.texts:
            return self._attended(layer, q, k, v, int(position), self.cache)
        lengths = [s for _, _, s in self.texts]
        pieces = zip(q.split(lengths, 1), k.split(lengths, 1), v.split(lengths, 1), self.texts, strict=True)
        return torch.cat([self._attended(layer, a, b, c, start, cache) for a, b, c, (cache, start, _) in pieces], 1)

    def _attended(self, layer: int, q: Tensor, k: Tensor, v: Tensor, start: int, cache: Cache) -> Tensor:
        mixer, spec = self.config.layers[layer].mixer, cache.specs[layer]
        assert isinstance(mixer, Attention) and isinstance(spec, CacheSpec)
        s, scale = q.shape[1], mixer.scale
        if self.early:
            q, scale = q * scale, 1.0
        if (self.half or self.halved) and scale != mixer.head_dim**-0.5:  # by which the operator scales
            scale = mixer.head_dim**-0.5
            q = self.round(q * float(_stored(np.array(mixer.scale / scale), True)))
        if self.seen:
            q, k, v = self.seen(q), self.seen(k), self.seen(v)
        keys, values = cache[layer]
        keys[:, start : start + s], values[:, start : start + s] = k, v
        mask = torch.ones(s, start + s, dtype=torch.bool).tril(start)  # token i sees all up to start + i
        if window := spec.window:
            mask &= ~mask.new_ones(mask.shape).tril(start - window)
        q = q.float().transpose(1, 2)  # [1, H, S, K]
        k, v = (t[:, : start + s].transpose(1, 2) for t in (keys, values))  # [1, G, T, K]
        if self.seen:
            mixed = self._mix(q, k, v, mask, scale)
        else:
            mixed = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, scale=scale, enable_gqa=True
            )
        return self._out(mixed.transpose(1, 2).flatten(2))  # [1, S, H * K]

    def convolve(self, layer: int, x: Tensor, position: Tensor) -> Tensor:
        if not self.texts:
            return self._convolved(layer, x, int(position), self.cache)
        pieces = zip(x.split([s for _, _, s in self.texts], 1), self.texts, strict=True)
        return torch.cat([self._convolved(layer, piece, start, cache) for piece, (cache, start, _) in pieces], 1)

    def _convolved(self, layer: int, x: Tensor, start: int, cache: Cache) -> Tensor:
        """A product for each place of the kernel, summed from the oldest token to the newest."""
        spec, (inputs,), r = cache.specs[layer], cache[layer], self.round
        assert isinstance(spec, ConvSpec)
        s, before = x.shape[1], spec.kernel - 1
        inputs[:, start : start + s, 0] = x
        seen = inputs[:, max(start - before, 0) : start + s, 0].to(x.dtype)
        seen = torch.nn.functional.pad(seen, (0, 0, max(before - start, 0), 0))  # [1, before + S, D]
        kernel = self.get(f"layers.{layer}.conv")
        out = r(seen[:, :s] * kernel[:, 0])
        for i in range(1, spec.kernel):
            out = r(out + r(seen[:, i : i + s] * kernel[:, i]))
        bias = f"layers.{layer}.conv.bias"
        return self._out(out + self.get(bias) if bias in self.vectors else out)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
        """Attention step by step, where the probabilities are rounded before they meet the values."""
        assert self.seen
        grouped = q.unflatten(1, (k.shape[1], -1))  # [1, G, H / G, S, K]
        scores = self._out(grouped @ k[:, :, None].mT) * scale
        weights = self._out(torch.softmax(scores.masked_fill(~mask, -torch.inf), -1))
        return (self.seen(weights) @ v[:, :, None]).flatten(1, 2)  # [1, H, S, K]


def _root(eps: float, dtype: torch.dtype) -> Tensor:
    """The root of a norm's epsilon as fp16 holds it, a normal number."""
    return torch.tensor(max(eps**0.5, 2.0**-14), dtype=torch.float16).to(dtype)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] by weight [out, in], plus a bias: float32, where the processor allows it in oneDNN. On AMD's with
    AVX-512 it is two to three times as fast as the MKL that torch takes for these. It orders a weight anew first, of
    which it holds a second copy: large ones come in slices, of the same results."""
    if not (ONEDNN and x.dtype == weight.dtype == torch.float32):
        return torch.nn.functional.linear(x, weight, bias)
    parts = [
        torch.ops.mkldnn._linear_pointwise(x, weight[a:b], None if bias is None else bias[a:b], "none", [], "")
        for a, b in row_chunks(*weight.shape)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def run(
    config: DecoderConfig, ops: Reference, ids: Sequence[int], position: int = 0, last_only: bool = False
) -> np.ndarray:
    """Logits float32 [S, V] of `ids`, whose first is at `position`; [1, V] of the last where no other is wanted."""
    with torch.inference_mode():
        logits = Decoder(config, ops, last_only)(torch.tensor([list(ids)]), torch.tensor([position]))
    return logits[0].float().numpy()
