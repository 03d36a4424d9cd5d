"""Programs and libraries before they are sent: what an ELF file asks of the device that loads it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolship.runtime.errors import InputError
from smolship.tools.devices.elf import MACHINES

LOAD, DYNAMIC, INTERP = 1, 2, 3
NEEDED, STRTAB, STRSZ, RPATH, RUNPATH, VERNEED, VERNEEDNUM = 1, 5, 10, 15, 29, 0x6FFFFFFE, 0x6FFFFFFF
VERSION = re.compile(r"([A-Z]+)_([0-9]{1,4}(?:\.[0-9]{1,4}){0,3})")
MOST = 1 << 30  # bytes of a file
MANY = 4096  # entries of a table, and bytes of a name


@dataclass(frozen=True)
class Program:
    """machine      by its usual name, or "ELF machine N"
    bits         32 or 64
    interpreter  who loads it; None for libraries and static programs
    needed       libraries, by name
    align        the smallest alignment of a segment that is loaded, in bytes; None: none is loaded
    versions     (library, version) of symbols, such as ("libc.so.6", "GLIBC_2.28")
    rpath        where its libraries are searched before the folders of LD_LIBRARY_PATH, and `runpath` after them
    """

    machine: str
    bits: int
    interpreter: str | None
    needed: tuple[str, ...]
    align: int | None
    versions: tuple[tuple[str, str], ...]
    rpath: str = ""
    runpath: str = ""

    @property
    def newest(self) -> dict[str, tuple[int, ...]]:
        """The highest version of each kind of symbol, such as "GLIBC" -> (2, 27)."""
        found: dict[str, tuple[int, ...]] = {}
        for _, version in self.versions:
            if match := VERSION.fullmatch(version):
                number = tuple(int(part) for part in match[2].split("."))
                found[match[1]] = max(number, found.get(match[1], ()))
        return found


@dataclass(frozen=True)
class Segment:
    kind: int
    offset: int
    address: int
    size: int
    align: int


def read_program(path: Path) -> Program:
    """Raises InputError where the file is no ELF file or ends before what its headers say."""
    if path.stat().st_size > MOST:
        raise InputError("a program is too large", got=f"{path.stat().st_size:,} bytes of {path.name}", expected=MOST)
    try:
        return _Reader(path.read_bytes()).program()
    except (struct.error, ValueError) as error:
        got = f"{error}: {path.name}"
        raise InputError("not a whole ELF program or library", got=got, todo="build or download it again") from None


def problems(path: Path, machine: str, page: int, glibc: tuple[int, int] | None) -> list[str]:
    """Why a device cannot load the file; empty where nothing speaks against it.

    machine  of the device, by the names of `elf.MACHINES`
    page     its page size in bytes
    glibc    its version; None: it has no glibc (Android, musl)

    Raises InputError as `read_program` does.
    """
    program, found = read_program(path), []
    if program.machine != machine:
        found.append(f"{path.name} is for {program.machine}, the device is {machine}")
    if program.align is not None and program.align < page:
        found.append(f"{path.name} is aligned to {program.align:,} bytes, the device has pages of {page:,}")
    wants = program.newest.get("GLIBC", ())[:2]
    if wants and (glibc is None or wants > glibc):
        there = f"{glibc[0]}.{glibc[1]}" if glibc else "no glibc"
        found.append(f"{path.name} needs glibc {'.'.join(map(str, wants))}, the device has {there}")
    return found


class _Reader:
    def __init__(self, raw: bytes):
        if len(raw) < 16 or raw[:4] != b"\x7fELF" or raw[4] not in (1, 2) or raw[5] not in (1, 2):
            raise ValueError("no ELF header")
        self.raw, self.wide, self.order = raw, raw[4] == 2, "<" if raw[5] == 1 else ">"

    def _at(self, layout: str, offset: int) -> tuple[int, ...]:
        """Raises ValueError outside of the file; struct itself counts negative offsets from its end."""
        if not 0 <= offset <= len(self.raw) - struct.calcsize(self.order + layout):
            raise ValueError(f"nothing at byte {offset:,} of {len(self.raw):,}")
        return struct.unpack_from(self.order + layout, self.raw, offset)

    def program(self) -> Program:
        (number,) = self._at("H", 18)
        (table,) = self._at("Q", 32) if self.wide else self._at("I", 28)
        size, count = self._at("HH", 54 if self.wide else 42)
        if count > MANY:
            raise ValueError(f"{count:,} segments")
        segments = [self._segment(table + index * size) for index in range(count)]
        for one in segments:
            if one.kind in (LOAD, DYNAMIC, INTERP) and one.offset + one.size > len(self.raw):
                raise ValueError(f"a segment ends at byte {one.offset + one.size:,} of {len(self.raw):,}")
        interpreter = next((self._name(one.offset, one.size) for one in segments if one.kind == INTERP), None)
        linked = self._dynamic(segments)
        align = min((one.align for one in segments if one.kind == LOAD), default=None)
        machine = MACHINES.get(number, f"ELF machine {number}")
        return Program(machine, 64 if self.wide else 32, interpreter, align=align, **linked)

    def _segment(self, at: int) -> Segment:
        if self.wide:
            kind, _, offset, address, _, size, _, align = self._at("IIQQQQQQ", at)
        else:
            kind, offset, address, _, size, _, _, align = self._at("IIIIIIII", at)
        return Segment(kind, offset, address, size, align)

    def _dynamic(self, segments: list[Segment]) -> dict[str, Any]:
        """What the dynamic table says, by the names of `Program`."""
        table = next((one for one in segments if one.kind == DYNAMIC), None)
        entries = list(self._entries(table)) if table else []
        values = dict(entries)
        if STRTAB not in values:
            return {"needed": (), "versions": ()}
        names = _place(segments, values[STRTAB])
        end = values.get(STRSZ, len(self.raw) - names)

        def name(offset: int) -> str:
            if offset >= end:
                raise ValueError(f"a name at {offset:,} of {end:,} bytes")
            return self._name(names + offset, MANY)

        pairs: Iterable[tuple[int, int]] = ()
        if VERNEED in values:
            pairs = self._versions(_place(segments, values[VERNEED]), values.get(VERNEEDNUM, 0))
        return {
            "needed": tuple(name(value) for key, value in entries if key == NEEDED),
            "versions": tuple((name(library), name(version)) for library, version in pairs),
            "rpath": name(values[RPATH]) if RPATH in values else "",
            "runpath": name(values[RUNPATH]) if RUNPATH in values else "",
        }

    def _entries(self, table: Segment) -> Iterator[tuple[int, int]]:
        step = 16 if self.wide else 8
        for index in range(min(table.size // step, MANY)):
            key, value = self._at("QQ" if self.wide else "II", table.offset + index * step)
            if key == 0:
                return
            yield key, value

    def _versions(self, at: int, count: int) -> Iterator[tuple[int, int]]:
        """Offsets of the names of library and version, of .gnu.version_r."""
        left = MANY
        for _ in range(min(count, MANY)):
            _, uses, library, first, following = self._at("HHIII", at)
            use = at + first
            for _ in range(uses):
                left -= 1
                if left < 0:
                    raise ValueError("too many versions of symbols")
                _, _, _, version, step = self._at("IHHII", use)
                yield library, version
                if not step:
                    break
                use += step
            if not following:
                return
            at += following

    def _name(self, at: int, most: int) -> str:
        self._at("B", at)
        raw, mark, _ = self.raw[at : at + min(most, MANY)].partition(b"\0")
        if not mark:
            raise ValueError("a name without an end")
        return raw.decode("utf-8", "replace")


def _place(segments: list[Segment], address: int) -> int:
    """The byte of the file that is loaded at an address."""
    for one in segments:
        if one.kind == LOAD and one.address <= address < one.address + one.size:
            return one.offset + address - one.address
    raise ValueError(f"nothing is loaded at {address:#x}")
