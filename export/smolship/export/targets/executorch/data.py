"""The bytes of our weights as XNNPACK and ExecuTorch want them, made in row chunks while the file is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from smolship.export.quantize import pack4
from smolship.export.targets.executorch.file import Blob
from smolship.export.targets.executorch.graph import Matrix
from smolship.export.weights import Weights

Pieces = Callable[[], Iterator[np.ndarray]]
Read = Callable[[str, int, int], np.ndarray]  # name, first row, last row + 1


class Data:
    """Weights as named blobs. A key holds the digest of what it names: ExecuTorch shares packed weights by key among
    all models of a process."""

    def __init__(self, weights: Weights, named: dict[str, Blob]):
        self.weights, self.named = weights, named
        self.tables: dict[str, tuple[Blob, Blob | None]] = {}

    def matrix(self, names: Sequence[str]) -> Matrix:
        """The weights of a linear, with its bias where it has one; of several, whose layouts agree, their rows one
        after the other."""
        bits, group = self.layout(names[0])[:2]
        rows, width = (
            sum(self.weights.entries[name].shape[0] for name in names),
            self.weights.entries[names[0]].shape[1],
        )
        bias = [f"{name}.bias" for name in names if f"{name}.bias" in self.weights.entries]
        matrix = Matrix(
            (rows, width),
            32 if bits == 16 else bits,
            group or width,
            self._key(names, "values"),
            self._key(names, "scales") if bits < 16 else None,
            self._key(bias, "values") if bias else None,
        )
        values = Blob(matrix.bytes(), self._values(names))
        scales = Blob(matrix.scale_bytes(), self._scales(names, bf16=bits == 4)) if bits < 16 else None
        if names[0] in self.tables and bits != 4:  # a tied head: the same bytes as the embedding's
            values, scales = self.tables[names[0]]
        self.named[matrix.values] = values
        if matrix.scales is not None and scales is not None:
            self.named[matrix.scales] = scales
        if matrix.bias is not None:
            self.named[matrix.bias] = Blob(rows * 4, self._values(bias))
        return matrix

    def layout(self, name: str) -> tuple[int, int, bool]:
        """Matrices in which this agrees can be joined."""
        entry = self.weights.entries[name]
        return entry.bits, entry.group, f"{name}.bias" in self.weights.entries

    def constant(self, array: np.ndarray) -> str:
        """A small array, by its bytes."""
        raw = np.ascontiguousarray(array, np.float32).tobytes()
        key = f"constant.{hashlib.sha256(raw).hexdigest()[:32]}"
        self.named[key] = Blob(len(raw), lambda: [raw])
        return key

    def table(self, name: str) -> tuple[Blob, Blob | None]:
        """The embedding for ExecuTorch's kernels: int8 codes and float32 scales, or float32 values."""
        entry = self.weights.entries[name]
        rows, width = entry.shape
        if entry.bits == 16:
            self.tables[name] = Blob(rows * width * 4, self._values([name])), None
        else:
            codes = Blob(rows * width, self._chunks([name], lambda *at: self.weights.tensor(*at).codes))
            scales = Blob(rows * (width // entry.group) * 4, self._scales([name], bf16=False))
            self.tables[name] = codes, scales
        return self.tables[name]

    def _key(self, names: Sequence[str], part: str) -> str:
        digests = "".join(self.weights.entries[name].sha256 for name in names)
        return f"{'+'.join(names)}.{part}.{hashlib.sha256(digests.encode()).hexdigest()[:32]}"

    def _chunks(self, names: Sequence[str], read: Read) -> Pieces:
        def pieces() -> Iterator[np.ndarray]:
            for name in names:
                for start, stop in self.weights.chunks(name):
                    yield np.ascontiguousarray(read(name, start, stop))

        return pieces

    def _values(self, names: Sequence[str]) -> Pieces:
        """Codes, or float32 numbers."""

        def read(name: str, start: int, stop: int) -> np.ndarray:
            if not self.weights.quantized(name):
                return self.weights.values(name, start, stop)
            rows = self.weights.tensor(name, start, stop)
            return pack4(rows.codes) if rows.bits == 4 else rows.codes

        return self._chunks(names, read)

    def _scales(self, names: Sequence[str], bf16: bool) -> Pieces:
        def read(name: str, start: int, stop: int) -> np.ndarray:
            scales = self.weights.tensor(name, start, stop).scales
            return bf16_bits(scales) if bf16 else scales

        return self._chunks(names, read)


def bf16_bits(scales: np.ndarray) -> np.ndarray:
    """float32 numbers that are bf16 numbers -> their 16 bits, exactly."""
    bits = np.ascontiguousarray(scales, np.float32).view(np.uint32)
    assert not (bits & 0xFFFF).any(), "a scale off the portable grid"
    return (bits >> 16).astype(np.uint16)
