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
import stat
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO

from smolship.runtime import looks
from smolship.runtime.errors import InputError, show

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
        raise InputError(
            f"{what} cannot be read",
            got=f"{_why_no_path(error)}: {path}",
            expected="the path of something that is there",
        ) from None


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
        raise InputError(f"the name of {what} is too long", got=f"{longest:,} bytes", expected=f"at most {NAME_LIMIT}")


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
        raise InputError(
            f"{what} is not valid JSON",
            got=f"{found.what if found else error} in {where}",
            expected="a JSON object",
            todo=found.todo if found else None,
        ) from None
    if not isinstance(value, dict):
        raise InputError(
            f"{what} is not a JSON object", got=f"a {type(value).__name__} in {where}", expected="a JSON object"
        )
    if value and set(value) <= {"error", "errors", "detail", "message", "code", "status"}:
        raise InputError(f"{what} holds {looks.ERROR.what}", got=f"{show(value)} in {where}", todo=looks.ERROR.todo)
    return value


MARKS = {
    b"\xef\xbb\xbf": "UTF-8",
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def utf8(raw: bytes, what: str, where: object) -> str:
    """`raw` as the readers of these formats decode it: UTF-8 without a byte order mark. (json.loads alone would also
    take UTF-16 and a mark, and another reader fail on the file later.) Raises UnicodeDecodeError where it is binary."""
    mark, encoding = next(((mark, name) for mark, name in MARKS.items() if raw.startswith(mark)), (b"", ""))
    if mark and not raw[len(mark) :].lstrip(b"\0 \r\n\t").startswith(b"<"):  # a web page has a worse fault
        raise InputError(
            f"{what} is not plain UTF-8",
            got=f"the byte order mark of {encoding} in {where}",
            expected="UTF-8, no byte order mark",
            todo="save it as UTF-8 without a byte order mark",
        )
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
        raise InputError(
            "a file's name cannot be used", got=f"{_why_no_path(error)}: {name}", expected=f"a path inside {root}"
        ) from None
    if lexical:
        raise InputError("a path leaves its folder", got=name, expected=f"a path inside {root}")
    if not real.is_relative_to(home):
        raise InputError(
            "a path leaves its folder through a link",
            got=f"{name} -> {real}",
            expected=f"real files inside {root}",
            todo=f"copy it with the files that its links lead to: cp -rL {quote(str(root))} NEW_FOLDER "
            "(the Hub gives real files by `hf download REPOSITORY --local-dir NEW_FOLDER`)",
        )
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
        raise InputError(
            f"{what} cannot be used",
            got=repr(name),
            expected=f"names of 1 to {NAME_LIMIT} bytes of UTF-8, joined by slashes",
        )
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
