"""Attention over a cache that is written in place: a kernel for one token and a short cache, XNNPACK for the rest.

ExecuTorch's kernel reads the cache where it lies. Two matrix multiplications of XNNPACK, which packs it first, are more
than twice as fast for a prompt, and faster for one token too once the cache is long (by half at 2,000 tokens). The
program branches between them.

Shapes: S tokens of a call, T tokens in the cache after it, H query heads, G key and value heads, K head_dim,
R = H / G query heads a key head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smolship.export.config import Attention as Mixer
from smolship.export.config import CacheSpec, DecoderConfig
from smolship.export.targets.executorch.graph import Subgraph, Value
from smolship.export.targets.executorch.light import et
from smolship.export.targets.executorch.program import Program

MASKED = 1e9  # taken off a score for each position by which the key is ahead of the query, or behind its window
NEAR = 256  # tokens in the cache up to which ExecuTorch's kernel attends faster than XNNPACK
FAR = 1 << 32  # more than any cache holds


@dataclass(frozen=True)
class Call:
    """One run of the program: values of it, and its bound.

    start   the position of the first token, `end` of the last + 1, so that T = end; `length` is S
    chunk   the most tokens
    """

    start: int
    end: int
    length: int
    chunk: int


@dataclass(frozen=True)
class Kind:
    """What layers must share to share a delegate."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None

    @staticmethod
    def of(mixer: Mixer) -> Kind:
        return Kind(mixer.heads, mixer.kv_heads, mixer.head_dim, mixer.scale, mixer.window)

    @property
    def near(self) -> int:
        """Tokens in the cache up to which one token takes the kernel, which knows no window."""
        return min(NEAR, self.window or NEAR)


class Attention:
    """The masks, made once a call, and for each kind of layer the one delegate that attends by matrix
    multiplications."""

    def __init__(self, program: Program, config: DecoderConfig, context: int, call: Call):
        self.program, self.context, self.call = program, context, call
        self.layers, self.caches = config.layers, config.cache(context)
        kinds = dict.fromkeys(map(Kind.of, config.attentions))
        self.near = {limit: self._near(limit) for limit in sorted({kind.near for kind in kinds})}
        self.filled = {kind: self._filled(kind) for kind in kinds}
        self.masks: dict[tuple[int, int | None], Value] = {}
        for kind in kinds:
            self._make_mask(kind)
        self.delegates: dict[Kind, tuple[int, list[int], list[int]]] = {}

    def _near(self, limit: int) -> int:
        """Whether the call has one token and the cache at most `limit`: there is no "and", so both are put into one
        number."""
        p, key, near = self.program, self.program.variable(et.Int), self.program.variable(et.Bool)
        p.call("executorch_prim::mul.Scalar", self.call.length, p.scalar(FAR), key)
        p.call("executorch_prim::add.Scalar", key, self.call.end, key)
        p.call("executorch_prim::le.Scalar", key, p.scalar(FAR + limit), near)
        return near

    def _filled(self, kind: Kind) -> int:
        """The shape of what a cache holds."""
        p = self.program
        return p.sizes([p.scalar(1), self.call.end, p.scalar(kind.kv_heads), p.scalar(kind.head_dim)])

    def _make_mask(self, kind: Kind) -> None:
        key = kind.heads // kind.kv_heads, kind.window
        if key in self.masks:
            return
        p = self.program
        several = p.jump_unless(self.near[kind.near])
        done = p.jump_unless(p.scalar(False))
        p.land(several)
        self.masks[key] = self._mask(*key)
        p.land(done)

    def _mask(self, repeat: int, window: int | None) -> Value:
        """[R * S, T]: 0 where a query may see a key, else very negative."""
        p, g, chunk = self.program, Subgraph(), self.call.chunk
        positions = np.arange(self.context, dtype=np.float32)
        queries = p.rows(positions[:, None], self.call.start, self.call.end, chunk)  # [S, 1]
        keys = p.rows(positions, p.scalar(0), self.call.end, self.context)  # [T]
        repeated = g.multiply(queries, p.floats(np.ones((repeat, 1, 1))))  # [R, S, 1]
        repeated = g.reshape(repeated, (repeat * chunk, 1), free=0)
        distance = g.subtract(repeated, keys)  # [R * S, T]
        hidden = g.at_most(distance, 0.0)
        if window is not None:
            left = g.subtract(p.floats(np.array([window - 1])), distance)  # of the window, where it is not negative
            hidden = g.add(hidden, g.at_most(left, 0.0))
        mask = g.multiply(hidden, p.floats(np.array([MASKED])))
        p.run_subgraph(g, [mask])
        return mask

    def attend(self, layer: int, q: Value, k: Value, v: Value) -> Value:
        """Store k and v [1, S, G, K], and attend with q [1, S, H, K] -> [1, S, H, K]."""
        mixer, spec = self.layers[layer].mixer, self.caches[layer]
        assert isinstance(mixer, Mixer) and isinstance(spec, CacheSpec)
        p, kind, start = self.program, Kind.of(mixer), self.call.start
        assert q.tensor is not None and k.tensor is not None and v.tensor is not None
        shape = shape_of(spec)
        keys, values = p.state(shape, f"keys.{layer}"), p.state(shape, f"values.{layer}")
        for new, cache in ((k.tensor, keys), (v.tensor, values)):
            p.call("llama::update_cache.out", new, cache, start, p.tensor((1,), dynamic=False))
        out = p.tensor(q.dims)
        several = p.jump_unless(self.near[kind.near])
        none, no_dropout, causal, scale = (p.scalar(x) for x in (None, 0.0, True, kind.scale))
        p.call("llama::custom_sdpa.out", q.tensor, keys, values, start, none, no_dropout, causal, scale, out)
        done = p.jump_unless(p.scalar(False))
        p.land(several)
        self._several(kind, q.tensor, keys, values, shape, out)
        p.land(done)
        return Value(q.dims, out)

    def _several(self, kind: Kind, q: int, keys: int, values: int, shape: tuple[int, ...], out: int) -> None:
        p = self.program
        filled = [p.alias(cache, shape) for cache in (keys, values)]
        for view in filled:
            # A kernel that resizes its output and writes nothing: the view ends where the cache is filled to.
            p.call("aten::empty.out", self.filled[kind], p.scalar(None), view)
        ours = [q, *filled, out]
        if kind not in self.delegates:
            self.delegates[kind] = (*self._delegate(kind, ours, shape), ours)
        delegate, args, first = self.delegates[kind]
        swap = dict(zip(first, ours, strict=True))
        p.run_delegate(delegate, [swap.get(index, index) for index in args])

    def _delegate(self, kind: Kind, tensors: list[int], shape: tuple[int, ...]) -> tuple[int, list[int]]:
        """The heads that share a key head are rows of one multiplication."""
        p, g, s, (heads, groups, size) = self.program, Subgraph(), self.call.chunk, (kind.heads, *shape[2:])
        q, k, v = (
            Value(dims, index) for dims, index in zip(((1, s, heads, size), shape, shape), tensors, strict=False)
        )
        q = g.multiply(q, p.floats(np.array([kind.scale])))
        q = g.reshape(g.transpose(q, (0, 2, 1, 3)), (groups, heads // groups * s, size), free=1)
        k, v = (g.reshape(g.transpose(x, (0, 2, 1, 3)), (groups, shape[1], size), free=1) for x in (k, v))
        scores = g.add(g.matmul(q, k, transposed=True), self.masks[heads // groups, kind.window])  # [G, R * S, T]
        mixed = g.matmul(g.softmax(scores), v)  # [G, R * S, K]
        mixed = g.transpose(g.reshape(mixed, (1, heads, s, size), free=2), (0, 2, 1, 3))  # [1, S, H, K]
        mixed.tensor = tensors[-1]
        g.output(mixed)
        return p.add_delegate(g.to_bytes()), g.args


def shape_of(spec: CacheSpec) -> tuple[int, int, int, int]:
    """Of a state that holds keys or values."""
    return 1, spec.length, spec.kv_heads, spec.head_dim
