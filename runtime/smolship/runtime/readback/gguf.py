"""The weights in a GGUF file. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

Tensors are F32, F16, or blocks of 32 inputs with an fp16 scale before them: Q8_0 (32 bytes, int8 codes) and Q4_0
(16 bytes, code + 8: the first half of the inputs in the low nibbles, the second in the high ones). A scale of ours for
more inputs is repeated.

For some architectures llama.cpp rotates neighbours (0, 1), (2, 3), … where we rotate halves (0, d/2), (1, d/2 + 1), …:
of each q and k head, row s * d/2 + p of ours, s in 0, 1, is its row 2 p + s.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.files import regular_file
from smolship.runtime.readback.stored import Rows, Shapes, StoredTensor, cut, mapped, parts, reading
from smolship.runtime.tensors import GGUF, GGUF_FUSED, GGUF_OWN, GGUF_WOVEN, TOP, Name

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
BOOL, STRING, ARRAY = 7, 8, 9
WINDOW_STEP = 6  # of llama.cpp's gemma3: every so many layers one sees everything, where a file does not say
LENGTH = struct.Struct("<Q")
F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8
BLOCK = 32
ROW_BYTES = {F32: (1, 4), F16: (1, 2), Q4_0: (BLOCK, 18), Q8_0: (BLOCK, 34)}  # type -> numbers of a block, its bytes
KINDS = {  # llama.cpp's name -> ours
    name.removeprefix("blk.{}."): kind for names in (GGUF, *GGUF_OWN.values()) for kind, name in names.items()
}
# What the frequencies of the rotary embedding are divided by.
NO_WEIGHTS = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}


def read(folder: Path, file: str, shapes: Shapes) -> Iterator[StoredTensor]:
    """Every tensor of the file."""
    path = folder / file
    regular_file(path, "GGUF file")
    with reading(path):
        data = mapped(path)
        header = Header(data)
        for name, (kind, shape, offset) in header.tensors.items():
            if name not in NO_WEIGHTS:
                names = our_names(name, header.architecture)
                whole = _stored("+".join(names), kind, shape, data, header.data + offset, header.woven)
                yield from parts(names, whole, shapes) if len(names) > 1 else [whole]


def window_layers(path: Path, layers: int) -> list[bool]:
    """Which layers see a window, of a file that has them. Raises InputError where it says that in another way."""
    with reading(path):
        header = Header(mapped(path))
        found = header.metadata.get(f"{header.architecture}.attention.sliding_window_pattern", WINDOW_STEP)
        if type(found) is int and found > 0:
            return [(i + 1) % found != 0 for i in range(layers)]
        if not isinstance(found, list) or len(found) != layers:
            raise ValueError(f"{layers} layers, and windows of {found}")
        return found


def our_names(name: str, architecture: str) -> list[str]:
    """Ours of the matrices that lie in a tensor; its own where it is none that we know."""
    found = re.fullmatch(r"(?:blk\.(\d{1,6})\.)?([\w.]+)\.(weight|bias)", name)
    if not found:
        return [name]
    one = (KINDS[found[2]],) if found[2] in KINDS else ()
    kinds = GGUF_FUSED.get(architecture, {}).get(f"blk.{{}}.{found[2]}", one)
    if not kinds or (found[1] is None) != (kinds[0] in TOP):
        return [name]
    layer = None if found[1] is None else int(found[1])
    return [str(Name(layer, kind, found[3] == "bias")) for kind in kinds]


def _stored(name: str, kind: int, shape: tuple[int, ...], data: np.ndarray, offset: int, head: int) -> StoredTensor:
    if kind not in ROW_BYTES or len(shape) > 2:
        raise ValueError(f"{name} is of GGML type {kind} and shape {shape}")
    numbers, size = ROW_BYTES[kind]
    width = math.prod(shape[1:])
    if width % numbers:
        raise ValueError(f"{name} has {width} inputs")
    raw = cut(data, offset, shape[0] * width // numbers * size).reshape(shape[0], -1)
    order = _order(shape[0], head) if head and name.removesuffix(".bias").endswith((".q", ".k")) else None

    def rows(start: int, stop: int) -> np.ndarray:
        return raw[start:stop] if order is None else raw[order[start:stop]]

    if kind in (F32, F16):
        dtype = "<f4" if kind == F32 else "<f2"
        return StoredTensor(
            name, shape, 16, 0, lambda i, j: (rows(i, j).reshape(-1).view(dtype).reshape(-1, *shape[1:]), None)
        )

    def codes(start: int, stop: int) -> Rows:
        blocks = rows(start, stop).reshape(-1, width // BLOCK, size)
        scales = blocks[..., :2].copy().view("<f2")[..., 0]
        packed = blocks[..., 2:]
        if kind == Q8_0:
            return packed.reshape(-1, width).view(np.int8), scales
        halves = np.concatenate([packed & 15, packed >> 4], axis=-1)
        return halves.reshape(-1, width).view(np.int8) - np.int8(8), scales

    return StoredTensor(name, shape, 8 if kind == Q8_0 else 4, BLOCK, codes)


def _order(rows: int, head: int) -> np.ndarray:
    """Where llama.cpp keeps each row of ours, of a q or k matrix."""
    if rows % head or head % 2:
        raise ValueError(f"{rows} rows in heads of {head}")
    return np.arange(rows).reshape(-1, head // 2, 2).swapaxes(1, 2).reshape(-1)


class Header:
    """Numbers of the metadata, and where the tensors lie: name -> (type, shape, offset from `data`)."""

    def __init__(self, data: np.ndarray):
        self.bytes, self.at = data.data, 0
        if bytes(self._take(4)) != b"GGUF" or self._number("I") not in (2, 3):
            raise ValueError("no GGUF file of version 2 or 3")
        count, pairs = self._number("Q"), self._number("Q")
        self.metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._text()
            self.metadata[key] = self._value(self._number("I"))
        self.tensors: dict[str, tuple[int, tuple[int, ...], int]] = {}
        for _ in range(count):
            name, rank = self._text(), self._number("I")
            shape = tuple(self._number("Q") for _ in range(rank))[::-1]
            self.tensors[name] = self._number("I"), shape, self._number("Q")
        alignment = self.metadata.get("general.alignment", 32)
        self.data = -(-self.at // alignment) * alignment

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])

    @property
    def woven(self) -> int:
        """Rows of a head of q and k, which are woven; 0 where they are not."""
        name = self.architecture
        if name not in GGUF_WOVEN:
            return 0
        length = self.metadata.get(f"{name}.attention.key_length")
        return int(length or self.metadata[f"{name}.embedding_length"] // self.metadata[f"{name}.attention.head_count"])

    def _take(self, size: int) -> memoryview:
        if size > len(self.bytes) - self.at:
            raise ValueError(f"a field of {size:,} bytes at {self.at:,} of {len(self.bytes):,}")
        self.at += size
        return self.bytes[self.at - size : self.at]

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(code)))[0]

    def _text(self) -> str:
        return str(self._take(self._number("Q")), "utf-8")

    def _value(self, kind: int) -> Any:
        """A value of the metadata; None for an array of anything but truth values."""
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind == STRING:
            return self._text()
        if kind != ARRAY:
            raise ValueError(f"metadata of type {kind}")
        item, count = self._number("I"), self._number("Q")
        if item in SCALARS:
            raw = self._take(count * struct.calcsize(SCALARS[item]))
            return [bool(one) for one in raw] if item == BOOL else None
        elif item == STRING:
            for _ in range(count):  # of a whole vocabulary
                self._take(LENGTH.unpack_from(self._take(LENGTH.size))[0])
        else:
            raise ValueError(f"an array of type {item}")
        return None
