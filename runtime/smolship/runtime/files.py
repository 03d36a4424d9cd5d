"""Reading and writing files that may be hostile, huge, half-written or missing.

Whatever comes from outside and becomes a path goes through `look`, `inside` or `relative` first: a NUL, half a
surrogate pair, 5,000 characters or a link to itself make every call of the system fail in its own way.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO

from smolship.runtime import looks
from smolship.runtime.errors import InputError, SetupError, SmolshipError, clip, show

DANGLING = "fetch what it points to: a folder of the Hub's cache was copied without it, or its download was broken off"
JSON_LIMIT = 64 << 20  # bytes; the largest tokenizer.json in use is about 33 MB
NAME_LIMIT = 255  # bytes of one name, on every file system in use


def look(path: Path, what: str) -> os.stat_result | None:
    """What lies at `path`, links followed; None where nothing does. InputError where it can be no path, or cannot be
    asked."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{what} cannot be read", got=f"{_why_no_path(error)}: {path}",
                         expected="the path of something that is there") from None  # fmt: skip


def is_folder(path: Path, what: str) -> bool:
    """Whether a folder lies at `path`; see `look`."""
    info = look(path, what)
    return info is not None and stat.S_ISDIR(info.st_mode)


def must_fit(path: Path, what: str) -> None:
    """Raises where a name in `path`, of something that is to be made, can be no file's: `look` sees only as far as the
    path is there."""
    try:
        longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    except UnicodeEncodeError as error:
        raise InputError(f"the name of {what} can be no file's", got=error, expected="UTF-8") from None
    if longest > NAME_LIMIT:
        raise InputError(f"the name of {what} is too long", got=f"{longest:,} bytes",
                         expected=f"at most {NAME_LIMIT}")  # fmt: skip


def _why_no_path(error: Exception) -> str:
    if isinstance(error, OSError):
        words = {errno.ENAMETOOLONG: "a name that is too long", errno.ELOOP: "a link that leads back to itself"}
        return words.get(error.errno or 0, error.strerror or str(error))
    return "a name that no file can have (it holds a NUL, or half of a surrogate pair)"


def regular_file(path: Path, what: str) -> int:
    """Size in bytes of the regular file `path`. Refuses folders, broken links, FIFOs and devices without
    opening them (opening a FIFO would hang)."""
    info = look(path, what)
    if info is None:
        kind, todo = ("a link to nowhere", DANGLING) if path.is_symlink() else ("nothing", None)
        raise InputError(f"no {what}", got=f"{kind} at {path}", expected="a file", todo=todo)
    if not stat.S_ISREG(info.st_mode):
        raise InputError(f"{what} is not a regular file", got=path, expected="a regular file")
    return info.st_size


def open_file(path: Path, what: str) -> BinaryIO:
    """A regular file, opened to be read in pieces."""
    regular_file(path, what)
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{what} cannot be read", got=error, expected="a readable file") from None


def read_bytes(path: Path, what: str, limit: int = JSON_LIMIT) -> bytes:
    """The whole of a regular file of at most `limit` bytes."""
    size = regular_file(path, what)
    if size > limit:
        raise InputError(f"{what} is too large", got=f"{size:,} bytes in {path}", expected=f"at most {limit:,}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{what} cannot be read", got=error, expected="a readable file") from None


def read_text(path: Path, what: str, limit: int = JSON_LIMIT) -> str:
    """`read_bytes` as UTF-8."""
    try:
        return read_bytes(path, what, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not UTF-8", got=f"{error} in {path}", expected="UTF-8 text") from None


def parse_json(text: str | bytes, what: str, where: object) -> dict[str, Any]:
    """`text` as a JSON object; UTF-8 without a byte order mark, as every other reader of these files wants it."""
    try:
        value = json.loads(text if isinstance(text, str) else utf8(text, what, where))
    except (ValueError, RecursionError) as error:
        head = text[: looks.HEAD]
        found = looks.look(head if isinstance(head, bytes) else head.encode(errors="replace"))
        raise InputError(f"{what} is not valid JSON", got=f"{found.what if found else error} in {where}",
                         expected="a JSON object", todo=found.todo if found else None) from None  # fmt: skip
    if not isinstance(value, dict):
        raise InputError(
            f"{what} is not a JSON object", got=f"a {type(value).__name__} in {where}", expected="a JSON object"
        )
    if value and set(value) <= {"error", "errors", "detail", "message", "code", "status"}:
        raise InputError(f"{what} holds {looks.ERROR.what}", got=f"{show(value)} in {where}", todo=looks.ERROR.todo)
    return value


MARKS = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16",
         b"\xfe\xff": "UTF-16"}  # fmt: skip


def utf8(raw: bytes, what: str, where: object) -> str:
    """`raw` as the readers of these formats decode it: UTF-8 without a byte order mark. (json.loads alone would also
    take UTF-16 and a mark, and another reader fail on the file later.) Raises UnicodeDecodeError where it is binary."""
    mark, encoding = next(((mark, name) for mark, name in MARKS.items() if raw.startswith(mark)), (b"", ""))
    if mark and not raw[len(mark) :].lstrip(b"\0 \r\n\t").startswith(b"<"):  # a web page has a worse fault
        raise InputError(f"{what} is not plain UTF-8", got=f"the byte order mark of {encoding} in {where}",
                         expected="UTF-8, no byte order mark",
                         todo="save it as UTF-8 without a byte order mark")  # fmt: skip
    return raw.decode()


def read_json(path: Path, what: str, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """A JSON object from a regular file of at most `limit` bytes."""
    return parse_json(read_bytes(path, what, limit), what, path)


def inside(root: Path, name: str) -> Path:
    """`root / name`, refused where `name` is absolute, leaves `root` by `..` or through a link, or can be no name."""
    path = root / name
    try:
        real, home = Path(os.path.realpath(path)), Path(os.path.realpath(root))
        lexical = Path(name).is_absolute() or Path(os.path.normpath(name)).parts[:1] == (os.pardir,)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # that is for the reader to say
            path.stat()
    except (OSError, ValueError) as error:
        raise InputError("a file's name cannot be used", got=f"{_why_no_path(error)}: {name}",
                         expected=f"a path inside {root}") from None  # fmt: skip
    if lexical:
        raise InputError("a path leaves its folder", got=name, expected=f"a path inside {root}")
    if not real.is_relative_to(home):
        raise InputError("a path leaves its folder through a link", got=f"{name} -> {real}",
                         expected=f"real files inside {root}",
                         todo=f"copy it with the files that its links lead to: cp -rL {quote(str(root))} NEW_FOLDER "
                         "(the Hub gives real files by `hf download REPOSITORY --local-dir NEW_FOLDER`)")  # fmt: skip
    return path


def relative(name: str, what: str) -> str:
    """`name`, a path from an untrusted file in the one form that we write: names joined by slashes. Refused are empty
    names, `.` and `..`, and what no file system can hold."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise InputError("a path leaves its folder", got=name, expected=f"{what} inside the folder")
    try:
        long = max(len(part.encode()) for part in parts) > NAME_LIMIT
    except UnicodeEncodeError:
        long = True
    if long or "\0" in name or {"", "."} & set(parts):
        raise InputError(f"{what} cannot be used", got=repr(name),
                         expected=f"names of 1 to {NAME_LIMIT} bytes of UTF-8, joined by slashes")  # fmt: skip
    return name


def plain_name(name: str, what: str) -> str:
    """`name`, from an untrusted file, where it is the name of one file: `relative`, and no separator of any system."""
    if {"/", "\\"} & set(name) or not name.isprintable():
        raise InputError(f"{what} cannot be used", got=repr(name), expected="a plain name, such as onnx")
    return relative(name, what)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with open_file(path, path.name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


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
            raise SetupError("no room for temporary files", got=error.args[-1],
                             todo="free some space, or set TMPDIR to a folder with room") from None  # fmt: skip
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
