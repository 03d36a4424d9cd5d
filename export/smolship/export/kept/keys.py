"""What the result of a step depends on: what it is asked for, the content of the files that it reads, the packages that
it uses, the sources of smolship itself, Python and the machine.

A step is given nothing that is not here (steps.py), but for the folders that it reads and writes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import smolship.export
import smolship.runtime
from smolship.export.checkpoints import Checkpoint
from smolship.runtime.files import open_file

BLOCK = 1 << 23  # bytes between two lines of progress
LONG = 200  # characters, above which a text stands in a key by its hash
OURS = (smolship.export, smolship.runtime)


def content(checkpoint: Checkpoint, progress: Callable[[str, int, int], None]) -> str:
    """What names a checkpoint: SHA-256 over its config.json and the files that hold its weights; of a GGUF file, over
    the whole of it. Other names, and other ways to be stored, count as another.

    It is computed anew in every export: a second for each GB, where sizes and times of files can be the same although
    they changed, and would have to be trusted.
    """
    paths = files_of(checkpoint)
    total, done, hashes = sum(path.stat().st_size for path in paths), 0, hashlib.sha256()
    for path in paths:
        hashed = hashlib.sha256()
        with open_file(path, path.name) as file:
            while block := file.read(BLOCK):
                hashed.update(block)
                done += len(block)
                progress(f"hash of {path.name}", min(done, total - 1), total)
        hashes.update(hashed.digest())
    progress("done", total, total)
    return hashes.hexdigest()


def files_of(checkpoint: Checkpoint) -> list[Path]:
    """What `content` reads."""
    if not checkpoint.path.is_dir():
        return [checkpoint.path]
    return [checkpoint.path / name for name in ("config.json", *checkpoint.weights)]


def state(checkpoint: Checkpoint) -> list[tuple[int, ...]]:
    """What differs where one of those files was written in the meantime."""
    found: list[tuple[int, ...]] = []
    for path in files_of(checkpoint):
        with contextlib.suppress(OSError):  # gone
            info = path.stat()
            found.append((info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns))
    return found


def key(asked: Mapping[str, Any], reads: Mapping[str, object], packages: Iterable[str]) -> dict[str, Any]:
    """All that a step depends on. `asked` are its own arguments, `reads` stand for the files that it reads."""
    uses = {name: version for name in sorted({*packages, "numpy", "smolship"}) if (version := _version(name))}
    return {
        "asked": _short(json.loads(json.dumps(asked))),
        "reads": {name: value if isinstance(value, str) else digest(value) for name, value in reads.items()},
        "packages": uses,
        "sources": sources(),
        "python": platform.python_version(),
        "machine": f"{sys.platform} {platform.machine()}",
    }


def digest(value: object) -> str:
    """Of bytes, of files by name, or of whatever its repr tells wholly."""
    if isinstance(value, Mapping):
        value = [(name, hashlib.sha256(content).hexdigest()) for name, content in sorted(value.items())]
    raw = value if isinstance(value, bytes) else repr(value).encode(errors="surrogatepass")
    return hashlib.sha256(raw).hexdigest()


@functools.cache
def sources() -> str:
    """Of every module that steps may import, so that no changed one takes what an older one has made."""
    hashed = hashlib.sha256()
    for package in OURS:
        for root in map(Path, package.__path__):
            for path in sorted(root.rglob("*.py")):
                hashed.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return hashed.hexdigest()


@functools.cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > LONG:
        return f"sha256 {hashlib.sha256(value.encode(errors='surrogatepass')).hexdigest()}"
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    return [_short(one) for one in value] if isinstance(value, list) else value
