"""What ELF files ask of a device: files written here, and this machine's own."""

from __future__ import annotations

import contextlib
import platform
import struct
import sys
from pathlib import Path

import pytest

from smolship.runtime.errors import InputError
from smolship.tools.devices.programs import problems, read_program

STRINGS = b"\0libc.so.6\0GLIBC_2.28\0GLIBC_2.3.4\0"


def elf(machine: int = 183, align: int = 4096, wide: bool = True, order: str = "<") -> bytes:
    """A library with one loaded segment at address 0x10000 + offset: strings, versions, dynamic table."""
    base = 0x10000
    head, entry = (64, 56) if wide else (52, 32)
    strings = head + 3 * entry
    needs = strings + len(STRINGS)
    libc, new, old = (STRINGS.index(word) for word in (b"libc", b"GLIBC_2.28", b"GLIBC_2.3.4"))
    versions = struct.pack(order + "HHIII", 1, 2, libc, 16, 0)
    versions += struct.pack(order + "IHHII", 0, 0, 2, old, 16) + struct.pack(order + "IHHII", 0, 0, 3, new, 0)
    loader = needs + len(versions)
    name = b"/lib/ld-linux-aarch64.so.1\0"
    table = loader + len(name)
    tags = [(1, libc), (5, base + strings), (10, len(STRINGS)), (0x6FFFFFFE, base + needs), (0x6FFFFFFF, 1), (0, 0)]
    dynamic = b"".join(struct.pack(order + ("QQ" if wide else "II"), *tag) for tag in tags)
    end = table + len(dynamic)

    def segment(kind: int, offset: int, size: int, align: int) -> bytes:
        if wide:
            return struct.pack(order + "IIQQQQQQ", kind, 5, offset, base + offset, 0, size, size, align)
        return struct.pack(order + "IIIIIIII", kind, offset, base + offset, 0, size, size, 5, align)

    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    word = "QQQ" if wide else "III"
    raw = ident + struct.pack(order + "HHI" + word + "IHHHHHH", 3, machine, 1, 0, head, 0, 0, head, entry, 3, 0, 0, 0)
    raw += segment(1, 0, end, align) + segment(2, table, len(dynamic), 8) + segment(3, loader, len(name), 1)
    return raw + STRINGS + versions + name + dynamic


def write(folder: Path, raw: bytes) -> Path:
    path = folder / "libours.so"
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_is_read(tmp_path: Path, wide: bool, order: str) -> None:
    found = read_program(write(tmp_path, elf(wide=wide, order=order)))
    assert (found.machine, found.bits, found.align) == ("aarch64", 64 if wide else 32, 4096)
    assert found.interpreter == "/lib/ld-linux-aarch64.so.1" and found.needed == ("libc.so.6",)
    assert set(found.versions) == {("libc.so.6", "GLIBC_2.28"), ("libc.so.6", "GLIBC_2.3.4")}
    assert found.newest == {"GLIBC": (2, 28)}


def test_what_a_device_cannot_load(tmp_path: Path) -> None:
    path = write(tmp_path, elf())
    assert problems(path, "aarch64", 4096, (2, 28)) == []
    assert problems(path, "aarch64", 4096, (2, 27)) == ["libours.so needs glibc 2.28, the device has 2.27"]
    assert problems(path, "aarch64", 4096, None) == ["libours.so needs glibc 2.28, the device has no glibc"]
    (pages,) = problems(path, "aarch64", 16384, (2, 36))
    assert "aligned to 4,096 bytes" in pages and "16,384" in pages
    assert len(problems(path, "x86_64", 16384, (2, 17))) == 3
    assert problems(write(tmp_path, elf(align=16384)), "aarch64", 16384, (2, 36)) == []


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    raw = elf()
    for size in range(0, len(raw), 3):
        with pytest.raises(InputError, match="not a whole ELF"):
            read_program(write(tmp_path, raw[:size]))


def test_any_byte_may_be_wrong(tmp_path: Path) -> None:
    raw = elf()
    for at in range(len(raw)):
        path = write(tmp_path, raw[:at] + b"\xff" + raw[at + 1 :])
        with contextlib.suppress(InputError):  # nothing else may be raised
            read_program(path)


@pytest.mark.skipif(sys.platform != "linux", reason="programs of Linux")
def test_this_machines_python(tmp_path: Path) -> None:
    found = read_program(Path(sys.executable).resolve())
    assert found.bits == 64 and found.machine == platform.machine() and found.align and found.align >= 4096
    if found.interpreter and "ld-linux" in found.interpreter:
        assert any(name.startswith("libc.so") for name in found.needed) and found.newest["GLIBC"] >= (2, 2)
