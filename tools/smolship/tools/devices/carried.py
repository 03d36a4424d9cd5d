"""What a program needs of a system's C library, put beside it, for devices that have none of the kind: phones, whose
kernel is Linux and whose libraries are Android's, and small systems with musl.

The loader and the libraries are those of the compiler that made the program. They are copied from this machine to the
user's own device; smolship holds none of them. (GNU's C library is under the LGPL, GCC's libraries are under the GPL
with GCC's exception: who gives the folder to others gives their sources too.)

The device's own loader has no part: the kernel starts ours, and that maps the program. It reads no file outside its
folder, neither /etc nor /lib.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from smolship.runtime.errors import SetupError
from smolship.runtime.files import sha256
from smolship.tools.devices.programs import read_program
from smolship.tools.outputs import settle

LIMIT_S = 60.0
Find = Callable[[str], Path]


def carried(folder: Path, program: str, compiler: str, find: Find | None = None) -> Path:
    """A folder beside `folder`, made where it is not there yet, with its files and with all that they need; another one
    for other libraries.

    program   the file of `folder` that is started
    compiler  that made it
    find      the place of a library by name; None: where the compiler has it

    Raises SetupError where a library is not to be found, or is for another machine.
    """
    libraries = needed(folder, program, find or (lambda name: found_by(compiler, name)))
    key = hashlib.sha256("".join(f"{name} {sha256(path)}\n" for name, path in libraries.items()).encode()).hexdigest()
    into = folder.with_name(f"{folder.name}-carried-{key[:16]}")
    if into.is_dir():
        return into
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{into.name}-") as work:
        made = shutil.copytree(folder, Path(work) / "made")
        for name, path in libraries.items():
            shutil.copyfile(path, made / name)
            (made / name).chmod(0o755)
        settle(made, into)
    return into


def needed(folder: Path, program: str, find: Find) -> dict[str, Path]:
    """What the files of a folder need and it lacks, by name: the program's loader, libraries, and what these need."""
    machine = read_program(folder / program).machine
    waiting = [path.name for path in sorted(folder.iterdir())] + [loader(folder, program)]
    seen: set[str] = set()
    lacking: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = folder / name
        if not path.exists():
            path = lacking[name] = find(name).resolve()
        found = read_program(path)
        if found.machine != machine:
            raise SetupError(f"{name} is for another machine", got=found.machine, expected=machine)
        waiting += found.needed
    return dict(sorted(lacking.items()))


def loader(folder: Path, program: str) -> str:
    """The file name of the loader that a program asks for. Raises SetupError for a static program."""
    asked = read_program(folder / program).interpreter
    if not asked:
        raise SetupError(f"{program} names no loader", got="a static program", expected="one with libraries")
    return asked.rpartition("/")[2]


def found_by(compiler: str, name: str) -> Path:
    """A library of the compiler's. Raises SetupError where it has none of that name."""
    line = [compiler, f"-print-file-name={name}"]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S)
    path = Path(done.stdout.strip())
    if done.returncode or not path.is_absolute() or not path.is_file():
        raise SetupError(
            f"{compiler} has no {name}, which the runner brings to the device",
            got=done.stdout.strip() or done.stderr.strip(),
            expected="the C and C++ libraries of the compiler's machine",
            todo="install them (Debian: apt install libc6-dev-arm64-cross libstdc++6-arm64-cross)",
        )
    return path
