"""What every reader gives: the tensors that an artifact holds, one after the other, in numbers of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError

import numpy as np

from smolship.runtime.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]  # our name -> shape: where a matrix ends that others are stacked on
Rows = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor, or one of several copies of it, as an artifact holds it.

    name   ours
    shape  [rows, width] or [rows]
    bits   room for a code in the file, 4 or 8; 16 for all that is not quantized, whatever the file holds it in
    block  inputs that share a scale in the file: a whole fraction of the group, or more inputs than there are; 0 at 16
    read   (first row, last + 1) -> (int8 codes [rows, at least width], float scales [rows, width / block, rounded up]),
           or (floats [rows, …], None)
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    block: int
    read: Callable[[int, int], Rows]


def stacked(names: list[str], rows: int, shapes: Shapes) -> Iterator[tuple[str, int, int]]:
    """(name, first row, last + 1) of each matrix of a stack that is `rows` high."""
    if len(names) == 1:
        yield names[0], 0, rows
        return
    if strange := [name for name in names if name not in shapes]:
        raise ValueError(f"nothing is known of {', '.join(strange)}")
    if (wanted := sum(shapes[name][0] for name in names)) != rows:
        raise ValueError(f"{'+'.join(names)} has {rows:,} rows, not {wanted:,}")
    at = 0
    for name in names:
        yield name, at, at + shapes[name][0]
        at += shapes[name][0]


def parts(names: list[str], whole: StoredTensor, shapes: Shapes) -> Iterator[StoredTensor]:
    """The matrices of a stack, each by itself."""
    for name, first, last in stacked(names, whole.shape[0], shapes):

        def read(start: int, stop: int, first: int = first) -> Rows:
            return whole.read(first + start, first + stop)

        yield StoredTensor(name, (last - first, *whole.shape[1:]), whole.bits, whole.block, read)


def nibbles(packed: np.ndarray) -> np.ndarray:
    """uint8 [rows, n] -> int8 [rows, 2 n], 0…15: the low nibble first."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1).view(np.int8)


def mapped(path: Path) -> np.ndarray:
    """The bytes of a file, read when they are looked at."""
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)


def cut(data: np.ndarray, start: int, size: int) -> np.ndarray:
    """Bytes of a file, at a place that the file names."""
    if start < 0 or size < 0 or start + size > len(data):
        raise ValueError(f"{size:,} bytes from {start:,} of {len(data):,}")
    return data[start : start + size]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a malformed file runs into is the file's fault, and says so."""
    try:
        yield
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, StructError) as error:
        raise InputError(
            "the weights cannot be read back",
            got=f"{error} in {path}",
            expected="a file that smolship wrote",
            todo="export it again, or copy it again",
        ) from None
