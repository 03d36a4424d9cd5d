"""The header of a program: for which machine it is, and who loads it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MACHINES = {3: "i686", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64"}
MACHINES |= {243: "riscv", 258: "loongarch"}
INTERP = 3


@dataclass(frozen=True)
class Elf:
    """`machine` by its usual name, or "ELF machine N"; `interpreter` is None where the program is static, or where the
    bytes at hand do not reach it."""

    machine: str
    bits: int
    interpreter: str | None

    @property
    def libc(self) -> str | None:
        """The C library, as its loader tells."""
        name = (self.interpreter or "").rpartition("/")[2]
        kinds = {"ld-musl": "musl", "linker": "bionic", "ld-linux": "glibc", "ld64.so": "glibc", "ld.so": "glibc"}
        return next((libc for start, libc in kinds.items() if name.startswith(start)), None)


def parse_elf(raw: bytes) -> Elf | None:
    """From the first bytes of a file, usually 2,048; None where they are no ELF header."""
    if len(raw) < 52 or raw[:4] != b"\x7fELF" or raw[4] not in (1, 2) or raw[5] not in (1, 2):
        return None
    wide, order = raw[4] == 2, "<" if raw[5] == 1 else ">"
    machine = struct.unpack_from(order + "H", raw, 18)[0]
    found = Elf(MACHINES.get(machine, f"ELF machine {machine}"), 64 if wide else 32, None)
    if wide and len(raw) < 64:
        return found
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), raw, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", raw, 54 if wide else 42)
    for number in range(count):
        at = table + number * size
        if at + (56 if wide else 32) > len(raw):
            break
        if struct.unpack_from(order + "I", raw, at)[0] == INTERP:
            (start,) = struct.unpack_from(order + ("Q" if wide else "I"), raw, at + (8 if wide else 4))
            (length,) = struct.unpack_from(order + ("Q" if wide else "I"), raw, at + (32 if wide else 16))
            if 0 < length < 4096 and start + length <= len(raw):
                name = raw[start : start + length].rstrip(b"\0").decode("utf-8", "replace")
                return Elf(found.machine, found.bits, name)
    return found


def page_size(auxv: bytes, bits: int) -> int | None:
    """AT_PAGESZ of a process' auxiliary vector, in bytes."""
    word = "<QQ" if bits == 64 else "<II"
    for at in range(0, len(auxv) - struct.calcsize(word) + 1, struct.calcsize(word)):
        key, value = struct.unpack_from(word, auxv, at)
        if key == 6 and value in (4096, 16384, 65536):
            return int(value)
    return None
