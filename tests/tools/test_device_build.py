"""Building the runner for devices: what is refused, and what a file needs."""

from __future__ import annotations

import platform
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime.errors import InputError, SetupError
from smolship.tools.devices import build as building
from smolship.tools.devices.build import build
from smolship.tools.devices.programs import read_program


def library(
    *names: str, versions: tuple[str, ...] = ("GLIBC_2.17",), machine: int = 183, alignment: int = 16384
) -> bytes:
    """A library of headers alone, at address 0 as in the file."""
    text = b"\0" + b"\0".join(name.encode() for name in (*names, "$ORIGIN", *versions)) + b"\0"
    at = {name: text.index(name.encode()) for name in (*names, "$ORIGIN", *versions)}
    strings, dynamic = 0x100, 0x400
    needed, inner = 0x800, 0x810
    entries = [(1, at[name]) for name in names] + [(5, strings), (29, at["$ORIGIN"]), (0x6FFFFFFE, needed)]
    entries += [(0x6FFFFFFF, 1), (0, 0)]
    raw = bytearray(0x1000)
    struct.pack_into("<16sHHIQQQIHHHHHH", raw, 0, b"\x7fELF\2\1\1", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    struct.pack_into("<IIQQQQQQ", raw, 64, 1, 5, 0, 0, 0, len(raw), len(raw), alignment)
    struct.pack_into("<IIQQQQQQ", raw, 120, 2, 6, dynamic, dynamic, 0, 16 * len(entries), 0, 8)
    raw[strings : strings + len(text)] = text
    for i, entry in enumerate(entries):
        struct.pack_into("<QQ", raw, dynamic + 16 * i, *entry)
    struct.pack_into("<HHIII", raw, needed, 1, len(versions), 0, inner - needed, 0)
    for i, version in enumerate(versions):
        struct.pack_into("<IHHII", raw, inner + 16 * i, 0, 0, 0, at[version], 16)
    return bytes(raw)


def test_what_a_library_needs(tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(
        library("libc.so.6", "libm.so.6", versions=("GLIBC_2.9", "GLIBC_2.28", "GLIBCXX_3.4.21", "PRIVATE"))
    )
    found = read_program(path)
    assert found.machine == "aarch64" and found.needed == ("libc.so.6", "libm.so.6") and found.runpath == "$ORIGIN"
    assert found.newest == {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 21)} and found.align == 16384


@pytest.mark.parametrize("change", [slice(0, 4), slice(0, 200), slice(0, 0x420)])
def test_a_broken_library_is_refused(tmp_path: Path, change: slice) -> None:
    path = tmp_path / "lib.so"
    path.write_bytes(library("libc.so.6")[change])
    with pytest.raises(InputError, match="not a whole ELF program or library"):
        read_program(path)


@pytest.mark.skipif(sys.platform != "linux", reason="no ELF")
def test_the_interpreter_here() -> None:
    found = read_program(Path(sys.executable).resolve())
    assert found.newest["GLIBC"] >= (2, 2, 5) and any(name.startswith("libc.so") for name in found.needed)


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    other: Any = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    for machine, package in (
        (platform.machine(), "apt install g[+][+]$"),
        (other, "apt install g[+][+]-.*-linux-gnu$"),
    ):
        with pytest.raises(SetupError, match=rf"(?s)no C\+\+ compiler for .*{package}"):
            build(machine, tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_for_android(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANDROID_NDK_HOME", building.ANDROID_HOME):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SetupError, match="ANDROID_NDK_HOME is not set"):
        build("android-aarch64", tmp_path)
    monkeypatch.setenv("ANDROID_NDK_HOME", str(tmp_path))
    with pytest.raises(SetupError, match="holds no compiler"):
        build("android-aarch64", tmp_path)
    compiler = tmp_path / f"toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android{building.ANDROID}-clang++"
    compiler.parent.mkdir(parents=True)
    compiler.write_text("")
    with pytest.raises(SetupError, match="no libraries for Android"):
        build("android-aarch64", tmp_path)
    monkeypatch.setenv(building.ANDROID_HOME, str(tmp_path))
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    with pytest.raises(SetupError, match=r"lacks what the runner is made of"):
        build("android-aarch64", tmp_path)


def test_a_machine_that_is_none(tmp_path: Path) -> None:
    unknown: Any = "z80"
    with pytest.raises(InputError, match="unknown machine"):
        build(unknown, tmp_path)


def test_what_is_made_for_too_new_a_system_is_refused(tmp_path: Path) -> None:
    for versions, machine, words in (
        (("GLIBC_2.29",), 183, "GLIBC_2.29"),
        (("GLIBCXX_3.4.32",), 183, "GLIBCXX_3.4.32"),
        (("GLIBC_2.17",), 62, "another machine"),
    ):
        (tmp_path / "smolship-run").write_bytes(library("libc.so.6", versions=versions, machine=machine))
        with pytest.raises(SetupError, match=words):
            building._check("aarch64", tmp_path)
    (tmp_path / "smolship-run").write_bytes(library("libc.so.6", versions=("GLIBC_2.28", "GLIBCXX_3.4.25")))
    building._check("aarch64", tmp_path)
