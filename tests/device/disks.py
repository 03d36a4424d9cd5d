"""Small disks that really become full: ext2 in a file, mounted by a loop device. Needs root."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smolship.runtime.errors import SetupError

BLOCK = 1 << 16


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of that size, mounted on `folder`/disk. Raises SetupError where none can be made."""
    image, point = folder / "image", folder / "disk"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    _run("mke2fs", "-q", "-F", "-m", "0", "-b", "1024", str(image))
    _run("mount", "-o", "loop", str(image), str(point))
    try:
        (point / "lost+found").rmdir()
        yield point
    finally:
        _run("umount", "--lazy", str(point))


def fill(folder: Path, room: int = 0) -> Path:
    """A file that takes all that is free there but `room` bytes; its path."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (BLOCK, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
        file.truncate(max(0, file.tell() - room))
    return ballast


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SetupError("a small disk cannot be made", got=error, todo="apt install e2fsprogs mount") from None
    if done.returncode:
        raise SetupError(
            f"a small disk cannot be made: {command[0]}", got=done.stderr, expected="root and loop devices"
        )
