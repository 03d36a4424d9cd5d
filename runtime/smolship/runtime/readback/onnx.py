"""The weights in an ONNX file and its external data, found by the nodes that use them.

What they mean is what the operators of the domain com.microsoft are documented to do:

* `MatMulNBits` (x, B, scales, zero points, order, bias): B is uint8 [N, K / block, block * bits / 8], the even input in
  the low nibble; without zero points it is 8 at 4 bits and 128 at 8 bits. K is rounded up to whole blocks.
* `GatherBlockQuantized` (table, ids, scales): the same packing, with the blocks of a row in one dimension.

Rows of matrices with the same input may be stacked: they are called `a+b`. A scale may be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.errors import missing_engine
from smolship.runtime.files import inside, read_bytes, regular_file
from smolship.runtime.readback.stored import Rows, Shapes, StoredTensor, cut, mapped, nibbles, parts, reading

FLOAT, UINT8 = 1, 2  # of TensorProto.DataType
TYPES: dict[int, Any] = {FLOAT: np.dtype("<f4"), UINT8: np.dtype("u1")}
LIMIT = 512 << 20  # bytes of the graph; weights lie beside it
VECTORS = {  # operator -> which of its inputs is a vector or matrix of floats
    "SimplifiedLayerNormalization": 1,
    "SkipSimplifiedLayerNormalization": 2,
    "FusedMatMul": 1,
    "Gather": 0,
    "Add": 1,
    "Transpose": 0,  # of a convolution's kernel
}
OTHER = {"GroupQueryAttention", "RotaryEmbedding"}  # whose constants are rotary tables


def read(folder: Path, file: str, shapes: Shapes) -> Iterator[StoredTensor]:
    """Every tensor of the graph, every copy of it; and what the data holds that no node was seen to use."""
    try:
        from google.protobuf.message import DecodeError
        from onnx import ModelProto
    except ImportError as error:
        raise missing_engine("onnx", "onnx", error) from None
    path = folder / file
    with reading(path):
        model = ModelProto()
        try:
            model.ParseFromString(read_bytes(path, "ONNX graph", LIMIT))
        except DecodeError as error:
            raise ValueError(error) from None
        yield from Graph(folder, model.graph, shapes).tensors()


class Graph:
    """One graph with its initializers."""

    def __init__(self, folder: Path, graph: Any, shapes: Shapes):
        self.folder, self.nodes, self.shapes = folder, graph.node, shapes
        self.initializers = {tensor.name: tensor for tensor in graph.initializer if tensor.external_data}
        self.files: dict[str, np.ndarray] = {}

    def tensors(self) -> Iterator[StoredTensor]:
        done: set[tuple[str, ...]] = set()
        used: set[str] = set()
        for node in self.nodes:
            constants = tuple(name if name in self.initializers else "" for name in node.input)
            used |= set(constants)
            if not any(constants) or constants in done:
                continue
            done.add(constants)
            if node.op_type == "MatMulNBits":
                yield from self._matmul(node, constants)
            elif node.op_type == "GatherBlockQuantized":
                yield from self._gather(node, constants)
            elif node.op_type in VECTORS:
                yield from self._floats(constants[VECTORS[node.op_type]])
            elif node.op_type not in OTHER:
                raise ValueError(f"{node.op_type} with constants {', '.join(filter(None, constants))}")
        places = {self._place(name) for name in used if name}
        for name in (n for n in self.initializers if self._place(n) not in places):
            yield StoredTensor(name, tuple(self.initializers[name].dims), 0, 0, lambda start, stop: (np.zeros(0), None))

    def _matmul(self, node: Any, constants: tuple[str, ...]) -> Iterator[StoredTensor]:
        a = {attribute.name: attribute.i for attribute in node.attribute}
        _, table, scales, zero, order, bias = (*constants, "", "", "")[:6]
        if zero or order or node.input[3:5] not in ([], [""], ["", ""]):
            raise ValueError(f"{table} has zero points or an order")
        if a["bits"] not in (4, 8) or a["block_size"] < 16 or list(self.initializers[table].dims)[:1] != [a["N"]]:
            raise ValueError(f"{table} with {a['bits']} bits in blocks of {a['block_size']}")
        yield from self._blocks(table, scales, a["K"], a["bits"], a["block_size"])
        if bias:
            yield from self._floats(bias)

    def _gather(self, node: Any, constants: tuple[str, ...]) -> Iterator[StoredTensor]:
        a = {attribute.name: attribute.i for attribute in node.attribute}
        table, _, scales, *zero = constants
        if any(zero) or (a["gather_axis"], a["quantize_axis"]) != (0, 1) or a["bits"] not in (4, 8):
            raise ValueError(f"{table} is gathered in another way")
        name = scales.removesuffix(".scales")
        width = self.shapes[name][1] if name in self.shapes else math.prod(self.initializers[table].dims[1:])
        yield from self._blocks(table, scales, width, a["bits"], a["block_size"])

    def _blocks(self, table: str, steps: str, width: int, bits: int, block: int) -> Iterator[StoredTensor]:
        """Codes in blocks, with their scales; `width` is less than the blocks hold where the last is padded."""
        packed, scales = self._array(table, UINT8), self._array(steps, FLOAT)
        packed = packed.reshape(packed.shape[0], -1)
        blocks = -(-width // block)
        if packed.shape[1] != blocks * block * bits // 8 or scales.shape != (packed.shape[0], blocks):
            raise ValueError(f"{table} is {packed.shape} with scales {scales.shape}, for {width} inputs")

        def read(start: int, stop: int) -> Rows:
            rows = packed[start:stop]
            codes = nibbles(rows) - np.int8(8) if bits == 4 else (rows ^ 0x80).view(np.int8)
            return codes, scales[start:stop]

        names = steps.removesuffix(".scales").split("+")
        yield from parts(names, StoredTensor("", (packed.shape[0], width), bits, block, read), self.shapes)

    def _floats(self, name: str) -> Iterator[StoredTensor]:
        if not name:
            return
        values = self._array(name, FLOAT)
        whole = StoredTensor("", values.shape, 16, 0, lambda start, stop: (values[start:stop], None))
        yield from parts(name.split("+"), whole, self.shapes)

    def _place(self, name: str) -> tuple[str, ...]:
        """Where the bytes lie. Two initializers may share them: operators disagree on the shape of a packed table."""
        where = {entry.key: entry.value for entry in self.initializers[name].external_data}
        return where["location"], where["offset"], where["length"]

    def _array(self, name: str, kind: int) -> np.ndarray:
        """The numbers of an initializer, mapped."""
        tensor = self.initializers[name]
        file, offset, length = self._place(name)
        size = math.prod(tensor.dims) * TYPES[kind].itemsize
        if tensor.data_type != kind or int(length) != size:
            raise ValueError(f"{name} is of type {tensor.data_type} and shape {list(tensor.dims)}")
        if file not in self.files:
            path = inside(self.folder, file)
            regular_file(path, "ONNX data")
            self.files[file] = mapped(path)
        return cut(self.files[file], int(offset), size).view(TYPES[kind]).reshape(tuple(tensor.dims))
