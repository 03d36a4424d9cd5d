"""safetensors files read by plain reads, in rows, and written as a stream.

The safetensors library checks headers, but wants whole tensors to write, and maps a file into memory to read one; the
export of a model larger than memory needs neither. The format: eight bytes of header length, a JSON header, the data.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from safetensors import SafetensorError, safe_open

from smolship.export.quantize import QuantTensor
from smolship.export.tensorfile_faults import bits, invalid
from smolship.runtime.disk import writing
from smolship.runtime.errors import InputError
from smolship.runtime.files import open_file, regular_file

NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I8": np.int8, "U8": np.uint8}
NAMES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.int8): "I8", np.dtype(np.uint8): "U8"}


@dataclass(frozen=True)
class Slot:
    """Where one tensor lies in a file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    grid = None  # nothing in a safetensors file is on a grid of ours

    def lift(self, start: int = 0, stop: int | None = None) -> QuantTensor:
        raise TypeError(f"a tensor of type {self.dtype} holds no codes")

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start…stop in their stored type; bf16 comes as float32."""
        if self.dtype not in NUMPY:
            raise InputError(
                "a tensor's type is not supported",
                got=f"{self.dtype} in {self.path}",
                expected="one of " + ", ".join(NUMPY),
            )
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
    """The tensors of one safetensors file, by name.

    The safetensors library is the judge of what is one (it checks every size against the file), and its tensors lie
    end to end, so that their order and sizes say where each begins.
    """
    regular_file(path, "safetensors file")
    with open_file(path, "safetensors file") as file:
        offset = 8 + int.from_bytes(file.read(8), "little")
    try:
        with safe_open(path, framework="np") as header:
            entries = [(name, header.get_slice(name)) for name in header.offset_keys()]
    except (SafetensorError, OSError, ValueError) as error:
        raise invalid(path, str(error)) from None
    slots = {}
    for name, entry in entries:
        slots[name] = Slot(path, entry.get_dtype(), tuple(entry.get_shape()), offset)
        offset += math.prod(entry.get_shape()) * bits(entry.get_dtype()) // 8
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
        self.path, self.size = path, self.data + offset
        with writing(path, self.size):
            self.file = path.open("wb")
            self.file.write(len(text).to_bytes(8, "little") + text)
            self.file.truncate(self.size)
        self.done = dict.fromkeys(shapes, 0)

    def append(self, name: str, piece: np.ndarray) -> None:
        """Write the next rows of `name`."""
        offset, size = self.sizes[name]
        raw = np.ascontiguousarray(piece)
        assert self.done[name] + raw.nbytes <= size, name
        with writing(self.path, self.size):
            self.file.seek(self.data + offset + self.done[name])
            self.file.write(raw.data)  # not `tofile`, whose error on a full disk does not say so
        self.done[name] += raw.nbytes

    def close(self) -> None:
        with writing(self.path, self.size):
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
            with contextlib.suppress(OSError):  # what could not be written was said already
                self.file.close()
