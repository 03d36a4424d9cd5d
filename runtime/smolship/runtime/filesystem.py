"""What Python has no call for: exchanging two folders in one step, seeing any mount point, syncing a folder."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
from pathlib import Path

HERE = -100  # AT_FDCWD: paths are relative to the working folder
RENAME_EXCHANGE = RENAME_SWAP = 2  # Linux's and Apple's name for it
UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS)  # by file systems that cannot sync a folder
MISSING = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)  # not in this kernel, file system or sandbox


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders. False where that cannot be done here, and nothing has happened."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        failed = libc.renamex_np(*paths, RENAME_SWAP)
    elif hasattr(libc, "renameat2"):
        failed = libc.renameat2(HERE, paths[0], HERE, paths[1], RENAME_EXCHANGE)
    else:
        return False
    if failed and (code := ctypes.get_errno()) not in MISSING:
        raise OSError(code, os.strerror(code), str(one), None, str(other))
    return not failed


def is_mount(folder: Path) -> bool:
    """Bound folders, too, which `os.path.ismount` does not see."""
    if os.path.ismount(folder):
        return True
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return False
    points = (re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), line.split()[4]) for line in lines)
    return os.fsencode(folder) in points


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in UNSUPPORTED):
            raise
    finally:
        os.close(descriptor)


def clone(source: Path, target: Path) -> None:
    """Copy a file. Where the file system can (APFS, Btrfs, XFS) the copy shares its blocks until one of the two is
    written, and costs nothing."""
    if sys.platform == "darwin" and not ctypes.CDLL(None).clonefile(os.fsencode(source), os.fsencode(target), 0):
        return
    with source.open("rb") as read, target.open("wb") as write:
        if not _copy_range(read.fileno(), write.fileno(), os.fstat(read.fileno()).st_size):
            read.seek(0)
            write.truncate(0)
            shutil.copyfileobj(read, write, 1 << 20)


def _copy_range(source: int, target: int, size: int) -> bool:
    """Let the kernel copy. False where it cannot, and nothing but the start of `target` has changed."""
    if not hasattr(os, "copy_file_range"):
        return False
    done = 0
    try:
        while done < size and (count := os.copy_file_range(source, target, size - done, done, done)):
            done += count
    except OSError as error:
        if error.errno in (*MISSING, errno.EXDEV, errno.EBADF):
            return False
        raise
    return done == size
