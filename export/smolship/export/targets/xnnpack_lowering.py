"""From the decoder's trace to an ExecuTorch program: one visit a node, in order.

Nodes are added to the current XNNPACK subgraph until something comes that XNNPACK cannot do: then the subgraph is
closed, and what later nodes want of it becomes a tensor of the program.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from executorch.exir import schema as et
from executorch.exir.scalar_type import ScalarType
from torch.fx import Node

from smolship.export.targets import Job
from smolship.export.targets.executorch_program import Program
from smolship.export.targets.xnnpack_data import Data
from smolship.export.targets.xnnpack_graph import Matrix, Subgraph, Value

MASKED = 1e9  # taken off a score for each position by which the key is ahead of the query
END = (1 << 63) - 1


class Lowering:
    """The program so far.

    chunk  the most tokens of a call, the upper bound of S
    made   what each node of the trace gave: a Value, or several
    """

    def __init__(self, job: Job, chunk: int):
        self.config, self.weights, self.chunk = job.config, job.weights, chunk
        self.program = Program()
        self.data = Data(job.weights, self.program.named)
        self.graph = Subgraph()
        self.made: dict[Node, Any] = {}
        self.caches = job.config.cache(job.context)
        self.attention: int | None = None  # the delegate that attends for several tokens, the same for every layer
        self._begin(job.context)

    def _begin(self, context: int) -> None:
        """Inputs, the lengths that follow from them, the rotary tables' rows, and the mask for several tokens."""
        p, c = self.program, self.config
        self.ids = p.input((1, self.chunk), ScalarType.LONG, dynamic=True)
        self.position = p.input((1,), ScalarType.LONG, dynamic=False)
        self.start, self.end, length = (p.variable(et.Int) for _ in range(3))
        self.is_one = p.variable(et.Bool)
        p.call("aten::_local_scalar_dense", self.position, self.start)
        p.call("aten::sym_size.int", self.ids, p.scalar(1), length)
        p.call("executorch_prim::add.Scalar", self.start, length, self.end)
        p.call("executorch_prim::eq.Scalar", length, p.scalar(1), self.is_one)
        if any(c.rotary_layers):
            cos, sin = c.rotary.tables(context)
            # x * [cos, cos] + [second half of x, first half of x] * [-sin, sin]
            self.cos = self._rows(np.concatenate([cos, cos], 1)[:, None], self.start, self.end, self.chunk)
            self.sin = self._rows(np.concatenate([-sin, sin], 1)[:, None], self.start, self.end, self.chunk)
        over = self._unless_one()
        self.mask = self._mask(context)
        p.land(over)

    def _constant(self, array: np.ndarray) -> Value:
        array = np.ascontiguousarray(array, np.float32)
        return Value(array.shape, self.program.constant(array.shape, ScalarType.FLOAT, array.tobytes()))

    def _rows(self, table: np.ndarray, start: int, end: int, most: int) -> Value:
        """Rows start…end of a constant table."""
        return self._slice(self._constant(table), 0, start, end, most)

    def _slice(self, source: Value, dim: int, start: int, end: int, most: int) -> Value:
        p = self.program
        assert source.tensor is not None
        dims = (*source.dims[:dim], most, *source.dims[dim + 1 :])
        result = Value(dims, p.tensor(dims))
        p.call("aten::slice_copy.Tensor_out", source.tensor, p.scalar(dim), start, end, p.scalar(1), result.tensor)
        return result

    def _unless_one(self) -> et.JumpFalseCall:
        """What follows, up to where this lands, runs for several tokens only."""
        p = self.program
        several = p.jump_unless(self.is_one)
        skip = p.jump_unless(p.scalar(False))
        p.land(several)
        return skip

    def _mask(self, context: int) -> Value:
        """[R * S, T], R query heads a key head: 0 where a query may see a key, else very negative."""
        p, repeat = self.program, self.config.heads // self.config.kv_heads
        positions = np.arange(context, dtype=np.float32)
        queries = self._rows(positions[:, None], self.start, self.end, self.chunk)  # [S, 1]
        keys = self._rows(positions, p.scalar(0), self.end, context)  # [T]
        graph = Subgraph()
        repeated = graph.multiply(queries, self._constant(np.ones((repeat, 1, 1))))  # [R, S, 1]
        repeated = graph.reshape(repeated, (repeat * self.chunk, 1), free=0)
        ahead = graph.at_most(graph.subtract(repeated, keys), 0.0)  # [R * S, T]
        mask = graph.multiply(ahead, self._constant(np.array([MASKED])))
        return self._close(graph, [mask])[0]

    def _close(self, graph: Subgraph, outputs: list[Value]) -> list[Value]:
        for value in outputs:
            value.tensor = self.program.tensor(value.dims)
            graph.output(value)
        self.program.run_delegate(self.program.add_delegate(graph.to_bytes()), graph.args)
        return outputs

    def flush(self) -> None:
        """Close the current subgraph, if there is anything in it, and begin another."""
        waiting = [v for v in self._awaited() if v in self.graph.ids and v.tensor is None]
        if waiting:
            self._close(self.graph, waiting)
        self.graph = Subgraph()

    def _awaited(self) -> list[Value]:
        """Values that nodes still to come will ask for."""
        values: dict[Value, None] = {}
        for node, made in self.made.items():
            if any(user not in self.made for user in node.users):
                values |= dict.fromkeys(made if isinstance(made, list | tuple) else [made])
        return list(values)

    def visit(self, node: Node) -> None:
        """Lower one node of the trace."""
        if node.op == "placeholder":
            self.made[node] = ()
        elif node.op == "output":
            self.flush()
            self.program.outputs = [self.made[result].tensor for result in node.args[0]]
        else:
            args = [self.made.get(a, a) if isinstance(a, Node) else a for a in node.args]
            self.made[node] = VISIT[node.target](self, *args)

    def embed(self, ids: Any, name: str, dim: int) -> Value:
        p, (table, scales) = self.program, self.data.table(name)
        rows, width = self.weights.entries[name].shape
        out = Value((1, self.chunk, dim), p.tensor((1, self.chunk, dim)))
        if scales is None:
            values = p.constant((rows, width), ScalarType.FLOAT, table)
            p.call("aten::embedding.out", values, self.ids, p.scalar(-1), p.scalar(False), p.scalar(False), out.tensor)
        else:
            codes = p.constant((rows, width), ScalarType.CHAR, table)
            steps = p.constant((rows, len(scales) // (4 * rows)), ScalarType.FLOAT, scales)
            p.call("quantized_decomposed::embedding_byte.out", codes, steps, p.scalar(None), p.scalar(-128),
                   p.scalar(127), self.ids, out.tensor)  # fmt: skip
        return out

    def linear(self, x: Value, names: str, outs: list[int]) -> list[Value]:
        return [self.graph.linear(x, self.data.matrix(name)) for name in names.split()]

    def rms_norm(self, x: Value, name: str, eps: float) -> Value:
        g, width = self.graph, x.dims[-1]
        # The mean of squares and eps in one fully connected node: weights 1 / n, bias eps.
        mean = Matrix((1, width), 32, width, self.data.constant(np.full(width, 1 / width)), None,
                      self.data.constant(np.array([eps])))  # fmt: skip
        scale = g.rsqrt(g.linear(g.square(x), mean))
        return g.multiply(g.multiply(x, scale), self._constant(self.weights.values(name)))

    def add_rms_norm(self, x: Value, residual: Value, name: str, eps: float) -> tuple[Value, Value]:
        total = self.graph.add(x, residual)
        return self.rms_norm(total, name, eps), total

    def rotary(self, x: Value, position: Any) -> Value:
        g, half = self.graph, x.dims[-1] // 2
        swapped = g.join(g.last(x, half, 2 * half), g.last(x, 0, half))
        return g.add(g.multiply(x, self.cos), g.multiply(swapped, self.sin))

    def attend(self, q: Value, k: Value, v: Value, position: Any, layer: int) -> Value:
        """Store k and v, then attend: ExecuTorch's kernel for one token, which reads the cache where it lies, and two
        matrix multiplications in XNNPACK for several."""
        p, spec, scale = self.program, self.caches[layer], self.config.attention_scale
        self._pass(q, k, v)
        shape = (1, spec.length, spec.kv_heads, spec.head_dim)
        cache_k, cache_v = (Value(shape, p.state(shape)) for _ in range(2))
        for new, cache in ((k, cache_k), (v, cache_v)):
            p.call("llama::update_cache.out", new.tensor, cache.tensor, self.start, p.tensor((1,), dynamic=False))
        out = Value(q.dims, p.tensor(q.dims))
        several = p.jump_unless(self.is_one)
        p.call("llama::custom_sdpa.out", q.tensor, cache_k.tensor, cache_v.tensor, self.start, p.scalar(None),
               p.scalar(0.0), p.scalar(True), p.scalar(scale), out.tensor)  # fmt: skip
        over = p.jump_unless(p.scalar(False))
        p.land(several)
        keys, values = (self._slice(c, 1, p.scalar(0), self.end, spec.length) for c in (cache_k, cache_v))
        self._attend_several(q, keys, values, out, scale)
        p.land(over)
        return self.graph.reshape(out, (1, q.dims[1], q.dims[2] * q.dims[3]), free=1)

    def _pass(self, *values: Value) -> None:
        self.flush()
        assert all(value.tensor is not None for value in values)

    def _attend_several(self, q: Value, k: Value, v: Value, out: Value, scale: float) -> None:
        """q [1, S, H, K] over k, v [1, T, G, K] -> out [1, S, H, K]. The heads that share a key head are rows of one
        multiplication."""
        c = self.config
        if self.attention is None:
            g, rows = Subgraph(), c.heads // c.kv_heads * self.chunk
            queries = g.transpose(g.multiply(q, self._constant(np.array([scale]))), (0, 2, 1, 3))  # [1, H, S, K]
            queries = g.reshape(queries, (c.kv_heads, rows, c.head_dim), free=1)  # [G, R * S, K]
            keys, values = (
                g.reshape(g.transpose(x, (0, 2, 1, 3)), (c.kv_heads, x.dims[1], c.head_dim), free=1) for x in (k, v)
            )  # [G, T, K]
            scores = g.softmax(g.add(g.matmul(queries, keys, transposed=True), self.mask))  # [G, R * S, T]
            mixed = g.reshape(g.matmul(scores, values), (1, c.heads, self.chunk, c.head_dim), free=2)
            mixed = g.transpose(mixed, (0, 2, 1, 3))
            mixed.tensor = -1
            g.output(mixed)
            self.attention = self.program.add_delegate(g.to_bytes())
            self.attention_args = g.args
            self.attention_first = (q, k, v)
        swap = dict(zip((x.tensor for x in self.attention_first), (q.tensor, k.tensor, v.tensor), strict=True))
        swap[-1] = out.tensor
        self.program.run_delegate(self.attention, [swap.get(a, a) for a in self.attention_args])

    def unflatten(self, x: Value, dim: int, sizes: list[int]) -> Value:
        return self.graph.reshape(x, (*x.dims[:-1], *sizes), free=1)

    def slice_last(self, x: Value, dim: int, start: int, end: int) -> Value:
        if x.tensor is None:
            self.flush()
        p = self.program
        result = Value((1, 1, x.dims[2]), p.tensor((1, 1, x.dims[2]), dynamic=False))
        p.call("aten::slice_copy.Tensor_out", x.tensor, p.scalar(dim), p.scalar(start), p.scalar(end), p.scalar(1),
               result.tensor)  # fmt: skip
        return result

    def silu(self, x: Value) -> Value:
        return self.graph.multiply(x, self.graph.sigmoid(x))

    def multiply(self, a: Value, b: Value) -> Value:
        return self.graph.multiply(a, b)

    def item(self, values: Any, index: int) -> Value:
        return values[index]


ours, aten = torch.ops.smolship, torch.ops.aten
VISIT = {  # the trace's operators -> how they are lowered
    ours.embed.default: Lowering.embed,
    ours.linear.default: Lowering.linear,
    ours.rms_norm.default: Lowering.rms_norm,
    ours.add_rms_norm.default: Lowering.add_rms_norm,
    ours.rotary.default: Lowering.rotary,
    ours.attend.default: Lowering.attend,
    aten.unflatten.int: Lowering.unflatten,
    aten.slice.Tensor: Lowering.slice_last,
    aten.silu.default: Lowering.silu,
    aten.mul.Tensor: Lowering.multiply,
    operator.getitem: Lowering.item,
}
