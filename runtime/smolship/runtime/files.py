"""Reading and writing files that may be hostile, huge, half-written or missing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from smolship.runtime import looks
from smolship.runtime.errors import InputError, SetupError, show

DANGLING = "fetch what it points to: a folder of the Hub's cache was copied without it, or its download was broken off"
JSON_LIMIT = 64 << 20  # bytes; the largest tokenizer.json in use is about 33 MB


def regular_file(path: Path, what: str) -> int:
    """Size in bytes of the regular file `path`. Refuses folders, broken links, FIFOs and devices without
    opening them (opening a FIFO would hang)."""
    try:
        info = path.stat()
    except FileNotFoundError:
        kind, todo = ("a link to nowhere", DANGLING) if path.is_symlink() else ("nothing", None)
        raise InputError(f"no {what}", got=f"{kind} at {path}", expected="a file", todo=todo) from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL or half a surrogate pair
        raise InputError(f"{what} cannot be read", got=error, expected="a readable file") from None
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
    """`root / name`, refused where `name` is absolute or leaves `root` by `..` or through a link."""
    path = root / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise InputError("a path leaves its folder", got=name, expected=f"a path inside {root}")
    return path


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turns a full disk or a read-only folder into a `SetupError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SetupError("the disk is full", got=error, todo="free some space, then run it again") from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise SetupError("cannot write there", got=error, todo="choose another output folder") from None
        raise


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well.

    Files are synced before the rename, so that `target` is at every moment the old folder, or nothing, or the
    new one complete. On any exception, Ctrl-C included, the temporary folder goes and `target` stays as it was.
    """
    with disk_errors():
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            work.chmod(0o755)
            yield work
            for path in sorted(work.rglob("*")):
                if path.is_file():
                    _sync(path)
            _swap(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(work: Path, target: Path) -> None:
    """`work` becomes `target`; an old `target` is moved aside first and put back if the rename fails."""
    if not target.exists():
        work.rename(target)
        return
    old = work.with_suffix(".old")
    target.rename(old)
    try:
        work.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
