"""The outer form of a .pte file: the program as a flatbuffer, then segments of bytes.

ExecuTorch's own serializer wants every byte at hand. Here a weight is a `Blob`, whose bytes are made while the file is
written, so that a model never lies in memory; and bytes that are wanted twice (a table that is both embedding and
head) are written once, in a segment that lies inside another.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolship.export.targets.executorch.light import et, program_to_flatbuffer
from smolship.runtime.disk import writing

ALIGNMENT = 128  # bytes; of every segment and constant
HEADER = struct.Struct("<4sI3Q")  # "eh00", its own length, bytes of the program, offset and bytes of the segments


@dataclass(frozen=True, eq=False)
class Blob:
    """`size` bytes that `pieces` makes when the file is written."""

    size: int
    pieces: Callable[[], Iterable[Any]]

    def __len__(self) -> int:
        return self.size


Bytes = bytes | Blob
Progress = Callable[[int, int], None]  # bytes done, bytes in all


class Segments:
    """Where each piece of data will lie: `slots`, counted from the end of the program."""

    def __init__(self) -> None:
        self.slots: list[et.DataSegment] = []
        self.data: list[tuple[int, Bytes]] = []  # offset, bytes
        self.offsets: dict[int, int] = {}  # by the identity of the data
        self.size = 0

    def _append(self, data: Bytes) -> int:
        """The offset of `data`, which is written where it was not before."""
        if id(data) not in self.offsets:
            offset = self.offsets[id(data)] = align(self.size)
            self.data.append((offset, data))
            self.size = offset + len(data)
        return self.offsets[id(data)]

    def add(self, data: Bytes) -> int:
        """One segment; returns its index."""
        self.slots.append(et.DataSegment(self._append(data), len(data)))
        return len(self.slots) - 1

    def joined(self, pieces: Sequence[Bytes]) -> et.SubsegmentOffsets:
        """One segment of several pieces. It must come first."""
        assert not self.size
        offsets = [self._append(data) for data in pieces]
        self.slots.append(et.DataSegment(0, self.size))
        return et.SubsegmentOffsets(len(self.slots) - 1, offsets)

    def write(self, path: Path, progress: Progress, program: et.Program) -> None:
        """The header stands between the flatbuffer's first eight bytes (root offset, magic) and the rest."""
        body = program_to_flatbuffer(program, constant_tensor_alignment=ALIGNMENT, delegate_alignment=None)
        room = -(-HEADER.size // body.max_alignment) * body.max_alignment
        length = room + len(body.data)
        base = align(length)
        header = HEADER.pack(b"eh00", HEADER.size, length, base, self.size)
        (root,) = struct.unpack_from("<I", body.data)
        with writing(path, base + self.size), path.open("wb") as file:
            file.write(struct.pack("<I", root + room) + body.data[4:8] + header.ljust(room, b"\0") + body.data[8:])
            for offset, data in self.data:
                file.write(bytes(base + offset - file.tell()))
                for piece in [data] if isinstance(data, bytes) else data.pieces():
                    file.write(memoryview(piece).cast("B"))
                    progress(file.tell(), base + self.size)
                assert file.tell() == base + offset + len(data), "a blob of another size than it said"


def align(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
