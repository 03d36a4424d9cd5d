"""What any file gives of a tensor: its shape, and its rows when they are asked for, in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from smolship.export.quantize import QuantTensor


class Rows(Protocol):
    """A tensor in a file, read in rows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def grid(self) -> tuple[int, int] | None:
        """(bits, group) where the file holds codes and scales on a grid of ours, for `lift` to take as they are."""
        ...

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray: ...

    def lift(self, start: int = 0, stop: int | None = None) -> QuantTensor: ...


def row_chunks(rows: int, width: int, limit: int = 1 << 22) -> Iterator[tuple[int, int]]:
    """(start, stop) pieces of `rows` rows of `width` numbers, each of about `limit` numbers (16 MB of float32)."""
    step = max(1, limit // max(width, 1))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
