"""Attention over a cache that is written in place: a kernel for one token and a short cache, XNNPACK for the rest.

ExecuTorch's kernel reads the cache where it lies. Two matrix multiplications of XNNPACK, which packs it first, are more
than twice as fast for a prompt, and faster for one token too once the cache is long (by half at 2,000 tokens). The
program branches between them.

Shapes: S tokens of a call, T tokens in the cache after it, H query heads, G key and value heads, K head_dim,
R = H / G query heads a key head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smolship.export.config import CacheSpec, DecoderConfig
from smolship.export.targets.executorch.graph import Subgraph, Value
from smolship.export.targets.executorch.program import Program

MASKED = 1e9  # taken off a score for each position by which the key is ahead of the query


class Attention:
    """The mask, made once a call, and the one delegate that attends by matrix multiplications, whatever the layer.

    start   the position of the call's first token, and
    end     of its last + 1, so that T = end: values of the program
    near    whether the call has one token and the cache is short
    """

    def __init__(
        self,
        program: Program,
        config: DecoderConfig,
        caches: Sequence[CacheSpec],
        chunk: int,
        start: int,
        end: int,
        near: int,
    ):
        self.program, self.config, self.caches, self.chunk = program, config, caches, chunk
        self.start, self.end, self.near = start, end, near
        self.filled = program.sizes(
            [program.scalar(1), end, *(program.scalar(n) for n in (config.kv_heads, config.head_dim))]
        )
        several = program.jump_unless(near)
        done = program.jump_unless(program.scalar(False))
        program.land(several)
        self.mask = self._mask(max(spec.length for spec in caches))
        program.land(done)
        self.delegate: int | None = None

    def _mask(self, context: int) -> Value:
        """[R * S, T]: 0 where a query may see a key, else very negative."""
        p, g, repeat = self.program, Subgraph(), self.config.heads // self.config.kv_heads
        positions = np.arange(context, dtype=np.float32)
        queries = p.rows(positions[:, None], self.start, self.end, self.chunk)  # [S, 1]
        keys = p.rows(positions, p.scalar(0), self.end, context)  # [T]
        repeated = g.multiply(queries, p.floats(np.ones((repeat, 1, 1))))  # [R, S, 1]
        repeated = g.reshape(repeated, (repeat * self.chunk, 1), free=0)
        ahead = g.at_most(g.subtract(repeated, keys), 0.0)  # [R * S, T]
        mask = g.multiply(ahead, p.floats(np.array([MASKED])))
        p.run_subgraph(g, [mask])
        return mask

    def attend(self, layer: int, q: Value, k: Value, v: Value) -> Value:
        """Store k and v [1, S, G, K], and attend with q [1, S, H, K] -> [1, S, H, K]."""
        p, spec = self.program, self.caches[layer]
        assert q.tensor is not None and k.tensor is not None and v.tensor is not None
        shape = (1, spec.length, spec.kv_heads, spec.head_dim)
        keys, values = p.state(shape, f"keys.{layer}"), p.state(shape, f"values.{layer}")
        for new, cache in ((k.tensor, keys), (v.tensor, values)):
            p.call("llama::update_cache.out", new, cache, self.start, p.tensor((1,), dynamic=False))
        out = p.tensor(q.dims)
        several = p.jump_unless(self.near)
        p.call(
            "llama::custom_sdpa.out",
            q.tensor,
            keys,
            values,
            self.start,
            p.scalar(None),
            p.scalar(0.0),
            p.scalar(True),
            p.scalar(self.config.attention_scale),
            out,
        )
        done = p.jump_unless(p.scalar(False))
        p.land(several)
        self._several(q.tensor, keys, values, shape, out)
        p.land(done)
        return Value(q.dims, out)

    def _several(self, q: int, keys: int, values: int, shape: tuple[int, ...], out: int) -> None:
        p = self.program
        filled = [p.alias(cache, shape) for cache in (keys, values)]
        for view in filled:
            # A kernel that resizes its output and writes nothing: the view ends where the cache is filled to.
            p.call("aten::empty.out", self.filled, p.scalar(None), view)
        inputs = [q, *filled]
        if self.delegate is None:
            self.delegate, self.args = self._delegate(inputs, shape, out)
            self.first = [*inputs, out]
        swap = dict(zip(self.first, [*inputs, out], strict=True))
        p.run_delegate(self.delegate, [swap.get(index, index) for index in self.args])

    def _delegate(self, inputs: list[int], shape: tuple[int, ...], out: int) -> tuple[int, list[int]]:
        """The heads that share a key head are rows of one multiplication."""
        p, c, g, s = self.program, self.config, Subgraph(), self.chunk
        q, k, v = (Value((1, s, c.heads, c.head_dim), inputs[0]), *(Value(shape, index) for index in inputs[1:]))
        q = g.multiply(q, p.floats(np.array([c.attention_scale])))
        q = g.reshape(g.transpose(q, (0, 2, 1, 3)), (c.kv_heads, c.heads // c.kv_heads * s, c.head_dim), free=1)
        k, v = (g.reshape(g.transpose(x, (0, 2, 1, 3)), (c.kv_heads, shape[1], c.head_dim), free=1) for x in (k, v))
        scores = g.add(g.matmul(q, k, transposed=True), self.mask)  # [G, R * S, T]
        mixed = g.matmul(g.softmax(scores), v)  # [G, R * S, K]
        mixed = g.transpose(g.reshape(mixed, (1, c.heads, s, c.head_dim), free=2), (0, 2, 1, 3))  # [1, S, H, K]
        mixed.tensor = out
        g.output(mixed)
        return p.add_delegate(g.to_bytes()), g.args
