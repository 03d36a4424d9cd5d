"""Compiles `smolship-run`, the runner for ExecuTorch programs that needs neither Python nor torch, for this machine or
a device. ExecuTorch's headers and libraries come from its Python package, of the version that is installed here.

What is made needs no C library above 2.28 and no C++ library above GCC 8's, whatever compiler makes it: that is looked
at in the files.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from smolship.runtime.errors import SetupError, clip, unknown
from smolship.tools.devices.carried import carried
from smolship.tools.devices.programs import Program, read_program
from smolship.tools.devices.wheels import download
from smolship.tools.outputs import settle

Machine = Literal["x86_64", "aarch64", "android-aarch64"]
MACHINES = {"x86_64": "x86_64", "aarch64": "aarch64", "android-aarch64": "aarch64"}  # by ELF's names
SOURCES = Path(__file__).parent / "runner"
PROGRAM = "smolship-run"
# The kernels of a language model, and what they are linked with. Order matters to nobody.
PARTS = (
    "executorch",
    *(f"executorch_{part}" for part in ("kernels_optimized", "kernels_quantized", "backend_xnnpack")),
)
LIBRARIES = (*PARTS, "executorch_threadpool")
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11)}
C10 = "include/executorch/runtime/core/portable_type/c10"
FLAGS = ("-std=c++17", "-O3", "-fPIE", "-fvisibility=hidden", "-fvisibility-inlines-hidden")
DEFINED = ("-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_USE_THREADPOOL")
ANDROID = 28  # API level: Android 9
ANDROID_HOME = "EXECUTORCH_ANDROID_HOME"
APT = {"x86_64": "g++-x86-64-linux-gnu", "aarch64": "g++-aarch64-linux-gnu"}
LIMIT_S = 600.0


@dataclass(frozen=True)
class Package:
    """A folder with ExecuTorch's `include` and `lib`, and its version."""

    root: Path
    version: str

    @property
    def libraries(self) -> list[Path]:
        """Raises SetupError where one is missing."""
        found = [self.root / "lib" / f"lib{name}.so" for name in LIBRARIES]
        missing = [path.name for path in (*found, self.root / "include/executorch") if not path.exists()]
        if missing:
            raise SetupError(
                "ExecuTorch's package lacks what the runner is made of",
                got=f"no {', '.join(missing)} in {self.root}",
                expected="its C++ headers and libraries, as version 1.5.1 has them",
                todo="pip install --force-reinstall 'smolship[executorch]'",
            )
        return found


def build(machine: Machine, into: Path) -> Path:
    """A folder below `into` that holds the program and its libraries, made where it is not there yet.

    Raises InputError for a machine of another kind, SetupError where the compiler or ExecuTorch is missing.
    """
    if machine not in MACHINES:
        raise unknown("machine", machine, MACHINES)
    compiler = cxx_compiler(machine)
    into.mkdir(parents=True, exist_ok=True)
    package = _package(machine, into)
    key = _key(machine, package, compiler)
    folder = into / f"{PROGRAM}-{machine}-{key[:16]}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=into, prefix=f".{PROGRAM}-") as work:
        made = Path(work) / "made"
        made.mkdir()
        _compile(machine, package, compiler, made / PROGRAM)
        for library in package.libraries:
            shutil.copyfile(library, made / library.name)
        for path in made.iterdir():
            path.chmod(0o755)
        _check(machine, made)
        settle(made, folder)
    return folder


def build_carried(machine: Machine, into: Path) -> Path:
    """As `build`, with the loader and the C and C++ libraries beside the program."""
    return carried(build(machine, into), PROGRAM, cxx_compiler(machine))


def programs(folder: Path) -> dict[str, Program]:
    """What each file that `build` left in a folder asks for."""
    return {path.name: read_program(path) for path in sorted(folder.iterdir())}


def cxx_compiler(machine: Machine) -> str:
    """The C++ compiler's command. Raises SetupError where there is none."""
    if machine == "android-aarch64":
        return _ndk()
    native = machine == platform.machine()
    names = ["g++", f"{machine}-linux-gnu-g++"] if native else [f"{machine}-linux-gnu-g++"]
    for name in names:
        if found := shutil.which(name):
            return found
    package = "g++" if native else APT[machine]
    raise SetupError(
        f"no C++ compiler for {machine}",
        got=f"none of {', '.join(names)} in PATH",
        expected="GCC 9 or newer",
        todo=f"apt install {package}",
    )


def compiler_version(compiler: str) -> bytes:
    """What it says of itself."""
    line = [compiler, "--version"]
    return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S).stdout


def _ndk() -> str:
    home = os.environ.get("ANDROID_NDK_HOME")
    if not home:
        raise SetupError(
            "no C++ compiler for Android",
            got="ANDROID_NDK_HOME is not set",
            expected="the folder of Android's NDK, r26 or newer",
            todo="install the NDK (sdkmanager 'ndk;27.2.12479018') and set ANDROID_NDK_HOME to its folder",
        )
    found = sorted(Path(home).glob(f"toolchains/llvm/prebuilt/*/bin/aarch64-linux-android{ANDROID}-clang++"))
    if not found:
        raise SetupError(
            "ANDROID_NDK_HOME holds no compiler for arm64",
            got=home,
            expected=f"toolchains/llvm/prebuilt/HOST/bin/aarch64-linux-android{ANDROID}-clang++",
            todo="set it to the folder of Android's NDK, r26 or newer",
        )
    return str(found[0])


def _package(machine: Machine, into: Path) -> Package:
    """ExecuTorch for that machine: what is installed here, or the same version's package, fetched once."""
    if machine == "android-aarch64":
        home = os.environ.get(ANDROID_HOME)
        if not home:
            raise SetupError(
                "ExecuTorch's Python package has no libraries for Android",
                got=f"{ANDROID_HOME} is not set",
                expected="a folder with include/executorch and lib/libexecutorch*.so, built with the NDK",
                todo=f"build ExecuTorch's shared libraries for arm64-v8a and set {ANDROID_HOME} to that folder",
            )
        return Package(Path(home), _installed_version())
    version = _installed_version()
    if machine == platform.machine():
        spec = util.find_spec("executorch")
        places = list(spec.submodule_search_locations or ()) if spec else []
        return Package(Path(places[0]) if places else Path(), version)
    root = into / f"executorch-{version}-{machine}"
    if not root.is_dir():
        with tempfile.TemporaryDirectory(dir=into, prefix=".executorch-") as work:
            wheel = _fetched(version, machine, Path(work))
            unpacked = Path(work) / "unpacked"
            with zipfile.ZipFile(wheel) as archive:
                wanted = ("executorch/include/", "executorch/lib/")
                archive.extractall(unpacked, [name for name in archive.namelist() if name.startswith(wanted)])
            (unpacked / "executorch").rename(root)
    return Package(root, version)


def _fetched(version: str, machine: str, into: Path) -> Path:
    """ExecuTorch's wheel for another machine, of any Python: only its libraries are wanted."""
    places = [f"--platform={tag}_{machine}" for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    said = download("3.11", ["cp311"], places, into, [f"executorch=={version}"])
    found = sorted(into.glob("executorch-*.whl"))
    if said or not found:
        raise SetupError(
            f"pip cannot fetch ExecuTorch {version} for {machine}",
            got=said or "no wheel",
            expected="one wheel, of 18 MB",
            todo="see to it that pip reaches its index, then run it again",
        )
    return found[0]


def _installed_version() -> str:
    try:
        return metadata.version("executorch")
    except metadata.PackageNotFoundError as error:
        raise SetupError(
            "the runner's ExecuTorch is that of this machine", got=error, todo="pip install 'smolship[executorch]'"
        ) from None


def _sources() -> Iterator[Path]:
    found = sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")])
    if not found:
        raise SetupError(
            "smolship is installed without its runner's sources", todo="pip install --force-reinstall smolship"
        )
    yield from found


def _key(machine: Machine, package: Package, compiler: str) -> str:
    """SHA-256 of all that goes in."""
    hashed = hashlib.sha256(repr((machine, package.version, FLAGS, DEFINED, LIBRARIES)).encode())
    hashed.update(compiler_version(compiler))
    for path in (*_sources(), Path(__file__), *package.libraries):
        hashed.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def command(machine: Machine, package: Package, compiler: str, to: Path) -> list[str]:
    """The command line that makes the program."""
    names = {"EXECUTORCH_VERSION": package.version, "SMOLSHIP_VERSION": metadata.version("smolship")}
    line = [compiler, *FLAGS, *DEFINED, *(f'-D{name}="{value}"' for name, value in names.items())]
    line += ["-isystem", str(package.root / "include"), "-isystem", str(package.root / C10)]
    line += [f"-ffile-prefix-map={SOURCES}=.", "-include", str(SOURCES / "old_symbols.h")]
    line += [str(path) for path in _sources() if path.suffix == ".cpp"]
    line += ["-o", str(to), "-s", "-pie", f"-L{package.root / 'lib'}"]
    # Libraries register kernels and backends when they are loaded: nothing in the program names them.
    line += ["-Wl,--no-as-needed", *(f"-l{name}" for name in LIBRARIES), "-Wl,--as-needed"]
    # The old kind of path comes before LD_LIBRARY_PATH.
    line += ["-Wl,-rpath,$ORIGIN", "-Wl,--disable-new-dtags", "-Wl,--allow-shlib-undefined"]
    line += ["-Wl,-z,relro,-z,now", "-Wl,-z,max-page-size=65536"]
    # start.cpp stands for crt1.o, which asks for a newer C library.
    return [*line, "-static-libstdc++"] if machine == "android-aarch64" else [*line, "-nostartfiles"]


def _compile(machine: Machine, package: Package, compiler: str, to: Path) -> None:
    line = command(machine, package, compiler, to)
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=LIMIT_S
    )
    if done.returncode:
        errors = [text for text in done.stderr.splitlines() if "error" in text] or done.stderr.splitlines()
        raise SetupError(
            f"{PROGRAM} cannot be compiled for {machine}",
            got=clip("; ".join(errors[:3]) or f"status {done.returncode}"),
            expected="GCC 9 or newer, and ExecuTorch 1.5.1",
        )


def _check(machine: Machine, folder: Path) -> None:
    """Raises SetupError where a file is for another machine, or needs a newer system than it may."""
    for name, found in programs(folder).items():
        if found.machine != MACHINES[machine]:
            raise SetupError(f"{name} is for another machine", got=found.machine, expected=MACHINES[machine])
        limits = {} if machine == "android-aarch64" else NEWEST
        for kind, newest in limits.items():
            if (version := found.newest.get(kind, ())) > newest:
                raise SetupError(
                    f"{name} needs a newer system than it may",
                    got=f"{kind}_{'.'.join(map(str, version))}",
                    expected=f"at most {kind}_{'.'.join(map(str, newest))}",
                    todo="compile it with an older GCC, such as Debian 12's",
                )
