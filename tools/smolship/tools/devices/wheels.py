"""Wheels for another machine's Python: chosen from a folder, or fetched by this machine's pip."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from smolship.runtime.errors import InputError, SetupError, clip

OLDEST_GLIBC = 17  # of manylinux2014
NEEDED = {"onnx": ("numpy", "onnxruntime")}  # distributions, by engine
FETCH_S = 900.0


@dataclass(frozen=True)
class Python:
    """A device's interpreter.

    path     absolute
    version  such as (3, 11)
    machine  as wheels name it, such as aarch64
    glibc    such as (2, 36); None: another libc
    """

    path: str
    version: tuple[int, int]
    machine: str
    glibc: tuple[int, int] | None

    @property
    def platforms(self) -> list[str]:
        """Best first."""
        if self.glibc is None:
            return [f"linux_{self.machine}"]
        newest = self.glibc[1] if self.glibc[0] == 2 else OLDEST_GLIBC
        many = [f"manylinux_2_{minor}_{self.machine}" for minor in range(newest, OLDEST_GLIBC - 1, -1)]
        return [*many, f"manylinux2014_{self.machine}", f"linux_{self.machine}"]

    @property
    def tags(self) -> list[Tag]:
        """What it can install, best first."""
        own = cpython_tags(self.version, platforms=self.platforms)
        return [*own, *compatible_tags(self.version, f"cp{self.version[0]}{self.version[1]}", self.platforms)]


def chosen(python: Python, names: Sequence[str], wheelhouse: Path) -> list[Path]:
    """The best wheel of each distribution in a folder. Raises InputError that lists what is missing, and what lies
    there in its place."""
    ranks = {tag: i for i, tag in enumerate(python.tags)}
    best: dict[str, tuple[tuple[object, ...], Path]] = {}
    others: dict[str, list[str]] = {}
    for path in sorted(wheelhouse.glob("*.whl")):
        try:
            name, version, build, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        fitting = [ranks[tag] for tag in tags if tag in ranks]
        if not fitting:
            others.setdefault(name, []).append(path.name)
            continue
        rank = (version, -min(fitting), build)
        if name not in best or rank > best[name][0]:
            best[name] = rank, path
    if missing := [name for name in names if canonicalize_name(name) not in best]:
        there = [file for name in missing for file in others.get(canonicalize_name(name), [])]
        raise InputError(
            f"no wheel of {', '.join(missing)} fits the device's Python",
            got=clip(", ".join(there)) or f"none in {wheelhouse}",
            expected=f"tags such as {python.tags[0]}",
            todo=f"put one there: {' '.join(download(python, missing, Path('WHEELHOUSE'))[2:])}",
        )
    return [best[canonicalize_name(name)][1] for name in names]


def fetched(python: Python, names: Sequence[str], into: Path) -> list[Path]:
    """Wheels of this machine's versions of the distributions, by pip."""
    into.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        download(python, [_pinned(name) for name in names], into),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=FETCH_S,
    )
    if done.returncode:
        raise SetupError(
            "pip cannot fetch wheels for the device",
            got=clip(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode),
            expected=f"wheels of {', '.join(names)} for {python.tags[0]}",
            todo="fetch them where there is a network, and name their folder with --wheelhouse",
        )
    return chosen(python, names, into)


def download(python: Python, names: Sequence[str], into: Path) -> list[str]:
    """The command line that fetches wheels for the device."""
    major, minor = python.version
    abis = [f"--abi=cp{major}{minor}", "--abi=abi3", "--abi=none"]
    where = [f"--platform={platform}" for platform in python.platforms]
    line = [sys.executable, "-P", "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
    line += ["--only-binary=:all:", f"--python-version={major}.{minor}", "--implementation=cp", *abis, *where]
    return [*line, "--dest", str(into), *names]


def _pinned(name: str) -> str:
    """With the version that is installed here, so that both machines run the same."""
    try:
        return f"{name}=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return name
