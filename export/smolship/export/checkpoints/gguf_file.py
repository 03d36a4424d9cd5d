"""GGUF files read by plain reads: metadata and tensor directory at once, tensors in rows, dequantized as they are read.

gguf-py has a reader too, but it maps the whole file and believes its counts; a file from anywhere must be checked
first. Only its dequantizers are used. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from smolship.export.quantize import QuantTensor
from smolship.runtime.errors import InputError
from smolship.runtime.files import open_file, regular_file
from smolship.runtime.looks import what_is

HEADER_LIMIT = 128 << 20  # bytes; vocabularies of 256,000 tokens with their merges take about 15 MB
ARRAY_LIMIT = 1 << 24  # entries
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
UINT32, STRING, ARRAY = 4, 8, 9
ALIGNMENT = "general.alignment"
NAME_LIMIT = 63  # bytes of a tensor's name, as in ggml
CONVERT = "convert the original checkpoint anew, with a converter of today"
CUT = "fetch it again: its download, or its copying, was broken off, or it was changed since"
Q4_0, Q8_0 = 2, 8
GRIDS = {Q4_0: (4, 32), Q8_0: (8, 32)}  # GGML types whose blocks are ours: bits, and weights that share an fp16 scale


@dataclass(frozen=True)
class GgufSlot:
    """Where one tensor lies in a GGUF file.

    kind   its GGML type, a number
    shape  outermost dimension first, as everywhere but in GGUF
    """

    path: Path
    kind: int
    shape: tuple[int, ...]
    offset: int

    @property
    def grid(self) -> tuple[int, int] | None:
        """(bits, group) where the file holds codes and scales that can be taken as they are (`lift`)."""
        return GRIDS.get(self.kind) if len(self.shape) == 2 else None

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start…stop (values of a vector) as float32."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        rows = self._rows(start, stop)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused where it is quantized
            values = dequantize(rows, GGMLQuantizationType(self.kind))
        return values.reshape(len(rows), *self.shape[1:])

    def lift(self, start: int = 0, stop: int | None = None) -> QuantTensor:
        """Rows of a matrix in their own codes and scales; Q4_0 and Q8_0 only. Scales may be negative, zero or below
        fp16's normal numbers.

        A block is an fp16 scale, then its codes: Q8_0's as int8; Q4_0's plus 8 in nibbles, the first half of the block
        in the low ones.
        """
        bits, group = GRIDS[self.kind]
        rows = self._rows(start, stop)
        blocks = rows.reshape(len(rows), self.shape[1] // group, -1)
        scales = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0].astype(np.float32)
        if not np.isfinite(scales).all():
            raise InputError("weights are not finite", got=f"a block's scale in {self.path}", expected="finite numbers")
        codes = blocks[..., 2:]
        if bits == 4:
            codes = np.concatenate([codes & 15, codes >> 4], axis=-1) - np.uint8(8)
        return QuantTensor(codes.view(np.int8).reshape(len(rows), -1), scales, bits, group, "lifted")

    def _rows(self, start: int, stop: int | None) -> np.ndarray:
        """Rows as they are stored, uint8 [rows, bytes]."""
        stop = self.shape[0] if stop is None else min(stop, self.shape[0])
        size = row_bytes(self.kind, self.shape)
        with open_file(self.path, "GGUF file") as file:
            file.seek(self.offset + start * size)
            raw = np.fromfile(file, np.uint8, (stop - start) * size)
        if raw.size != (stop - start) * size:
            raise InputError("a file ends too early", got=self.path, expected=f"a tensor of shape {list(self.shape)}")
        return raw.reshape(stop - start, size)


def row_bytes(kind: int, shape: tuple[int, ...]) -> int:
    """Bytes of a row of a tensor, or of a value of a vector; 0 where gguf-py cannot dequantize its GGML type or no
    whole number of blocks makes it."""
    block, size = _block(kind)
    width = shape[-1] if len(shape) > 1 else 1
    return 0 if width % block else math.prod(shape[1:-1]) * (width // block) * size


@cache
def _block(kind: int) -> tuple[int, int]:
    """(numbers, bytes) of one block of a GGML type, as gguf-py knows it; (1, 0) where it cannot dequantize it."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        dequantize(np.zeros((1, size), np.uint8), GGMLQuantizationType(kind))
    except (ValueError, KeyError, NotImplementedError):
        return 1, 0
    return block, size


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, GgufSlot]]:
    """(metadata, tensors by name). Every count and size is checked against the file before it is believed.

    Arrays of numbers come as numpy arrays, arrays of strings as lists.
    """
    size = regular_file(path, "GGUF file")
    with open_file(path, "GGUF file") as file:
        cursor = _Cursor(file, min(size, HEADER_LIMIT), path)
        if size < 4 or cursor.take(4) != b"GGUF":
            found = what_is(path)
            raise cursor.bad(
                found.what if found else "another kind of file",
                "a file that begins with GGUF",
                found.todo if found else "check that this is the file that was meant",
            )
        version = cursor.number("I")
        if version not in (2, 3):
            odd = "a big-endian file" if version and not version & 0xFFFF else f"version {version}"
            raise cursor.bad(odd, "version 2 or 3, little-endian", CONVERT)
        tensors, pairs = cursor.count(24), cursor.count(12)
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key, kind = cursor.text(), cursor.number("I")
            if key in metadata or not key:
                raise cursor.bad(f"{key} twice" if key else "a key without a name", "each key once", CONVERT)
            if key == ALIGNMENT and kind != UINT32:
                raise cursor.bad(f"{key} of type {kind}", f"type {UINT32}", CONVERT)
            metadata[key] = cursor.value(kind)
        entries: dict[str, tuple[int, tuple[int, ...], int]] = {}
        for _ in range(tensors):
            name, rank = cursor.text(), cursor.number("I")
            if name in entries or not 1 <= rank <= 4:
                raise cursor.bad(f"tensor {name!r} with {rank} dimensions", "each tensor once, of 1 to 4 dimensions")
            shape = tuple(cursor.number("Q") for _ in range(rank))[::-1]
            entries[name] = (cursor.number("I"), shape, cursor.number("Q"))
            if len(name.encode()) > NAME_LIMIT:
                raise cursor.bad(f"a tensor's name of {len(name.encode())} bytes", f"at most {NAME_LIMIT}", CONVERT)
        alignment = metadata.get(ALIGNMENT, 32)
        if not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise cursor.bad(f"alignment {alignment!r}", "a power of two", CONVERT)
        data = -(-file.tell() // alignment) * alignment
    slots, end = {}, 0
    for name, (kind, shape, offset) in entries.items():
        need = shape[0] * row_bytes(kind, shape)
        if not need:
            got = f"tensor {name!r} of type {kind} and shape {list(shape)}"
            raise cursor.bad(got, "a type that gguf-py can dequantize, in whole blocks", CONVERT)
        if data + offset + need > size:
            raise cursor.bad(f"tensor {name!r} up to byte {data + offset + need:,}", f"no more than {size:,} bytes")
        if offset != end:
            got = f"tensor {name!r} from byte {offset:,} on, where {end:,} comes next,"
            raise cursor.bad(got, "tensors end to end, as llama.cpp wants them", CONVERT)
        end = -(-(offset + need) // alignment) * alignment
        slots[name] = GgufSlot(path, kind, shape, data + offset)
    return metadata, slots


class _Cursor:
    """Reads a GGUF header forward and refuses to pass `limit`."""

    def __init__(self, file: BinaryIO, limit: int, path: Path):
        self.file, self.limit, self.path = file, limit, path

    def bad(self, got: str, expected: str, todo: str = CUT) -> InputError:
        return InputError("not a valid GGUF file", got=f"{got} in {self.path}", expected=expected, todo=todo)

    def take(self, size: int) -> bytes:
        left = self.limit - self.file.tell()
        if size > left:
            raise self.bad(f"a field of {size:,} bytes where {left:,} are left", "a header that lies within the file")
        return self.file.read(size)

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def count(self, least: int) -> int:
        """A count of things that take at least `least` bytes each."""
        count: int = self.number("Q")
        left = self.limit - self.file.tell()
        if count > ARRAY_LIMIT or count * least > left:
            raise self.bad(f"a count of {count:,} where {left:,} bytes are left", "a count that fits into the file")
        return count

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.bad(str(error), "UTF-8 text") from None

    def value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        item = self.number("I") if kind == ARRAY else None
        if item == STRING:
            return [self.text() for _ in range(self.count(8))]
        if item not in SCALARS:
            raise self.bad(f"a value of type {kind}, items of type {item}", "a scalar, a string or an array of them")
        dtype = np.dtype(f"<{SCALARS[item]}")
        return np.frombuffer(self.take(self.count(dtype.itemsize) * dtype.itemsize), dtype)
