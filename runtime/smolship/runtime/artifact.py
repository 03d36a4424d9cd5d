"""The files of one artifact."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolship.runtime.files import inside, regular_file, sha256


def artifact_files(folder: Path, info: Mapping[str, Any]) -> list[Path]:
    """The artifact's file and those that its name begins (external weights); all in it, where it is a folder."""
    path = inside(folder, str(info.get("file")))
    if path.is_dir() and not path.is_symlink():
        return sorted(p for p in path.rglob("*") if p.is_file())
    regular_file(path, "artifact")
    return sorted(p for p in path.parent.iterdir() if p.name.startswith(path.name) and p.is_file())


def artifact_digest(folder: Path, info: Mapping[str, Any]) -> str:
    """One SHA-256 for them all."""
    return digest({path.relative_to(folder).as_posix(): sha256(path) for path in artifact_files(folder, info)})


def listed_digest(files: Mapping[str, str], file: str) -> str:
    """The same from a list of the folder's files, name -> SHA-256, of which `file` is the artifact's."""
    found = {name: hashed for name, hashed in files.items() if name.startswith(f"{file}/")}
    if not found:
        found = {name: files[name] for name in files if name.startswith(file) and "/" not in name[len(file) :]}
    return digest(found)


def digest(files: Mapping[str, str]) -> str:
    """SHA-256 over names, relative to the artifact's folder, and each file's own SHA-256."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()
