"""From the decoder's trace to an ExecuTorch program: one visit a node, in order.

Nodes are added to the current XNNPACK subgraph until something comes that XNNPACK cannot do: then the subgraph is
closed, and what later nodes want of it becomes a tensor of the program.

Shapes: S tokens of a call, T tokens in the cache after it, D hidden, H query heads, G key and value heads, K head_dim,
R = H / G query heads a key head.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from smolship.export.config import ConvSpec
from smolship.export.targets import Job
from smolship.export.targets.executorch.attention import Attention, Call
from smolship.export.targets.executorch.convolution import Convolution
from smolship.export.targets.executorch.data import Data
from smolship.export.targets.executorch.graph import Matrix, Subgraph, Value
from smolship.export.targets.executorch.light import ScalarType, et
from smolship.export.targets.executorch.program import Program
from smolship.export.targets.walk import handler


@dataclass(frozen=True)
class Part:
    """Some columns (or heads) of a value: queries or keys, which are multiplied and rotated as one."""

    whole: Value
    start: int
    stop: int


class Lowering:
    """The program so far.

    chunk  the most tokens of a call, the upper bound of S
    made   what each node of the trace gave: a Value, a Part, or several
    """

    def __init__(self, job: Job, chunk: int):
        self.config, self.weights, self.chunk = job.config, job.weights, chunk
        self.program = Program()
        self.data = Data(job.weights, self.program.named)
        self.graph = Subgraph()
        self.made: dict[Node, Any] = {}
        self.whole: dict[tuple[Value, str], Value] = {}  # what was done once to a value that is used in parts
        self._begin(job.context)

    def _begin(self, context: int) -> None:
        """Inputs, the lengths that follow from them, the rotary tables' rows, and the mask for several tokens."""
        p, c = self.program, self.config
        self.ids = p.input((1, self.chunk), ScalarType.LONG, dynamic=True)
        position = p.input((1,), ScalarType.LONG, dynamic=False)
        start, end, length = (p.variable(et.Int) for _ in range(3))
        p.call("aten::_local_scalar_dense", position, start)
        p.call("aten::sym_size.int", self.ids, p.scalar(1), length)
        p.call("executorch_prim::add.Scalar", start, length, end)
        self.turns = {}
        for name, rotary in c.rotaries.items():
            cos, sin = rotary.tables(context)
            # x * [cos, cos] + [second half of x, first half of x] * [-sin, sin]
            tables = np.concatenate([cos, cos], 1), np.concatenate([-sin, sin], 1)
            self.turns[name] = [p.rows(table[:, None], start, end, self.chunk) for table in tables]  # [S, 1, K] each
        call = Call(start, end, length, self.chunk)
        self.attention, self.convolution = Attention(p, c, context, call), Convolution(p, call)
        self.states = c.cache(context)

    def visit(self, node: Node) -> None:
        """Lower one node of the trace."""
        if node.op == "placeholder":
            self.made[node] = ()
        elif node.op == "output":
            self.flush()
            results: Any = node.args[0]
            self.program.outputs = [self.made[result].tensor for result in results]
        else:
            args = [self.made.get(a, a) if isinstance(a, Node) else a for a in node.args]
            self.made[node] = handler(VISIT, node, "executorch")(self, *args, **node.kwargs)

    def flush(self, *wanted: Value) -> None:
        """Close the current subgraph and begin another. What is wanted of it, now and by nodes still to come, passes
        out of it."""
        awaited = dict.fromkeys(wanted) | self._awaited()
        waiting = [value for value in awaited if value in self.graph.ids and value.tensor is None]
        if waiting:
            self.program.run_subgraph(self.graph, waiting)
        self.graph = Subgraph()

    def _awaited(self) -> dict[Value, None]:
        values: dict[Value, None] = {}
        for node, made in self.made.items():
            if any(user not in self.made for user in node.users):
                several = made if isinstance(made, list | tuple) else [made]
                values |= dict.fromkeys(value for value in several if isinstance(value, Value))
        return values

    def embed(self, ids: Any, name: str, dim: int) -> Value:
        p, (table, scales) = self.program, self.data.table(name)
        shape = self.weights.entries[name].shape
        out = p.tensor((1, self.chunk, dim))
        if scales is None:
            values = p.constant(shape, ScalarType.FLOAT, table, name)
            p.call("aten::embedding.out", values, self.ids, p.scalar(-1), p.scalar(False), p.scalar(False), out)
        else:
            codes = p.constant(shape, ScalarType.CHAR, table, f"{name}.codes")
            steps = p.constant((shape[0], len(scales) // (4 * shape[0])), ScalarType.FLOAT, scales, f"{name}.scales")
            p.call(
                "quantized_decomposed::embedding_byte.out",
                codes,
                steps,
                p.scalar(None),
                p.scalar(-128),
                p.scalar(127),
                self.ids,
                out,
            )
        return Value((1, self.chunk, dim), out)

    def linear(self, x: Value, names: str, outs: list[int]) -> list[Value | Part]:
        """Queries and keys are multiplied as one matrix where their layouts agree: fewer nodes, and one rotation."""
        first, *rest = names.split()
        if rest and first.endswith(".q") and self.data.layout(first) == self.data.layout(rest[0]):
            both = self.graph.linear(x, self.data.matrix([first, rest[0]]))
            parts = [Part(both, 0, outs[0]), Part(both, outs[0], outs[0] + outs[1])]
            return [*parts, *(self.graph.linear(x, self.data.matrix([name])) for name in rest[1:])]
        return [self.graph.linear(x, self.data.matrix([name])) for name in (first, *rest)]

    def rms_norm(self, x: Value | Part, name: str, eps: float, scale: float = 1.0) -> Value:
        assert scale == 1
        x = self._cut(x)
        g, width = self.graph, x.dims[-1]
        # The mean of squares, plus eps, as a fully connected node: weights 1 / n and bias eps.
        weights, bias = self.data.constant(np.full(width, 1 / width)), self.data.constant(np.array([eps]))
        mean = g.linear(g.square(x), Matrix((1, width), 32, width, weights, bias=bias))
        return g.multiply(g.multiply(x, g.rsqrt(mean)), self.program.floats(self.weights.values(name), name))

    def _cut(self, x: Value | Part) -> Value:
        """A part by itself: columns, or heads."""
        return self.graph.slice(x.whole, 2, x.start, x.stop) if isinstance(x, Part) else x

    def add_rms_norm(self, x: Value, residual: Value, name: str, eps: float) -> tuple[Value, Value]:
        total = self.graph.add(x, residual)
        return self.rms_norm(total, name, eps), total

    def unflatten(self, x: Value | Part, dim: int, sizes: list[int]) -> Value | Part:
        """[1, S, heads * K] -> [1, S, heads, K]"""
        if isinstance(x, Value):
            return self.graph.reshape(x, (*x.dims[:-1], *sizes), free=1)
        size = sizes[1]
        whole = self.whole.get((x.whole, "heads"))
        if whole is None:
            whole = self.graph.reshape(x.whole, (*x.whole.dims[:-1], x.whole.dims[-1] // size, size), free=1)
            self.whole[x.whole, "heads"] = whole
        return Part(whole, x.start // size, x.stop // size)

    def rotary(self, x: Value | Part, position: Any, table: str) -> Value | Part:
        if isinstance(x, Value):
            return self._rotate(x, table)
        if (x.whole, table) not in self.whole:
            self.whole[x.whole, table] = self._rotate(x.whole, table)
        return replace(x, whole=self.whole[x.whole, table])

    def _rotate(self, x: Value, table: str) -> Value:
        g, size, width, (cos, sin) = self.graph, x.dims[3], self.config.rotaries[table].width, self.turns[table]
        turned = x if width == size else g.slice(x, 3, 0, width)
        swapped = g.join(g.slice(x, 3, width // 2, width), g.slice(x, 3, 0, width // 2))
        turned = g.add(g.multiply(turned, cos), g.multiply(swapped, sin))
        return turned if width == size else g.join(turned, g.slice(x, 3, width, size))

    def attend(self, q: Value | Part, k: Value | Part, v: Value, position: Any, layer: int) -> Value:
        """[1, S, H, K] -> [1, S, H * K]"""
        q, k = self._cut(q), self._cut(k)
        self.flush(q, k, v)
        mixed = self.attention.attend(layer, q, k, v)
        return self.graph.reshape(mixed, (1, self.chunk, q.dims[2] * q.dims[3]), free=1)

    def convolve(self, x: Value, position: Any, layer: int) -> Value:
        """[1, S, D] -> [1, S, D]"""
        spec, name, (_, chunk, width) = self.states[layer], f"layers.{layer}.conv", x.dims
        assert isinstance(spec, ConvSpec)
        x = self.graph.reshape(x, (1, chunk, 1, width), free=1)  # as the kernel that writes states wants it
        self.flush(x)
        seen = [*self.convolution.store(layer, spec, x), x]
        biased = f"{name}.bias" in self.weights.entries
        bias = self.program.floats(self.weights.values(f"{name}.bias"), f"{name}.bias") if biased else None
        total = self.convolution.sum(self.graph, seen, name, self.weights.values(name), bias)
        return self.graph.reshape(total, (1, chunk, width), free=1)

    def parts(self, x: Value, count: int, dim: int) -> list[Value]:
        """Equal parts of the columns."""
        assert dim == -1
        size = x.dims[2] // count
        return [self.graph.slice(x, 2, i * size, (i + 1) * size) for i in range(count)]

    def slice_tokens(self, x: Value, dim: int, start: int, end: int) -> Value:
        """The last token's row, [1, S, D] -> [1, 1, D]."""
        if x.tensor is None:
            self.flush()
        p = self.program
        assert x.tensor is not None
        out = p.tensor((1, 1, x.dims[2]), dynamic=False)
        p.call("aten::slice_copy.Tensor_out", x.tensor, p.scalar(dim), p.scalar(start), p.scalar(end), p.scalar(1), out)
        return Value((1, 1, x.dims[2]), out)

    def silu(self, x: Value) -> Value:
        return self.graph.multiply(x, self.graph.sigmoid(x))

    def gelu(self, x: Value, *, approximate: str) -> Value:
        """x / 2 * (1 + tanh(z)) = x * sigmoid(2 z), with z = sqrt(2 / pi) * (x + 0.044715 x³)."""
        assert approximate == "tanh"
        g, twice = self.graph, 2 * math.sqrt(2 / math.pi)
        inner = g.add(g.multiply(g.square(x), self._number(0.044715 * twice)), self._number(twice))
        return g.multiply(x, g.sigmoid(g.multiply(x, inner)))

    def multiply(self, a: Value, b: Value | float) -> Value:
        return self.graph.multiply(a, b if isinstance(b, Value) else self._number(b))

    def add(self, a: Value, b: Value) -> Value:
        return self.graph.add(a, b)

    def _number(self, value: float) -> Value:
        return self.program.floats(np.array([value]))

    def item(self, values: Any, index: int) -> Any:
        return values[index]


ours, aten = torch.ops.smolship, torch.ops.aten
VISIT: dict[Any, Any] = {  # the trace's operators -> how they are lowered
    ours.embed.default: Lowering.embed,
    ours.linear.default: Lowering.linear,
    ours.rms_norm.default: Lowering.rms_norm,
    ours.add_rms_norm.default: Lowering.add_rms_norm,
    ours.rotary.default: Lowering.rotary,
    ours.attend.default: Lowering.attend,
    ours.convolve.default: Lowering.convolve,
    aten.unflatten.int: Lowering.unflatten,
    aten.chunk.default: Lowering.parts,
    aten.slice.Tensor: Lowering.slice_tokens,
    aten.silu.default: Lowering.silu,
    aten.gelu.default: Lowering.gelu,
    aten.mul.Tensor: Lowering.multiply,
    aten.add.Tensor: Lowering.add,
    operator.getitem: Lowering.item,
}
