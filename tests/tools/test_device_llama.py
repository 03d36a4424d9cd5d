"""llama.cpp for boards: for which processor, by what command line, and what the wheel is. Nothing is compiled here."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from smolship.runtime.errors import InputError, SetupError
from smolship.tools.devices import llama, opening
from smolship.tools.devices.pythons import Python, wheel_platforms
from smolship.tools.devices.setup import install, installed
from smolship.tools.devices.stores import Stores
from smolship.tools.devices.wheels import LLAMA, chosen, holds
from tests.tools.local_link import LocalLink
from tests.tools.test_device_build import library

VERSION = metadata.version(LLAMA)
A72 = ["fp", "asimd", "evtstrm", "crc32", "cpuid"]
A76 = [*A72, "aes", "pmull", "sha1", "sha2", "atomics", "fphp", "asimdhp", "asimdrdm", "lrcpc", "dcpop", "asimddp"]
GLIBC = ("glibc", "2.36")


def device(*cores: list[str], machine: str = "aarch64", libc: Any = GLIBC) -> Any:
    return SimpleNamespace(machine=machine, libc=libc, cores=[SimpleNamespace(features=tuple(c)) for c in cores])


def interpreter(path: str = "/usr/bin/python3") -> Python:
    yes = {"free_threaded": False, "pip": True, "ensurepip": True, "venv": True, "managed": True}
    tags = wheel_platforms("linux-aarch64", GLIBC)
    return Python(path, (3, 11, 2), "cpython", "linux-aarch64", "cpython-311", 64, **yes, platforms=tags)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder with a source archive as an index has it."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    root = f"llama_cpp_python-{VERSION}"
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {VERSION}\n",
        "LICENSE.md": "MIT",
        "llama_cpp/__init__.py": "",
        "llama_cpp/server/app.py": "",
        "vendor/llama.cpp/CMakeLists.txt": "project(llama)",
        "vendor/llama.cpp/LICENSE": "MIT",
    }
    with tarfile.open(folder / f"{root}.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{root}/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return folder


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs in PATH that stand for those that compile; `fails` in it lets CMake fail."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "library").write_bytes(library("libc.so.6"))
    (folder / llama.OPENMP).write_bytes(library("libc.so.6"))
    cmake = f"""#!/bin/sh
    echo "$@" >>{folder}/asked
    if [ -e {folder}/fails ]; then echo "x.cpp:1: error: no such header"; exit 1; fi
    case $1 in --build) ;; *) exit 0 ;; esac
    echo "[1/2] Building CXX object a.o"; echo "[ 50%] Building"; echo "[2/2] Linking"
    mkdir -p $2/bin; for name in {" ".join(llama.LIBRARIES)}; do cp {folder}/library $2/bin/$name; done
    """
    compiler = f"""#!/bin/sh
    case $1 in -print-file-name=*) echo {folder}/{llama.OPENMP} ;; *) echo "g++ 12" ;; esac
    """
    for name, text in (("cmake", cmake), ("ninja", ""), ("aarch64-linux-gnu-g++", compiler)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr("smolship.tools.devices.build.platform.machine", lambda: "x86_64")
    return folder


def test_it_is_compiled_for_what_every_core_has() -> None:
    dots = "armv8.2-a+dotprod"
    for cores, processor in (([A72] * 4, "armv8-a"), ([A76] * 4, dots), ([A72, A76], "armv8-a"), ([], "armv8-a")):
        assert llama.processor_of(device(*cores)) == processor
    assert llama.processor_of(device(A76, [])) == dots  # a core that is off says nothing
    assert llama.processor_of(device([*A76, "i8mm", "sve"])) == dots


def test_the_command_line() -> None:
    tools = llama.Tools("/usr/bin/cmake", "/usr/bin/aarch64-linux-gnu-g++")
    line = llama.command(Path("/s"), "armv8-a", tools, Path("/b"))
    assert line[:5] == ["/usr/bin/cmake", "-S", "/s/vendor/llama.cpp", "-B", "/b"]
    for option in (
        "CMAKE_C_COMPILER=/usr/bin/aarch64-linux-gnu-gcc",
        "CMAKE_CXX_COMPILER=/usr/bin/aarch64-linux-gnu-g++",
        "GGML_CPU_ARM_ARCH=armv8-a",
        "GGML_NATIVE=OFF",
        "CMAKE_INSTALL_RPATH=$ORIGIN",
    ):
        assert f"-D{option}" in line
    assert not any("fp16" in name for name in llama.PROCESSORS)  # sums in fp16 have no simulation


def test_the_wheel(tmp_path: Path, sources: Path, tools: Path) -> None:
    said: list[tuple[str, int, int]] = []
    into = tmp_path / "kept"

    def make(*cores: list[str]) -> Path:
        return llama.made("ssh://pi", device(*cores), sources, into, lambda *now: said.append(now))

    wheel = make(A76)
    assert "minutes" in said[1][0] and (said[-1][1:]) == (2, 2)
    assert chosen(interpreter(), [LLAMA], wheel.parent) == [wheel] and holds(interpreter(), LLAMA, wheel.parent)
    assert not holds(interpreter(), "numpy", wheel.parent)
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"llama_cpp/lib/{name}" for name in (*llama.LIBRARIES, llama.OPENMP)} < set(names)
    assert {"llama_cpp/__init__.py", "llama_cpp/server/app.py"} < set(names)
    assert sum("licenses" in name for name in names) == 2
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (found,) = metadata.distributions(path=[str(tmp_path / "site")])
    assert found.version == VERSION and {str(file) for file in found.files or ()} == set(names)
    assert len(llama.libraries_of(wheel, tmp_path / "out")) == 5
    asked = (tools / "asked").read_text()
    assert asked.count("-S ") == 2 and "ARCH=armv8-a" in asked and "ARCH=armv8.2-a+dotprod" in asked
    other = make(A72)
    assert make(A76) == wheel != other and (tools / "asked").read_text() == asked  # made once, for both
    assert wheel.read_bytes() == other.read_bytes()  # of the same content here


def test_what_cannot_be_compiled(tmp_path: Path, sources: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(**more: Any) -> Path:
        return llama.made("ssh://pi", device(A76, **more), sources, tmp_path / "kept", lambda *now: None)

    for more in ({"machine": "x86_64"}, {"libc": ("musl", "1.2")}, {"libc": None}):
        with pytest.raises(SetupError, match=r"(?s)compiled here for other boards.*--wheelhouse"):
            make(**more)
    (tools / "fails").touch()
    with pytest.raises(SetupError, match=r"(?s)cannot be compiled.*no such header"):
        make()
    assert not list((tmp_path / "kept").iterdir())
    (tools / "fails").unlink()
    (tools / "library").write_bytes(library("libc.so.6", machine=62))
    with pytest.raises(SetupError, match="another machine"):
        make()
    archive = next(sources.iterdir())
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be unpacked"):
        make()
    with tarfile.open(archive, "w:gz") as bad:
        bad.addfile(tarfile.TarInfo("../out"))
    with pytest.raises(InputError, match="cannot be unpacked"):
        make()
    monkeypatch.setattr(llama, "download_sources", lambda into, name, version: "no route to host")
    archive.unlink()
    with pytest.raises(SetupError, match=r"(?s)cannot fetch the sources.*no route.*pip download"):
        make()
    (tools / "cmake").unlink()
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(SetupError, match=r"(?s)no cmake in PATH.*apt install cmake"):
        make()
    assert not list((tmp_path / "kept").iterdir())


def test_engines_are_set_up_beside_each_other(tmp_path: Path) -> None:
    link, folder = LocalLink(), str(tmp_path / "device")
    python, said = interpreter(sys.executable), lambda *now: None
    sites = {}
    for engine in ("onnx", "gguf"):
        wheel = tmp_path / f"engine_{engine}-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"engine_{engine}.py", "")
        assert installed(link, folder, engine) is None
        sites[engine] = install(link, python, Stores(link, [folder]), [wheel], {engine: [f"engine_{engine}"]}, said)
    for engine, site in sites.items():
        assert installed(link, folder, engine) == (sys.executable, site)


def test_its_own_programs_on_a_board_are_named() -> None:
    facts: Any = SimpleNamespace(
        tools={"llama-bench": "/home/pi/llama.cpp/build/bin/llama-bench", "llama-server": None}
    )
    assert "build/bin/llama-bench cannot execute plans" in opening._unused(facts, "gguf")
    assert opening._unused(facts, "onnx") == ""
