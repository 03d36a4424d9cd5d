"""The weights in a .pte: constants of the program, and of the graphs that it hands to XNNPACK.

Written after `program.fbs` and XNNPACK's `schema.fbs` in the executorch package; numbers of slots and of union members
are theirs. What they mean is what ExecuTorch and XNNPACK do with them:

* `quantized_decomposed::embedding_byte(codes, scales, None, …)`: int8 codes, a float32 scale a group of a row.
* a fully connected node's filter [out, in]: `qcint8` is int8 codes and a float32 scale a row; `qbint4` is nibbles, the
  even input low, with zero point 8, and a bf16 scale a group; `fp32` is what it says. Their bytes are found by key.
* other constants (the norms' gains, kernels of convolutions) have a name of their own.

Rows of matrices with the same input may be stacked: their key is `a+b.values.DIGEST`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from smolship.runtime.readback.flatbuffer import Table
from smolship.runtime.readback.stored import Rows, Shapes, StoredTensor, cut, mapped, nibbles, parts, reading

KERNEL_CALL, TENSOR, SEGMENT = 1, 5, 1  # of InstructionArguments, KernelTypes, DataLocation
CHAR, FLOAT = 1, 6  # of ScalarType
FULLY_CONNECTED, QUANTIZED = 2, 2  # of XNodeUnion, XValueUnion
FP32, QCINT8, QBINT4 = 1, 6, 10  # of XNNDatatype
PER_CHANNEL, PER_GROUP = 1, 4  # of XNNQuantParams
TRANSPOSED, NO_VALUE = 1, 0xFFFFFFFF
TAPS = ".taps"
OWN = "constant."  # keys of constants that are no weights: 1 / n and epsilon of the norms


def read(folder: Path, file: str, shapes: Shapes) -> Iterator[StoredTensor]:
    """Every tensor of the program, every copy of it."""
    path = folder / file
    with reading(path):
        yield from Program(path, shapes).tensors()


class Program:
    """A .pte: the flatbuffer, and the segments behind it."""

    def __init__(self, path: Path, shapes: Shapes):
        self.shapes, self.data = shapes, mapped(path)
        head = cut(self.data, 0, 40).tobytes()
        if head[4:8] != b"ET12" or head[8:12] != b"eh00":
            raise ValueError("it does not begin as a program does")
        size, self.base, _ = struct.unpack("<3Q", head[16:40])
        self.program = Table.root(cut(self.data, 0, size))
        self.segments = [(s.number(0, "Q"), s.number(1, "Q")) for s in self.program.tables(4)]
        self.named = {n.text(0): self.segments[n.number(1)] for n in self.program.tables(7)}
        constants = self.program.want(5)
        self.constants = self.segments[constants.number(0)][0], constants.numbers(1, "<u8")

    def tensors(self) -> Iterator[StoredTensor]:
        for plan in self.program.tables(1):
            values, seen = list(plan.tables(2)), set[int]()
            yield from self._kernels(plan, values, seen)
            for value in values:
                tensor = value.want(1) if value.number(0, "B") == TENSOR else None
                if tensor is not None and tensor.number(5) not in {0, *seen} and (name := self._name(tensor)):
                    values_of = self._constant(tensor, FLOAT)
                    if name.endswith(TAPS):  # a kernel with its places as rows
                        name, values_of = name.removesuffix(TAPS), np.ascontiguousarray(values_of.T)
                    yield from self._floats([name], values_of.shape, values_of)
            for delegate in plan.tables(7):
                where = delegate.want(1)
                if delegate.text(0) != "XnnpackBackend" or where.number(0, "B") != SEGMENT:
                    raise ValueError(f"a delegate {delegate.text(0)!r}")
                yield from self._graph(self._segment(self.segments[where.number(1)]))

    def _segment(self, where: tuple[int, int]) -> np.ndarray:
        return cut(self.data, self.base + where[0], where[1])

    def _constant(self, tensor: Table, kind: int) -> np.ndarray:
        """The numbers of a constant tensor of the program."""
        if tensor.number(0, "b") != kind:
            raise ValueError(f"a constant of type {tensor.number(0, 'b')}, not {kind}")
        shape, (base, offsets) = tensor.numbers(2, "<i4"), self.constants
        dtype = np.dtype({CHAR: "i1", FLOAT: "<f4"}[kind])
        start = self.base + base + offsets[tensor.number(5)]
        return cut(self.data, start, math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)

    def _name(self, tensor: Table) -> str:
        extra = tensor.table(9)
        return extra.text(1) if extra else ""

    def _kernels(self, plan: Table, values: list[Table], seen: set[int]) -> Iterator[StoredTensor]:
        """Quantized tables, by the kernels that read them; their constants are added to `seen`. Their name is that of
        the codes, less `.codes`."""
        operators = [operator.text(0) for operator in plan.tables(6)]
        for chain in plan.tables(5):
            for instruction in chain.tables(2):
                if instruction.number(0, "B") != KERNEL_CALL:
                    continue
                call = instruction.want(1)
                args = call.numbers(1, "<i4")
                if operators[call.number(0)] == "quantized_decomposed::embedding_byte":
                    table, steps = (values[index].want(1) for index in args[:2])
                    seen |= {table.number(5), steps.number(5)}
                    name = self._name(table).removesuffix(".codes")
                    yield from self._codes([name], 8, self._constant(table, CHAR), self._constant(steps, FLOAT))

    def _graph(self, data: np.ndarray) -> Iterator[StoredTensor]:
        """Fully connected nodes of one XNNPACK graph."""
        header = cut(data, 0, 18).tobytes()
        if header[4:8] != b"XH00":
            raise ValueError("an XNNPACK graph without its header")
        graph = Table.root(cut(data, *struct.unpack("<II", header[10:18])))
        keys = [constant.text(2) for constant in graph.tables(8)]
        values = {}
        for value in graph.tables(2):
            inner = value.want(1)
            quantized = inner if value.number(0, "B") == QUANTIZED else None
            tensor = inner if quantized is None else inner.want(0)
            values[tensor.number(6)] = tensor, quantized
        for node in graph.tables(1):
            if node.number(0, "B") != FULLY_CONNECTED:
                continue
            connected = node.want(1)
            if connected.number(4) & TRANSPOSED:
                raise ValueError("a transposed matrix")
            yield from self._matrix(*values[connected.number(1)], keys)
            if (bias := connected.number(2)) != NO_VALUE:
                yield from self._matrix(*values[bias], keys)

    def _matrix(self, tensor: Table, quantized: Table | None, keys: list[str]) -> Iterator[StoredTensor]:
        """A constant of a graph."""
        key, kind, dims = keys[tensor.number(3)], tensor.number(0, "h"), tuple(tensor.numbers(2, "<u4"))
        if key.startswith(OWN):
            return
        names, data = key.split(".values.")[0].split("+"), self._segment(self.named[key])
        if quantized is None:
            if kind != FP32:
                raise ValueError(f"{key} is of type {kind}")
            yield from self._floats(names, dims, data.view("<f4").reshape(dims))
            return
        params, how = quantized.want(2), quantized.number(1, "B")
        scales = self._segment(self.named[keys[params.number({PER_CHANNEL: 2, PER_GROUP: 4}[how])]])
        if (kind, how) == (QCINT8, PER_CHANNEL):
            yield from self._codes(names, 8, data.view("i1").reshape(dims), scales.view("<f4").reshape(dims[0], 1))
        elif (kind, how) == (QBINT4, PER_GROUP):
            packed, steps = data.reshape(dims[0], -1), scales.view("<u2").reshape(dims[0], -1)
            if packed.shape[1] * 2 != dims[1] or steps.shape[1] * params.number(2, "i") != dims[1]:
                raise ValueError(f"{key} is not of shape {dims}")
            yield from self._codes(names, 4, packed, steps)
        else:
            raise ValueError(f"{key} is of type {kind} with parameters of type {how}")

    def _floats(self, names: list[str], shape: tuple[int, ...], values: np.ndarray) -> Iterator[StoredTensor]:
        yield from parts(
            names, StoredTensor("", shape, 16, 0, lambda start, stop: (values[start:stop], None)), self.shapes
        )

    def _codes(self, names: list[str], bits: int, data: np.ndarray, scales: np.ndarray) -> Iterator[StoredTensor]:
        rows, width = data.shape[0], data.shape[1] * 8 // bits
        if scales.shape[0] != rows or width % scales.shape[1]:
            raise ValueError(f"{'+'.join(names)} has {scales.shape} scales for {rows} x {width} codes")

        def read(start: int, stop: int) -> Rows:
            if bits == 8:
                return data[start:stop], scales[start:stop]
            exact = (scales[start:stop].astype(np.uint32) << 16).view(np.float32)
            return nibbles(data[start:stop]) - np.int8(8), exact

        yield from parts(names, StoredTensor("", (rows, width), bits, width // scales.shape[1], read), self.shapes)
