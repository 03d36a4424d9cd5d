"""One kept step: the folder KIND-KEY with the step's files in `files`, and `record.json`, written last.

A folder that is being made has another name (runtime/folders.py), so that a half-made one is never taken. Whoever uses
one holds it locked, and what is locked is not removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smolship.runtime.errors import InputError
from smolship.runtime.files import read_json, relative
from smolship.runtime.folders import lock
from smolship.runtime.manifest import ListedFile
from smolship.runtime.records import read_record

RECORD, FILES = "record.json", "files"
NAMES = (RECORD, FILES)  # all that lies in such a folder
NAME = re.compile(r"(bits|quantize|calibrate|lower|probe|parts)-[0-9a-f]{32}")
HALF_MADE = re.compile(rf"\.{NAME.pattern}\.[a-z0-9_]{{8}}\.(partial|old)")


@dataclass(frozen=True)
class Record:
    """What is known of a kept step.

    asked    all that its result depends on (keys.py)
    model    as the manifest names it
    words    what was asked, for people
    result   what the step returned
    seconds  that it took in the run that made it, and the memory at its peak
    made     when, in UTC
    files    what it wrote, by the path in the folder of the bundle; of `parts` none are listed
    """

    asked: dict[str, Any]
    model: str
    words: str
    result: Any
    seconds: float
    peak_bytes: int | None
    made: str
    files: dict[str, ListedFile]

    @property
    def day(self) -> str:
        return self.made[:10]


@dataclass(frozen=True)
class Entry:
    """A kept step as `smolship cache` lists it; `used` is when it was last, in seconds since 1970."""

    path: Path
    record: Record
    size: int
    used: float

    @property
    def kind(self) -> str:
        return self.path.name.partition("-")[0]


def name_of(kind: str, asked: dict[str, Any]) -> str:
    """The name of the folder of a step."""
    text = json.dumps(asked, sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write_record(folder: Path, record: Record) -> None:
    """All at once, so that nobody reads half of one; its own hash tells when it was damaged."""
    raw = asdict(record)
    new = folder / f"{RECORD}.new"
    new.write_text(json.dumps({"sha256": _sum(raw), "record": raw}, indent=1) + "\n")
    new.replace(folder / RECORD)


def read_entry(path: Path) -> Entry | None:
    """The kept step in a folder; None where it is none, or damaged."""
    try:
        raw = read_json(path / RECORD, RECORD)
        record = read_record(Record, raw.get("record"), RECORD)
        if raw.get("sha256") != _sum(raw["record"]):
            return None
        for name in record.files:
            relative(name, RECORD)
        sizes = [info.st_size for info in _files(path)]
        return Entry(path, record, sum(sizes), (path / RECORD).stat().st_mtime)
    except (InputError, OSError):
        return None


def _sum(raw: Any) -> str:
    return hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()


def _files(path: Path) -> Iterator[os.stat_result]:
    for below, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                info = Path(below, name).lstat()
                if stat.S_ISREG(info.st_mode):
                    yield info


def entries(root: Path) -> list[Entry]:
    """All kept steps below `root`, the one that was used last first."""
    found = [read_entry(path) for path in _folders(root) if NAME.fullmatch(path.name)]
    return sorted((entry for entry in found if entry), key=lambda entry: -entry.used)


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    except FileNotFoundError:
        return []


def sweep(root: Path) -> None:
    """Remove what killed processes left: folders that were being made or removed, and that nobody holds. What has
    another name is somebody else's."""
    for path in _folders(root):
        if HALF_MADE.fullmatch(path.name) or (NAME.fullmatch(path.name) and not (path / RECORD).exists()):
            remove(path)


def remove(path: Path) -> bool:
    """Remove a kept step. False where it is in use, or somebody else removes it. The record goes first: what is left of
    the folder where this is interrupted is no kept step."""
    try:
        held = lock(path)
    except OSError:
        return False
    try:
        (path / RECORD).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(held)
    return True
