"""The external data of an ONNX file: weights streamed into it in row chunks, in the forms that ONNX Runtime reads.

Rows of matrices that share their input may be stacked into one matrix; no value changes.

N rows (outputs), K inputs, `block` inputs that share a scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx_ir as ir

from smolship.export.targets import Job
from smolship.runtime.readback.hashing import Entry

# On SmolLM2 with two x86 cores: 64 decodes 1.14 times as fast as 32 and adds .003 to a KL of .008; 128 is 1.16 times as
# fast and adds .007.
INT8_BLOCKS = (64, 32)
PAGE = 4096  # bytes; what is at least so large starts on a page, so that it can be mapped into memory


def block_of(entry: Entry) -> int:
    """Inputs that share a scale in MatMulNBits. It is also the block in which it quantizes activations.

    int8 has one scale a row, which is repeated for each block; where none divides the width, rows are padded. What is
    lifted has a scale for each block already.
    """
    if entry.bits == 4 or entry.origin == "lifted":
        return entry.group
    return next((block for block in INT8_BLOCKS if entry.shape[1] % block == 0), INT8_BLOCKS[-1])


class DataFile:
    """`model.onnx.data`: writes each tensor once and hands out initializers that point at it."""

    def __init__(self, job: Job, path: Path):
        self.job, self.path = job, path
        self.file = path.open("wb")
        self.initializers: dict[str, ir.Value] = {}
        self.total = sum(math.prod(entry.shape) for entry in job.weights.entries.values())
        self.done = 0

    def __enter__(self) -> DataFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def write(self, name: str, dtype: ir.DataType, shape: Sequence[int], pieces: Iterator[np.ndarray]) -> ir.Value:
        """The initializer `name`, its bytes written from `pieces`; or the one that was made before."""
        if name in self.initializers:
            return self.initializers[name]
        size = math.prod(shape) * dtype.bitwidth // 8
        align = PAGE if size >= PAGE else 64
        offset = -(-self.file.tell() // align) * align
        self.file.seek(offset)
        for piece in pieces:
            self.file.write(np.ascontiguousarray(piece).data)  # tofile hides that a disk is full
        assert self.file.tell() == offset + size, name
        return self._point(name, dtype, shape, offset, size)

    def view(self, source: ir.Value, name: str, shape: Sequence[int]) -> ir.Value:
        """A second initializer at the same bytes: operators disagree on the shape of a packed table."""
        tensor = source.const_value
        assert isinstance(tensor, ir.ExternalTensor) and tensor.offset is not None and tensor.length is not None
        return self.initializers.get(name) or self._point(name, tensor.dtype, shape, tensor.offset, tensor.length)

    def _point(self, name: str, dtype: ir.DataType, shape: Sequence[int], offset: int, size: int) -> ir.Value:
        tensor = ir.ExternalTensor(
            self.path.name, offset, size, dtype, shape=ir.Shape(shape), name=name, base_dir=self.path.parent
        )
        value = ir.val(name, dtype, shape, const_value=tensor)
        self.initializers[name] = value
        return value

    def array(self, name: str, array: np.ndarray) -> ir.Value:
        """A small array of our own."""
        return self.write(name, ir.DataType.from_numpy(array.dtype), array.shape, iter([array]))

    def floats(self, names: Sequence[str]) -> ir.Value:
        """Vectors, or matrices that are not quantized, stacked: float32 [N] or [N, K]."""
        shapes = [self.job.weights.entries[name].shape for name in names]
        shape = (sum(s[0] for s in shapes), *shapes[0][1:])
        return self.write("+".join(names), ir.DataType.FLOAT, shape, self._values(names))

    def codes(self, names: Sequence[str]) -> ir.Value:
        """Quantized matrices stacked: uint8 [N, K / block, block * bits / 8], code + 8 or code + 128."""
        entry = self.job.weights.entries[names[0]]
        block = block_of(entry)
        blocks = -(-entry.shape[1] // block)
        shape = (self._rows(names), blocks, block * entry.bits // 8)
        return self.write("+".join(names) + ".codes", ir.DataType.UINT8, shape, self._codes(names, blocks * block))

    def scales(self, names: Sequence[str]) -> ir.Value:
        """Their scales: float32 [N, K / block]."""
        entry = self.job.weights.entries[names[0]]
        blocks = -(-entry.shape[1] // block_of(entry))
        shape = (self._rows(names), blocks)
        return self.write("+".join(names) + ".scales", ir.DataType.FLOAT, shape, self._scales(names, blocks))

    def _rows(self, names: Sequence[str]) -> int:
        return sum(self.job.weights.entries[name].shape[0] for name in names)

    def _values(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        for name in names:
            for start, stop in self.job.weights.chunks(name):
                values = self.job.weights.values(name, start, stop)
                yield values
                self._count(name, values.size)

    def _codes(self, names: Sequence[str], padded: int) -> Iterator[np.ndarray]:
        weights = self.job.weights
        for name in names:
            entry = weights.entries[name]
            for start, stop in weights.chunks(name):
                codes = weights.codes(name, start, stop)
                if entry.bits == 8:
                    codes = np.pad(
                        codes.view(np.uint8) ^ 0x80, ((0, 0), (0, padded - entry.shape[1])), constant_values=0x80
                    )
                yield codes
                self._count(name, (stop - start) * entry.shape[1])

    def _scales(self, names: Sequence[str], blocks: int) -> Iterator[np.ndarray]:
        for name in names:
            for start, stop in self.job.weights.chunks(name):
                scales = self.job.weights.scales(name, start, stop)
                yield np.broadcast_to(scales, (stop - start, blocks)) if scales.shape[1] == 1 else scales

    def _count(self, name: str, numbers: int) -> None:
        self.done += numbers
        self.job.progress(name, self.done, self.total)
