"""What a program or library for 64-bit Linux needs of the system that loads it, read from its bytes."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from smolship.runtime.errors import InputError

LOAD, DYNAMIC = 1, 2
NEEDED, STRTAB, RPATH, RUNPATH, VERNEED, VERNEEDNUM = 1, 5, 15, 29, 0x6FFFFFFE, 0x6FFFFFFF
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
MOST = 1 << 16  # entries of a table
VERSION = re.compile(r"([A-Z]+)_([0-9.]+)\Z")


@dataclass(frozen=True)
class Needs:
    """machine    as ELF numbers it: 62 is x86-64, 183 arm64
    libraries  by name
    versions   the highest of each kind of symbol, such as "GLIBC" -> (2, 27)
    alignment  of its segments in bytes: a page of the system may not be larger
    rpath      where its libraries are searched before the folders of LD_LIBRARY_PATH, and `runpath` after them
    """

    machine: int
    libraries: tuple[str, ...]
    versions: dict[str, tuple[int, ...]]
    alignment: int
    rpath: str = ""
    runpath: str = ""


def needs_of(path: Path) -> Needs:
    """Raises InputError where the file is no 64-bit, little-endian program or library."""
    raw = path.read_bytes()
    try:
        return _needs(raw)
    except (struct.error, ValueError) as error:
        raise InputError("not a program or library", got=f"{error} in {path}", expected="a 64-bit ELF file") from None


def _needs(raw: bytes) -> Needs:
    ident, _, machine, _, _, table, _, _, _, size, count, *_ = HEADER.unpack_from(raw)
    if ident[:6] != b"\x7fELF\2\1":
        raise ValueError("another header")
    segments = [SEGMENT.unpack_from(raw, table + i * size) for i in range(count)]
    loads = [one for one in segments if one[0] == LOAD]

    def offset(address: int) -> int:
        for _, _, start, virtual, _, length, *_ in loads:
            if virtual <= address < virtual + length:
                return int(start + address - virtual)
        raise ValueError(f"an address {address:#x} that is nowhere")

    entries: list[tuple[int, int]] = []
    for kind, _, start, *_ in segments:
        if kind == DYNAMIC:
            entries = list(_dynamic(raw, start))
    tags = dict(entries)
    names = offset(tags[STRTAB]) if STRTAB in tags else 0

    def name(at: int) -> str:
        end = raw.index(b"\0", names + at)
        return raw[names + at : end].decode("ascii", "replace")

    versions: dict[str, tuple[int, ...]] = {}
    if VERNEED in tags:
        for found in _versions(raw, offset(tags[VERNEED]), tags.get(VERNEEDNUM, 0)):
            if match := VERSION.match(name(found)):
                number = tuple(int(part) for part in match[2].split(".") if part)
                versions[match[1]] = max(number, versions.get(match[1], ()))
    return Needs(
        machine,
        tuple(name(value) for tag, value in entries if tag == NEEDED),
        versions,
        max((one[7] for one in loads), default=1),
        name(tags[RPATH]) if RPATH in tags else "",
        name(tags[RUNPATH]) if RUNPATH in tags else "",
    )


def _dynamic(raw: bytes, start: int) -> Iterator[tuple[int, int]]:
    for i in range(MOST):
        tag, value = struct.unpack_from("<QQ", raw, start + 16 * i)
        if not tag:
            return
        yield tag, value


def _versions(raw: bytes, at: int, count: int) -> Iterator[int]:
    """Where the versions' names are, of each library."""
    for _ in range(min(count, MOST)):
        _, auxiliaries, _, first, following = struct.unpack_from("<HHIII", raw, at)
        inner = at + first
        for _ in range(auxiliaries):
            _, _, _, name, more = struct.unpack_from("<IHHII", raw, inner)
            yield name
            inner += more
        at += following
