"""An XNNPACK subgraph, built node by node, in the form that ExecuTorch's XNNPACK delegate reads.

XNNPACK packs (copies) the weights and biases of fully connected nodes, and nothing else: other constants must be inputs
that ExecuTorch owns, or they would be freed under it once the file is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from smolship.export.targets.executorch.light import constants, serialize_xnnpack_binary, xnn

FLOAT, INT8_TOKEN = xnn.XNNDatatype.xnn_datatype_fp32, xnn.XNNDatatype.xnn_datatype_qdint8
INT8_ROW, INT4_BLOCK = xnn.XNNDatatype.xnn_datatype_qcint8, xnn.XNNDatatype.xnn_datatype_qbint4


@dataclass(eq=False)
class Value:
    """A tensor on its way through the model. It is the value of one node in one subgraph, and where it passes from
    there to elsewhere also a tensor of the program.

    dims    upper bounds; the runtime works with the lengths that it is given
    tensor  index in the program's values, or None
    """

    dims: tuple[int, ...]
    tensor: int | None = None


@dataclass(frozen=True)
class Matrix:
    """The weights of a fully connected node, by the keys of their bytes in the file.

    bits   32: float32; 8: int8, a float32 scale a row; 4: code + 8 in nibbles, the even input low, a bf16 scale for
           each `group` inputs of a row
    """

    shape: tuple[int, int]
    bits: int
    group: int
    values: str
    scales: str | None = None
    bias: str | None = None

    def bytes(self) -> int:
        """Size of the values."""
        return self.shape[0] * self.shape[1] * self.bits // 8

    def scale_bytes(self) -> int:
        return self.shape[0] * (self.shape[1] // self.group) * (2 if self.bits == 4 else 4)


class Subgraph:
    """Nodes in the order in which they run."""

    def __init__(self) -> None:
        self.graph = xnn.XNNGraph("0", [], [], 0, [], [], [xnn.ConstantDataOffset(0, 0)])
        self.ids: dict[Value, int] = {}
        self.args: list[int] = []  # what the delegate is called with: its inputs, then its outputs
        self.quantized: dict[Value, int] = {}

    def _define(self, dims: tuple[int, ...], kind: Any = FLOAT, buffer: int = 0, quant: Any = None) -> int:
        index = len(self.graph.xvalues)
        value: Any = xnn.XNNTensorValue(kind, len(dims), list(dims), buffer, constants.XNN_INVALID_VALUE_ID, 0, index)
        if quant is not None:
            value = xnn.XNNQuantizedTensorValue(value, quant)
        self.graph.xvalues.append(xnn.XValue(value))
        return index

    def _external(self, index: int, tensor: int, flag: int) -> None:
        value: Any = self.graph.xvalues[index].xvalue_union
        value.external_id, value.flags = len(self.args), flag
        self.args.append(tensor)
        self.graph.num_externs = len(self.args)

    def _use(self, value: Value) -> int:
        """The id of a value; what was computed elsewhere becomes an input."""
        if value not in self.ids:
            assert value.tensor is not None, "a value of another subgraph that was not passed out of it"
            self.ids[value] = self._define(value.dims)
            self._external(self.ids[value], value.tensor, constants.XNN_VALUE_FLAG_EXTERNAL_INPUT)
            self.graph.input_ids.append(self.ids[value])
        return self.ids[value]

    def output(self, value: Value) -> None:
        """Pass `value` out to its tensor. No input may be added after this."""
        assert value.tensor is not None
        self._external(self.ids[value], value.tensor, constants.XNN_VALUE_FLAG_EXTERNAL_OUTPUT)
        self.graph.output_ids.append(self.ids[value])

    def to_bytes(self) -> bytes:
        return bytes(serialize_xnnpack_binary(self.graph, bytearray()))

    def _node(self, dims: tuple[int, ...], make: Callable[[int], Any], limits: Any = None) -> Value:
        result = Value(dims)
        self.ids[result] = self._define(dims)
        self.graph.xnodes.append(xnn.XNode(make(self.ids[result]), len(self.graph.xnodes), limits))
        return result

    def _unary(self, kind: Any, x: Value) -> Value:
        source = self._use(x)
        return self._node(x.dims, lambda out: kind(source, out, 0))

    def _binary(self, kind: Any, a: Value, b: Value) -> Value:
        first, second = self._use(a), self._use(b)
        return self._node(broadcast(a.dims, b.dims), lambda out: kind(first, second, out, 0))

    def add(self, a: Value, b: Value) -> Value:
        return self._binary(xnn.XNNAdd, a, b)

    def subtract(self, a: Value, b: Value) -> Value:
        return self._binary(xnn.XNNSubtract, a, b)

    def multiply(self, a: Value, b: Value) -> Value:
        return self._binary(xnn.XNNMultiply, a, b)

    def sigmoid(self, x: Value) -> Value:
        return self._unary(xnn.XNNSigmoid, x)

    def softmax(self, x: Value) -> Value:
        return self._unary(xnn.XNNSoftmax, x)

    def square(self, x: Value) -> Value:
        return self._unary(xnn.XNNSquare, x)

    def rsqrt(self, x: Value) -> Value:
        return self._unary(xnn.XNNReciprocalSquareRoot, x)

    def at_most(self, x: Value, limit: float) -> Value:
        source = self._use(x)
        return self._node(x.dims, lambda out: xnn.XNNClamp(source, out, 0), xnn.OutputMinMax("-inf", limit))

    def reshape(self, x: Value, dims: tuple[int, ...], free: int) -> Value:
        """View as `dims`; the length at `free` is whatever remains at run time."""
        source, shape = self._use(x), [0 if i == free else d for i, d in enumerate(dims)]
        return self._node(dims, lambda out: xnn.XNNStaticReshape(len(dims), shape, source, out, 0))

    def transpose(self, x: Value, order: tuple[int, ...]) -> Value:
        source, dims = self._use(x), tuple(x.dims[i] for i in order)
        return self._node(dims, lambda out: xnn.XNNStaticTranspose(len(order), list(order), source, out, 0))

    def slice(self, x: Value, axis: int, start: int, stop: int) -> Value:
        source, rank, dims = self._use(x), len(x.dims), list(x.dims)
        offsets, sizes = [0] * rank, [0] * rank  # size 0: the whole dimension, however long it is at run time
        offsets[axis], sizes[axis], dims[axis] = start, stop - start, stop - start
        return self._node(tuple(dims), lambda out: xnn.XNNStaticSlice(rank, offsets, sizes, source, out, 0))

    def join(self, a: Value, b: Value) -> Value:
        """Concatenate along the last dimension."""
        first, second, none = self._use(a), self._use(b), constants.XNN_INVALID_VALUE_ID
        dims, axis = (*a.dims[:-1], a.dims[-1] + b.dims[-1]), len(a.dims) - 1
        return self._node(dims, lambda out: xnn.XNNConcatenate2(axis, first, second, none, none, out, 0, none))

    def matmul(self, a: Value, b: Value, transposed: bool = False) -> Value:
        """[B, M, K] x [B, K, N], or [B, N, K] where `transposed`."""
        first, second, flags = self._use(a), self._use(b), constants.XNN_FLAG_TRANSPOSE_B if transposed else 0
        dims = (*a.dims[:-1], b.dims[-2 if transposed else -1])
        return self._node(dims, lambda out: xnn.XNNBatchMatrixMultiply(first, second, out, flags))

    def linear(self, x: Value, weights: Matrix) -> Value:
        """A fully connected node. A quantized matrix takes x as int8 with a scale and zero point a token; matrices that
        share x share that, too."""
        source = self._use(x) if weights.bits == 32 else self._quantize(x)
        matrix, bias = self._matrix(weights), constants.XNN_INVALID_VALUE_ID
        if weights.bias is not None:
            bias = self._define((weights.shape[0],), FLOAT, self._constant(weights.bias, weights.shape[0] * 4))
        dims = (*x.dims[:-1], weights.shape[0])
        return self._node(dims, lambda out: xnn.XNNFullyConnected(source, matrix, bias, out, 0))

    def _quantize(self, x: Value) -> int:
        if x not in self.quantized:
            source = self._use(x)
            index = self._define(x.dims, INT8_TOKEN, quant=xnn.PerTokenDynamicQuant(num_nonbatch_dims=1))
            self.quantized[x] = index
            self.graph.xnodes.append(xnn.XNode(xnn.XNNConvert(source, index, 0), len(self.graph.xnodes)))
        return self.quantized[x]

    def _matrix(self, m: Matrix) -> int:
        buffer = self._constant(m.values, m.bytes())
        if m.scales is None:
            return self._define(m.shape, FLOAT, buffer)
        scales, count = self._constant(m.scales, m.scale_bytes()), m.shape[0] * (m.shape[1] // m.group)
        if m.bits == 8:
            return self._define(m.shape, INT8_ROW, buffer, xnn.PerChannelQuant([], 0, scales, count))
        quant = xnn.PerChannelGroupQuant([], 0, m.group, None, scales, count)
        return self._define(m.shape, INT4_BLOCK, buffer, quant)

    def _constant(self, key: str, size: int) -> int:
        self.graph.constant_data.append(xnn.ConstantDataOffset(constants.UINT64_MAX, size, key))
        return len(self.graph.constant_data) - 1


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an elementwise result."""
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    return tuple(max(pair) for pair in pairs)
