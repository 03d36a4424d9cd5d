"""A folder that is made beside its place and takes it when it is complete, all at once.

While it is made it is called `.NAME.xxxxxxxx.partial` and locked by the process that makes it: what a killed one left
behind is known by its name, its content and by nobody's holding the lock, and goes when the next one begins.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from smolship.runtime.disk import FORBIDDEN, FULL, disk_errors, full_disk
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.files import NAME_LIMIT, look, must_fit
from smolship.runtime.filesystem import exchange, is_mount, sync
from smolship.runtime.manifest import NAME as LAST  # of the files that fill a folder: without it there is no bundle

PARTIAL = 18  # bytes that `.NAME.xxxxxxxx.partial` is longer than NAME
LONGEST_INSIDE = 128  # bytes of the longest path below a folder that we make, about


def must_be_empty(target: Path) -> None:
    """What `new_folder` may replace where nobody says otherwise."""
    if strangers := sorted(target.iterdir()):
        raise InputError("the folder is not empty", got=strangers[0], expected="a new folder")


@contextlib.contextmanager
def new_folder(
    target: Path, replaceable: Callable[[Path], None] = must_be_empty, ours: Collection[str] = ()
) -> Iterator[Path]:
    """A temporary folder that takes the place of `target` when the block ends well.

    replaceable  raises where the folder that lies at `target` must not be replaced; asked before and after the block
    ours         names that such a folder may hold; one that a killed process left goes only if it holds nothing else

    `target` is at every moment the old folder, or nothing, or the new one complete and written through to the disk. On
    any exception, Ctrl-C included, the temporary folder goes and `target` stays as it was.
    """
    target = destination(target, replaceable, ours)
    home = _home(target)
    with contextlib.ExitStack() as undo, disk_errors():
        _make_parents(home, undo)
        work, descriptor = _work_folder(home, target.name)
        undo.callback(os.close, descriptor)
        undo.callback(_remove, work)
        work.chmod(0o755)
        with disk_errors(work):
            yield work
            _sync_below(work)
        if home == target:
            _fill(work, target)
        else:
            if target.exists():
                replaceable(target)
            _take_place(work, target)
        sync(home)


def destination(path: Path, replaceable: Callable[[Path], None] = must_be_empty, ours: Collection[str] = ()) -> Path:
    """Where `path` really lies, swept of what killed processes left there. Raises, before any work, where no folder can
    be made there, or where one lies there that must not be replaced: InputError where that is the user's to mend,
    SetupError where it is the system's."""
    what = "the output folder"
    must_fit(path, what)
    info = look(path, what)
    if path.is_symlink():
        raise InputError(
            "the output is a link, not a folder",
            got=path,
            expected="a new folder, or an older bundle",
            todo="name the folder that it leads to",
        )
    if info is not None and not stat.S_ISDIR(info.st_mode):
        raise InputError("the output is not a folder", got=path, expected="a new folder, or an older bundle")
    try:
        target = Path(os.path.realpath(path))
    except OSError as error:
        raise InputError("the working folder is gone", got=error.strerror, todo="cd to one that is there") from None
    _check_length(target, what)
    for place in (target.parent, target):
        _sweep(place, target, ours)
    home = _home(target)
    if target.exists() and (home != target or _visible(target)):
        replaceable(target)
        if is_mount(target):
            raise InputError(
                "the output is a mount point that holds an older bundle",
                got=target,
                expected="an empty one, or a folder inside it: a mount point cannot be exchanged",
                todo="remove the old bundle's files, or choose a folder inside",
            )
    try_folder(home, what)
    return target


def _sweep(place: Path, target: Path, ours: Collection[str]) -> None:
    """Remove what killed processes left in `place` of their folders for `target`: those that nobody holds locked, and
    that are empty or hold nothing at their top but names that are `ours`. An old folder that was moved aside comes
    back where no new one took its place."""
    wanted = re.compile(re.escape(f".{_stem(target.name)}.") + r"[a-z0-9_]{8}\.(partial|old)")
    with contextlib.suppress(OSError):  # no such place, or one that may not be read
        for left in [path for path in place.iterdir() if wanted.fullmatch(path.name)]:
            with contextlib.suppress(OSError):  # another's, or gone in the meantime
                if left.suffix == ".old" and not target.exists():
                    left.rename(target)
                else:
                    _sweep_one(left, ours)


def _sweep_one(left: Path, ours: Collection[str]) -> None:
    info = left.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or _names(left) - set(ours):
        return
    descriptor = lock(left)
    try:
        _remove(left)
    finally:
        os.close(descriptor)


def _home(target: Path) -> Path:
    """The folder that the temporary one is made in: beside the target. Inside it where the target is empty and cannot,
    or should not, be replaced: a mount point, a folder in one that we may not write, the one that a shell stands in."""
    if target.is_dir() and not _visible(target):
        with contextlib.suppress(FileNotFoundError):  # the working folder may be gone
            if target.samefile(os.curdir):
                return target
        if is_mount(target) or not _may_replace(target):
            return target
    return target.parent


def _visible(folder: Path) -> list[str]:
    """What a folder holds, but for temporary folders."""
    with disk_errors():
        return sorted(name for name in _names(folder) if not name.endswith(".partial"))


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _may_replace(target: Path) -> bool:
    """Whether the folder `target` may be renamed."""
    parent = target.parent.stat()
    if not os.access(target.parent, os.W_OK | os.X_OK):
        return False
    return not parent.st_mode & stat.S_ISVTX or os.geteuid() in (0, parent.st_uid, target.stat().st_uid)


def _check_length(target: Path, what: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a system that does not tell
        room = os.pathconf("/", "PC_PATH_MAX") - PARTIAL - LONGEST_INSIDE
        if len(os.fsencode(target)) > room:
            raise InputError(
                f"the path of {what} is too long",
                got=f"{len(os.fsencode(target)):,} bytes",
                expected=f"at most {room:,}, for what lies inside",
            )


def try_folder(home: Path, what: str) -> None:
    """Raises where nothing can be made in `home`, or where it would be: makes a folder there, and removes it."""
    above = home
    while look(above, what) is None:
        above = above.parent
    if not above.is_dir():
        raise InputError(f"{what} cannot lie below a file", got=above, expected="a folder")
    try:
        Path(tempfile.mkdtemp(prefix=".smolship.", suffix=".partial", dir=above)).rmdir()
    except OSError as error:
        if error.errno in FULL:
            raise full_disk(error, error.errno, above) from None
        raise SetupError(
            f"cannot write in {above}", got=error.strerror or error, todo="choose another output folder, or allow it"
        ) from None


def _make_parents(home: Path, undo: contextlib.ExitStack) -> None:
    """The missing folders down to `home`, which go again where nothing comes to lie in them."""
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        undo.callback(_remove_empty, folder)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _stem(name: str) -> str:
    """`name`, or something that stands for it, short enough to be part of another name."""
    raw = os.fsencode(name)
    return name if len(raw) <= NAME_LIMIT - PARTIAL else hashlib.sha256(raw).hexdigest()


def _work_folder(home: Path, name: str) -> tuple[Path, int]:
    """A new folder, and the descriptor that holds it locked where the file system knows locks."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=f".{_stem(name)}.", suffix=".partial", dir=home))
        try:
            return work, lock(work)
        except (BlockingIOError, FileNotFoundError):
            continue  # somebody's sweep was faster than our lock, and removes it
        except OSError:
            return work, os.open(work, os.O_RDONLY)


def lock(folder: Path, shared: bool = False) -> int:
    """A descriptor that holds `folder` locked. Raises OSError where another holds it (not `shared`, or we not), or has
    removed it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise FileNotFoundError(errno.ENOENT, "another folder of that name", str(folder))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove(folder: Path) -> None:
    for below, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(below, 0o700)  # noqa: PTH101 - what may not be written cannot be emptied
    shutil.rmtree(folder, ignore_errors=True)


def _sync_below(work: Path) -> None:
    for path in sorted(work.rglob("*"), reverse=True):
        if not path.is_symlink() and (path.is_file() or path.is_dir()):
            sync(path)
    sync(work)


def _take_place(work: Path, target: Path) -> None:
    """`work` becomes `target`, and an old `target` becomes `work`: at once where the system can do that, else by way of
    a third name, and put back where that fails."""
    try:
        if not target.exists():
            work.rename(target)
        elif not exchange(work, target):
            _take_turns(work, target)
    except OSError as error:
        if error.errno in (*FULL, *FORBIDDEN):
            raise
        raise SetupError(
            f"the new folder cannot take the place of {target}",
            got=error,
            todo="choose another output folder; this one is as it was",
        ) from None


def _take_turns(work: Path, target: Path) -> None:
    old = work.with_suffix(".old")
    try:
        target.rename(old)
        work.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    old.rename(work)


def _fill(work: Path, target: Path) -> None:
    """Move the content of `work`, which lies in `target`, up into it, the manifest last."""
    if strangers := _visible(target):
        raise InputError(
            "something was put into the output folder meanwhile",
            got=f"{strangers[0]} in {target}",
            expected="an empty folder",
            todo="move it away, then export again",
        )
    moved: list[str] = []
    try:
        for name in sorted(_names(work), key=lambda name: name == LAST):
            moved.append(name)
            (work / name).rename(target / name)
    except BaseException:
        for name in moved:
            with contextlib.suppress(FileNotFoundError):
                (target / name).rename(work / name)
        raise
