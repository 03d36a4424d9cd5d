"""llama.cpp for a board: a wheel of llama-cpp-python, whose libraries are compiled here from what its source archive
holds. It is made once for each version and compiler, for both kinds of processor, and kept.

Features of processors are those that the board has, but for fp16 arithmetic: llama.cpp would sum in fp16 then, and no
simulation does.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

from smolship.runtime.child import Progress
from smolship.runtime.errors import InputError, SetupError, clip, missing_engine
from smolship.tools.devices.build import APT, compiler_version, cxx_compiler
from smolship.tools.devices.facts import DeviceFacts
from smolship.tools.devices.programs import read_program
from smolship.tools.devices.runners import add_entry
from smolship.tools.devices.wheels import LLAMA, download_sources
from smolship.tools.outputs import settle

MACHINE: Literal["aarch64"] = "aarch64"
# For GCC's -march, and the features that the kernel names; the first that fits is taken.
PROCESSORS = {"armv8.2-a+dotprod": {"asimddp", "atomics"}, "armv8-a": set[str]()}
LIBRARIES = tuple(f"lib{name}.so" for name in ("llama", "ggml", "ggml-base", "ggml-cpu"))
OPENMP = "libgomp.so.1"  # few systems have it that never compiled; the compiler's own lies beside the others
LINKED = "-s -Wl,--disable-new-dtags -Wl,-z,relro,-z,now -Wl,-z,max-page-size=65536"
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_SYSTEM_NAME": "Linux",
    "CMAKE_SYSTEM_PROCESSOR": MACHINE,
    "CMAKE_PLATFORM_NO_VERSIONED_SONAME": "ON",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    "CMAKE_SHARED_LINKER_FLAGS": LINKED,
    "BUILD_SHARED_LIBS": "ON",
    "GGML_NATIVE": "OFF",
    "GGML_OPENMP": "ON",
    "GGML_CCACHE": "OFF",
    "GGML_BACKEND_DL": "OFF",
    **{f"LLAMA_BUILD_{part}": "OFF" for part in ("COMMON", "TESTS", "TOOLS", "EXAMPLES", "SERVER", "APP")},
    **{f"LLAMA_{part}": "OFF" for part in ("CURL", "OPENSSL")},
}
FLAGS = ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS")  # of the environment, which may be meant for this machine
STEP = re.compile(r"\[\s*(\d{1,6})(?:/(\d{1,6})|%)\]")  # of ninja, and of make
LONG = "2 to 5 minutes on two cores"
OTHERWISE = f"put a wheel of {LLAMA} for the board into a folder, and name that with --wheelhouse"
MOST = 2 << 30  # bytes of the source archive's files


@dataclass(frozen=True)
class Tools:
    """Commands that compile for the board."""

    cmake: str
    cxx: str

    @property
    def c(self) -> str:
        return re.sub(r"g\+\+$", "gcc", self.cxx)

    @property
    def generator(self) -> str:
        return "Ninja" if shutil.which("ninja") else "Unix Makefiles"


def made(uri: str, facts: DeviceFacts, wheelhouse: Path | None, into: Path, progress: Progress) -> Path:
    """The wheel for a device, below the folder `into`, compiled where it is not there yet. Sources come from
    `wheelhouse`, or from pip. Raises SetupError where it cannot be made here."""
    if facts.machine != MACHINE or not facts.libc or facts.libc[0] != "glibc":
        libc = facts.libc[0] if facts.libc else "an unknown C library"
        raise SetupError(
            f"{uri}: llama.cpp is compiled here for other boards",
            got=f"{facts.machine} with {libc}",
            expected=f"{MACHINE} with glibc",
            todo=OTHERWISE,
        )
    tools, version = _tools(), _version()
    seed = repr((version, OPTIONS, tuple(PROCESSORS), tools.generator)).encode() + compiler_version(tools.cxx)
    key = hashlib.sha256(seed + Path(__file__).read_bytes()).hexdigest()
    folder = into / f"llama.cpp-{MACHINE}-{key[:16]}"
    if not folder.is_dir():
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into, prefix=".llama.cpp-") as work:
            fresh, build = Path(work) / "made", Path(work) / "build"
            progress("fetching its sources, 76 MB", 0, 1)
            root = _sources(wheelhouse, version, Path(work))
            for processor in PROCESSORS:  # in one folder: only the kernels differ
                what = f"compiling for {processor}, once; {LONG}"
                progress(what, 0, 1)
                libraries = compile_for(processor, root, tools, build, partial(progress, what))
                pack(root, libraries, fresh / processor)
            settle(fresh, folder)
    return next((folder / processor_of(facts)).glob("*.whl"))


def processor_of(facts: DeviceFacts) -> str:
    """What is compiled for: what every core of the device has."""
    cores = [set(core.features) for core in facts.cores if core.features]
    common = set.intersection(*cores) if cores else set()
    return next(name for name, asked in PROCESSORS.items() if asked <= common)


def command(root: Path, processor: str, tools: Tools, build: Path) -> list[str]:
    """CMake's command line for the sources in `root`."""
    options = OPTIONS | {"CMAKE_C_COMPILER": tools.c, "CMAKE_CXX_COMPILER": tools.cxx, "GGML_CPU_ARM_ARCH": processor}
    line = [tools.cmake, "-S", str(root / "vendor" / "llama.cpp"), "-B", str(build), "-G", tools.generator]
    return line + [f"-D{name}={value}" for name, value in options.items()]


def compile_for(processor: str, root: Path, tools: Tools, build: Path, step: Callable[[int, int], None]) -> list[Path]:
    """The libraries, and OpenMP's."""
    _run(command(root, processor, tools, build))
    jobs = str(os.cpu_count() or 1)
    _run([tools.cmake, "--build", str(build), "--target", "llama", "--parallel", jobs], step)
    found = [next(build.rglob(name), build / name) for name in LIBRARIES]
    found.append(Path(_output([tools.cxx, f"-print-file-name={OPENMP}"]).strip()))
    if missing := [path.name for path in found if not path.is_file()]:
        raise SetupError("llama.cpp was compiled without a library", got=f"no {', '.join(missing)}")
    for path in found:
        if (machine := read_program(path).machine) != MACHINE:
            raise SetupError(f"{path.name} is for another machine", got=machine, expected=MACHINE)
    return found


def pack(root: Path, libraries: list[Path], into: Path) -> Path:
    """The wheel of llama-cpp-python in a new folder `into`: its Python files and notices from `root`, and libraries."""
    about = (root / "PKG-INFO").read_bytes()
    version = re.search(rb"^Version: ([0-9A-Za-z.+!]{1,40})\s*$", about, re.MULTILINE)
    if not version:
        raise SetupError("the source archive does not say its version", got=root.name)
    name = f"llama_cpp_python-{version[1].decode()}"
    notices = {"LICENSE.md": root / "LICENSE.md", "llama.cpp/LICENSE": root / "vendor/llama.cpp/LICENSE"}
    files = {file.relative_to(root).as_posix(): file for file in sorted((root / "llama_cpp").rglob("*.py"))}
    files |= {f"llama_cpp/lib/{path.name}": path for path in libraries}
    files |= {f"{name}.dist-info/licenses/{to}": path for to, path in notices.items() if path.is_file()}
    tag = f"py3-none-linux_{MACHINE}"
    wheel = f"Wheel-Version: 1.0\nGenerator: smolship\nRoot-Is-Purelib: false\nTag: {tag}\n"
    texts = {f"{name}.dist-info/METADATA": about, f"{name}.dist-info/WHEEL": wheel.encode()}
    rows = []
    into.mkdir(parents=True)
    with zipfile.ZipFile(into / f"{name}-{tag}.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for to, content in _contents(files, texts):
            add_entry(archive, to, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append(f"{to},sha256={digest},{len(content)}\n")
        record = f"{name}.dist-info/RECORD"
        add_entry(archive, record, "".join([*rows, f"{record},,\n"]).encode())
    return into / f"{name}-{tag}.whl"


def libraries_of(wheel: Path, into: Path) -> list[Path]:
    """Those of a wheel, unpacked."""
    with zipfile.ZipFile(wheel) as archive:
        inside = [name for name in archive.namelist() if name.startswith("llama_cpp/lib/")]
        return [Path(archive.extract(name, into)) for name in inside]


def _contents(files: Mapping[str, Path], texts: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for to, path in files.items():
        yield to, path.read_bytes()
    yield from texts.items()


def _tools() -> Tools:
    cxx, cmake = cxx_compiler(MACHINE), shutil.which("cmake")
    if not cmake or not (shutil.which("ninja") or shutil.which("make")):
        raise SetupError(
            "llama.cpp cannot be compiled for the board",
            got="no cmake in PATH" if not cmake else "neither ninja nor make in PATH",
            expected="CMake 3.14 or newer, ninja or make, and a C++ compiler for it",
            todo=f"apt install cmake ninja-build {APT[MACHINE]}, or put a wheel of {LLAMA} into --wheelhouse",
        )
    return Tools(cmake, cxx)


def _version() -> str:
    """Of what is installed here, so that both machines run the same."""
    try:
        return metadata.version(LLAMA)
    except metadata.PackageNotFoundError as error:
        raise missing_engine("llama_cpp", "gguf", error) from None


def _sources(wheelhouse: Path | None, version: str, work: Path) -> Path:
    """The folder of the unpacked source archive."""
    wanted = f"{LLAMA}=={version}"
    there = list(wheelhouse.glob(f"llama_cpp_python-{version}.tar.gz")) if wheelhouse else []
    if not there:
        said = download_sources(work / "sources", LLAMA, version)
        there = sorted((work / "sources").glob("*.tar.gz"))
        if said or not there:
            raise SetupError(
                f"pip cannot fetch the sources of {wanted}",
                got=said or "no source archive",
                todo=f"fetch them where there is a network, pip download --no-deps --no-binary {LLAMA} '{wanted}', "
                "and name their folder with --wheelhouse",
            )
    try:
        with tarfile.open(there[0]) as archive:
            members = archive.getmembers()
            if sum(member.size for member in members) > MOST:
                raise InputError("the source archive is too large", got=there[0], expected=f"at most {MOST:,} bytes")
            archive.extractall(work / "unpacked", members, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(
            "the source archive cannot be unpacked", got=f"{there[0]}: {error}", todo="fetch it again"
        ) from None
    for root in (work / "unpacked").iterdir():
        if (root / "vendor/llama.cpp/CMakeLists.txt").is_file():
            return root
    raise InputError("the source archive holds no llama.cpp", got=there[0], expected="vendor/llama.cpp in it")


def _run(line: list[str], step: Callable[[int, int], None] = lambda done, total: None) -> None:
    """A command that compiles; it ends with all that it has started, and `step` gets how far it is."""
    last: deque[str] = deque(maxlen=200)
    with subprocess.Popen(
        line,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if name not in FLAGS},
    ) as process:
        assert process.stdout
        try:
            for text in process.stdout:
                last.append(text.strip())
                if found := STEP.match(text):
                    step(int(found[1]), int(found[2] or 100))
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        errors = [text for text in last if "error" in text.lower()] or list(last)[-3:]
        raise SetupError(
            "llama.cpp cannot be compiled for the board",
            got=clip("; ".join(errors[:3]) or f"status {process.returncode}"),
            todo=OTHERWISE,
        )


def _output(line: list[str]) -> str:
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60)
    return done.stdout
