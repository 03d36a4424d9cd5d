"""Paths for libraries in C++, which take UTF-8 only. A folder of Linux may be called anything."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from smolship.runtime.errors import InputError


@contextlib.contextmanager
def native_path(path: Path) -> Iterator[Path]:
    """`path`, or one in UTF-8 that leads to the same file, by a link to its folder that lasts as long as the block."""
    if _is_utf8(path):
        yield path
        return
    if not _is_utf8(Path(path.name)):
        raise InputError(
            "a file's name is not UTF-8", got=path, expected="a name that the engine can be told", todo="rename it"
        )
    with tempfile.TemporaryDirectory(prefix="smolship.") as folder:
        link = Path(folder) / "folder"
        link.symlink_to(path.parent.absolute(), target_is_directory=True)
        yield link / path.name


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
