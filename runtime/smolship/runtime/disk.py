"""Disks that are full, files that may not grow and folders that cannot be written: one refusal each, which names the
file, what it needs and what there is."""

from __future__ import annotations

import contextlib
import errno
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from smolship.runtime.errors import SetupError, SmolshipError, clip

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full for you: the quota is used up",
    errno.EFBIG: "a file may not grow so large",
}
FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EPERM)


@contextlib.contextmanager
def disk_errors(where: Path | None = None) -> Iterator[None]:
    """Turns a full disk, a quota, a limit of file sizes or a read-only folder into a `SetupError`.

    where   the folder that is written to, where that is known. Libraries hide a failed write behind exceptions of their
            own, and Python's do not say which file it was: the folder is looked at then.
    """
    try:
        yield
    except SmolshipError:
        raise
    except Exception as error:
        if code := _disk_code(error, where):
            raise full_disk(error, code, where) from None
        if isinstance(error, OSError) and error.errno in FORBIDDEN:
            raise SetupError("cannot write there", got=error, todo="choose another output folder") from None
        if isinstance(error, FileNotFoundError) and "usable temporary directory" in str(error):
            raise SetupError(
                "no room for temporary files",
                got=error.args[-1],
                todo="free some space, or set TMPDIR to a folder with room",
            ) from None
        raise


@contextlib.contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[None]:
    """Names the file `path`, and the `size` in bytes that it needs, where it cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise full_disk(error, error.errno, path.parent, path, size) from None
        raise


def full_disk(
    error: object, code: int, where: Path | None = None, path: Path | None = None, size: int | None = None
) -> SetupError:
    """The refusal where writing failed by `code`, one of `FULL`: which file, what it needs, what there is."""
    named = getattr(error, "filename", None)
    path = path or (Path(named) if isinstance(named, str) else None)
    place = path.parent if path else where
    if place and not path:
        path = _newest(place)
    what = FULL[code]
    if path:
        what += f": {path}"
        what += f" needs {size:,} bytes" if size else f" needs more than its {_size(path):,} bytes"
    limit = size_limit()
    if code == errno.EFBIG and limit is not None:
        what += f", and the limit of this process (ulimit -f) is {limit:,}"
    elif place:
        what += f", and {_free(place):,} are free there"
    todo = {
        errno.ENOSPC: "free some space, or choose a folder on another disk; then run it again",
        errno.EDQUOT: "remove files of yours, or choose a folder on another disk; then run it again",
        errno.EFBIG: "raise the limit (ulimit -f), or choose a file system that holds larger files",
    }
    return SetupError(clip(what, 1000), got=error, todo=todo[code])


LITTLE = 64 << 10  # bytes free, below which a disk is full for any file of ours


def _disk_code(error: BaseException, where: Path | None) -> int | None:
    """The code of `FULL` that an exception comes from, if any."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.errno in FULL:
            return chain.errno
        if isinstance(chain, subprocess.CalledProcessError) and chain.returncode == -signal.SIGXFSZ:
            return errno.EFBIG
        chain = chain.__cause__ or chain.__context__
    return full(where) if where else None


def full(where: Path) -> int | None:
    """The code of `FULL` by which what is written below the folder `where` fails by now, if any."""
    with contextlib.suppress(OSError):
        if _free(where) < LITTLE:
            return errno.ENOSPC
        limit, newest = size_limit(), _newest(where)
        if limit is not None and newest and _size(newest) + LITTLE > limit:
            return errno.EFBIG
    return None


def _free(place: Path) -> int:
    return shutil.disk_usage(place).free


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _newest(where: Path) -> Path | None:
    """The file below `where` that was written last."""
    files = [path for path in where.rglob("*") if path.is_file() and not path.is_symlink()]
    return max(files, key=lambda path: path.stat().st_mtime_ns, default=None)


def size_limit() -> int | None:
    """How large a file this process may write, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit
