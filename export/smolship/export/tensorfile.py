"""safetensors files read by plain reads, in rows, and written as a stream.

The safetensors library maps files into memory and wants whole tensors to write; the export of a model larger than
memory needs neither. The format: eight bytes of header length, a JSON header, the data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from smolship.runtime.errors import InputError, show
from smolship.runtime.files import open_file, parse_json, regular_file

HEADER_LIMIT = 100 << 20  # bytes, as in the safetensors library
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
         "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip
NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I8": np.int8, "U8": np.uint8}
NAMES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.int8): "I8", np.dtype(np.uint8): "U8"}


@dataclass(frozen=True)
class Slot:
    """Where one tensor lies in a file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start…stop in their stored type; bf16 comes as float32."""
        if self.dtype not in NUMPY:
            raise InputError("a tensor's type is not supported", got=f"{self.dtype} in {self.path}",
                             expected="one of " + ", ".join(NUMPY))  # fmt: skip
        rows, *rest = self.shape or (1,)
        stop = rows if stop is None else min(stop, rows)
        stride = math.prod(rest)
        dtype = np.dtype(NUMPY[self.dtype])
        with open_file(self.path, "safetensors file") as file:
            file.seek(self.offset + start * stride * dtype.itemsize)
            flat = np.fromfile(file, dtype, (stop - start) * stride)
        if flat.size != (stop - start) * stride:
            raise InputError("a file ends too early", got=self.path, expected=f"{self.shape} {self.dtype}")
        if self.dtype == "BF16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.reshape(stop - start, *rest) if self.shape else flat.reshape(())


def read_header(path: Path) -> dict[str, Slot]:
    """The tensors of one safetensors file, by name. Every size is checked against the file before it is believed."""
    size = regular_file(path, "safetensors file")

    def bad(got: str, expected: str) -> InputError:
        return InputError("not a valid safetensors file", got=f"{got} in {path}", expected=expected,
                          todo="download it again")  # fmt: skip

    with open_file(path, "safetensors file") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise bad(f"a header of {length:,} bytes, {size:,} bytes in all,", "a header that lies within the file")
        header = parse_json(file.read(length), "safetensors header", path)
    slots = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        except (TypeError, KeyError, ValueError):
            raise bad(f"an entry for {name!r} that cannot be read", "dtype, shape and data_offsets") from None
        numbers = (*shape, begin, end)
        known = isinstance(dtype, str) and dtype in SIZES
        if not known or len(shape) > 8 or any(type(n) is not int or not 0 <= n < 1 << 48 for n in numbers):
            raise bad(f"an entry for {name!r} with {show(entry)}", "a known dtype and natural numbers below 2^48")
        need = math.prod(shape) * SIZES[dtype]
        if end - begin != need or 8 + length + end > size:
            raise bad(
                f"bytes {begin:,} to {end:,} for {name!r} of a data part of {size - 8 - length:,}",
                f"{need:,} bytes within the file",
            )
        slots[name] = Slot(path, dtype, shape, 8 + length + begin)
    return slots


class TensorWriter:
    """Writes one safetensors file tensor by tensor, each in as many pieces as its maker likes.

    The header comes first in the file, so the shapes must be known; the values may come later.
    """

    def __init__(self, path: Path, shapes: dict[str, tuple[np.dtype, tuple[int, ...]]]):
        header, offset = {}, 0
        self.sizes = {}
        for name, (dtype, shape) in shapes.items():
            size = math.prod(shape) * dtype.itemsize
            header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
            self.sizes[name] = (offset, size)
            offset += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self.data = 8 + len(text)
        self.file = path.open("wb")
        self.file.write(len(text).to_bytes(8, "little") + text)
        self.file.truncate(self.data + offset)
        self.done = dict.fromkeys(shapes, 0)

    def append(self, name: str, piece: np.ndarray) -> None:
        """Write the next rows of `name`."""
        offset, size = self.sizes[name]
        raw = np.ascontiguousarray(piece)
        assert self.done[name] + raw.nbytes <= size, name
        self.file.seek(self.data + offset + self.done[name])
        self.file.write(raw.data)  # not `tofile`, whose error on a full disk does not say so
        self.done[name] += raw.nbytes

    def close(self) -> None:
        self.file.close()
        short = [name for name, done in self.done.items() if done != self.sizes[name][1]]
        assert not short, f"tensors not written whole: {short}"

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.file.close()


def row_chunks(rows: int, width: int, limit: int = 1 << 22) -> Iterator[tuple[int, int]]:
    """(start, stop) pieces of `rows` rows of `width` numbers, each of about `limit` numbers (16 MB of float32)."""
    step = max(1, limit // max(width, 1))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
