"""What a command writes: single files where the user says, asked for before the work and written whole or not at all;
and folders that are made once."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from smolship.runtime.disk import disk_errors, writing
from smolship.runtime.errors import InputError
from smolship.runtime.files import look, must_fit
from smolship.runtime.folders import try_folder


def check_file(path: Path, what: str) -> None:
    """Raises, before any work, where `write_file` could not write there."""
    must_fit(path, what)
    info = look(path, what)
    if info is not None and stat.S_ISDIR(info.st_mode):
        raise InputError(f"{what} cannot be written over a folder", got=path, expected="the name of a file")
    if info is None or stat.S_ISREG(info.st_mode):
        try_folder(_real(path).parent, what)


def write_file(path: Path, data: bytes, what: str) -> None:
    """Write `data`; an older file there is replaced when the new one is complete. A device or a FIFO is written to."""
    check_file(path, what)
    path = _real(path)
    with disk_errors(), writing(path, len(data)):
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".smolship.", dir=path.parent) as work:
            whole = Path(work) / "file"
            whole.write_bytes(data)
            whole.replace(path)


def settle(made: Path, place: Path) -> None:
    """Move a finished folder to its place. One that another process has put there in the meantime stays."""
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def _real(path: Path) -> Path:
    """Where a link leads to: the link stays."""
    return Path(os.path.realpath(path))
