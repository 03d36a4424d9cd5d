"""Reading flatbuffers by the slot numbers of their schema. Offsets come from the file: each is checked.

https://flatbuffers.dev/internals: a table begins with the (signed) distance back to its vtable; that holds its own
length, the table's, and for each slot the distance of the field from the table's begin, or 0 where it is absent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np


class Table:
    """One table of a flatbuffer."""

    def __init__(self, data: memoryview, at: int):
        self.data, self.at = data, at
        self.vtable = at - self._number("i", at)
        self.slots = self._number("H", self.vtable) // 2 - 2

    @staticmethod
    def root(data: np.ndarray) -> Table:
        """The root of a flatbuffer, given as bytes."""
        return Table(data.data, struct.unpack_from("<I", data.data)[0])

    def _number(self, code: str, at: int) -> Any:
        if at < 0:
            raise ValueError("an offset before the flatbuffer")
        return struct.unpack_from("<" + code, self.data, at)[0]

    def _field(self, slot: int) -> int:
        """Where a field lies; 0 where it is absent."""
        distance = self._number("H", self.vtable + 4 + 2 * slot) if slot < self.slots else 0
        return self.at + distance if distance else 0

    def _target(self, slot: int) -> int:
        """What the offset in a field leads to; 0 where it is absent."""
        at = self._field(slot)
        return at + self._number("I", at) if at else 0

    def number(self, slot: int, code: str = "I", default: int = 0) -> int:
        """A scalar, by its `struct` code."""
        at = self._field(slot)
        return self._number(code, at) if at else default

    def table(self, slot: int) -> Table | None:
        at = self._target(slot)
        return Table(self.data, at) if at else None

    def want(self, slot: int) -> Table:
        """A table that must be there."""
        table = self.table(slot)
        if table is None:
            raise ValueError(f"field {slot} of a table is absent")
        return table

    def text(self, slot: int) -> str:
        at = self._target(slot)
        return str(self._items(at, "u1").tobytes(), "utf-8") if at else ""

    def numbers(self, slot: int, dtype: str) -> list[int]:
        """A vector of scalars, by their numpy type."""
        at = self._target(slot)
        return self._items(at, dtype).tolist() if at else []

    def tables(self, slot: int) -> Iterator[Table]:
        """A vector of tables."""
        at = self._target(slot)
        for i, distance in enumerate(self._items(at, "<u4").tolist() if at else []):
            yield Table(self.data, at + 4 + 4 * i + distance)

    def _items(self, at: int, dtype: str) -> np.ndarray:
        return np.frombuffer(self.data, dtype, self._number("I", at), at + 4)
