"""The bytes of our weights as XNNPACK and ExecuTorch want them, made in row chunks while the file is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from smolship.export.quantize import pack4
from smolship.export.targets.executorch_program import Blob
from smolship.export.targets.xnnpack_graph import Matrix
from smolship.export.weights import Weights


class Data:
    """Weights as named blobs. A key holds the digest of what it names: ExecuTorch shares packed weights by key among
    all models of a process."""

    def __init__(self, weights: Weights, named: dict[str, Blob]):
        self.weights, self.named = weights, named

    def matrix(self, name: str) -> Matrix:
        """The weights of a linear, with its bias where it has one."""
        entry = self.weights.entries[name]
        rows, width = entry.shape
        bias = self._add(f"{name}.bias", rows * 4, self._floats(f"{name}.bias")) if self._has_bias(name) else None
        if entry.bits == 16:
            values = self._add(name, rows * width * 4, self._floats(name))
            return Matrix((rows, width), 32, width, values, None, bias)
        codes = self._add(f"{name}.codes", rows * width * entry.bits // 8, self._codes(name))
        scale_bytes = rows * (width // entry.group) * (2 if entry.bits == 4 else 4)
        scales = self._add(f"{name}.scales", scale_bytes, self._scales(name, bf16=entry.bits == 4))
        return Matrix((rows, width), entry.bits, entry.group, codes, scales, bias)

    def constant(self, array: np.ndarray) -> tuple[str, int]:
        """A small array, by its bytes."""
        raw = np.ascontiguousarray(array, np.float32).tobytes()
        key = f"constant.{raw[:8].hex()}.{len(raw)}"
        self.named[key] = Blob(len(raw), lambda: [raw])
        return key, len(raw)

    def table(self, name: str) -> tuple[Blob, Blob | None]:
        """The embedding for ExecuTorch's kernels: int8 codes and float32 scales, or float32 values."""
        entry = self.weights.entries[name]
        rows, width = entry.shape
        if entry.bits == 16:
            return Blob(rows * width * 4, self._floats(name)), None
        return Blob(rows * width, self._codes(name, packed=False)), Blob(
            rows * (width // entry.group) * 4, self._scales(name, bf16=False)
        )

    def _has_bias(self, name: str) -> bool:
        return f"{name}.bias" in self.weights.entries

    def _add(self, name: str, size: int, pieces: Callable[[], Iterable[Any]]) -> tuple[str, int]:
        digest = self.weights.entries[name.removesuffix(".codes").removesuffix(".scales")].sha256
        key = f"{name}.{digest[:32]}"
        self.named[key] = Blob(size, pieces)
        return key, size

    def _chunks(self, name: str, read: Callable[[int, int], np.ndarray]) -> Callable[[], Iterator[np.ndarray]]:
        return lambda: (np.ascontiguousarray(read(*rows)) for rows in self.weights.chunks(name))

    def _floats(self, name: str) -> Callable[[], Iterable[Any]]:
        return self._chunks(name, lambda start, stop: self.weights.values(name, start, stop))

    def _codes(self, name: str, packed: bool = True) -> Callable[[], Iterable[Any]]:
        def read(start: int, stop: int) -> np.ndarray:
            codes = self.weights.tensor(name, start, stop).codes
            return pack4(codes) if packed and self.weights.entries[name].bits == 4 else codes

        return self._chunks(name, read)

    def _scales(self, name: str, bf16: bool) -> Callable[[], Iterable[Any]]:
        def read(start: int, stop: int) -> np.ndarray:
            scales = self.weights.tensor(name, start, stop).scales
            return bf16_bits(scales) if bf16 else scales

        return self._chunks(name, read)


def bf16_bits(scales: np.ndarray) -> np.ndarray:
    """float32 numbers that are bf16 numbers -> their 16 bits, exactly."""
    bits = np.ascontiguousarray(scales, np.float32).view(np.uint32)
    assert not (bits & 0xFFFF).any(), "a scale off the portable grid"
    return (bits >> 16).astype(np.uint16)
