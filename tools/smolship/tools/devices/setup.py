"""What a board needs to execute plans with Python: numpy and an engine, unpacked into a folder of their own.

Wheels are unpacked by the device's own Python: nothing is installed there, and pip, venv and a network are not needed.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from smolship.runtime.child import Progress
from smolship.runtime.errors import InputError, SetupError, clip
from smolship.runtime.files import sha256
from smolship.tools.devices.link import Link, device_path, quote
from smolship.tools.devices.pythons import Python
from smolship.tools.devices.stores import Stores

# With an engine's name behind it, the file that says what was set up for it: the interpreter's path, and that of the
# folder for PYTHONPATH.
STORED = "python-"
UNPACK_S, IMPORT_S = 900.0, 300.0
UNPACK = "import sys, zipfile\nfor path in sys.argv[2:]: zipfile.ZipFile(path).extractall(sys.argv[1])"


def install(
    link: Link,
    python: Python,
    stores: Stores,
    wheels: Sequence[Path],
    engines: Mapping[str, Sequence[str]],
    progress: Progress,
) -> str:
    """The folder on the device that PYTHONPATH names, with `wheels` unpacked and the modules of each of `engines`
    imported once. What is there already is not sent again."""
    unpacked = sum(map(_unpacked, wheels))
    hashes = [sha256(path) for path in wheels]
    name = f"site-{hashlib.sha256(' '.join(sorted(hashes)).encode()).hexdigest()[:16]}"
    site = _complete(link, [device_path(f"{folder}/{name}") for folder in stores.folders])
    if not site:
        named = {f"{hashed}.whl": path for hashed, path in zip(hashes, wheels, strict=True)}
        there = stores.put(named, progress, beside=unpacked)
        site = device_path(f"{stores.last.folder}/{name}")
        progress("unpacking", 1, 2)
        words = " ".join(map(quote, [python.path, "-c", UNPACK, site, *(f"{there}/{one}" for one in named)]))
        script = f"rm -rf {quote(site)} && mkdir -p {quote(site)} && {words} && : >{quote(site)}/complete"
        _run(link, script, UNPACK_S, "wheels cannot be unpacked")
        progress("unpacked", 1, 1)
    for engine, modules in engines.items():
        _check(link, python, site, modules)
        stored = f"printf '%s\\n' {quote(python.path)} {quote(site)} >{quote(f'{stores.home}/{STORED}{engine}')}"
        _run(link, f"mkdir -p {quote(stores.home)}", 60, "a folder for what is set up cannot be made")
        _run(link, stored, 60, "what was set up cannot be noted")
    return site


def installed(link: Link, folder: str, engine: str) -> tuple[str, str] | None:
    """Interpreter and folder, as `install` noted them; None where nothing was set up for the engine."""
    noted = quote(f"{folder}/{STORED}{engine}")
    done = link.run(f'cat {noted} && test -e "$(tail -n 1 {noted})"/complete', limit_s=60)
    lines = done.out.decode(errors="replace").splitlines()
    return (lines[0], device_path(lines[1])) if done.status == 0 and len(lines) == 2 else None


def _complete(link: Link, sites: Sequence[str]) -> str:
    """The first of these folders that was unpacked to the end; empty where none was."""
    script = f"for site in {' '.join(map(quote, sites))}; do [ ! -e $site/complete ] || {{ echo $site; exit; }}; done"
    said = link.run(script, limit_s=60).out.decode(errors="replace").strip()
    return said if said in sites else ""


def _unpacked(wheel: Path) -> int:
    """Bytes of a wheel's files. Raises InputError where it is none, or cut short."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise InputError("a wheel cannot be read", got=f"{wheel}: {error}", todo="fetch it again") from None


def versions(link: Link, site: str) -> list[str]:
    """What lies in a folder of `install`, such as "onnxruntime 1.32.0"."""
    done = link.run(f"cd {quote(device_path(site))} && ls -d *.dist-info", limit_s=60)
    return [
        clip(name.removesuffix(".dist-info").replace("-", " "), 80)
        for name in done.out.decode(errors="replace").split()
    ]


def _check(link: Link, python: Python, site: str, modules: Sequence[str]) -> None:
    code = "import " + ", ".join(modules)
    line = f"PYTHONPATH={quote(site)} PYTHONDONTWRITEBYTECODE=1 {quote(python.path)} -P -c {quote(code)}"
    _run(link, line, IMPORT_S, f"{', '.join(modules)} cannot be imported on the device")


def _run(link: Link, script: str, limit_s: float, what: str) -> None:
    done = link.run(script, limit_s=limit_s)
    if done.status:
        said = (done.err or done.out).decode(errors="replace").strip().splitlines()
        why = "SIGILL: the wheel has an instruction that this processor lacks" if done.status == 132 else ""
        raise SetupError(
            f"{link.uri}: {what}",
            got=clip(why or (said[-1] if said else f"exit status {done.status}")),
            todo="install another version, with --wheelhouse" if why else None,
        )
