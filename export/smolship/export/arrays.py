"""Arrays in a file that is written whole or not at all, for what an interrupted run takes up again."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def load(path: Path) -> dict[str, np.ndarray] | None:
    """None where there are none, or they were cut off."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):
        return None


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises OSError."""
    half = path.with_suffix(".half.npz")
    np.savez(half, **arrays)  # type: ignore[arg-type]  # its own keyword, allow_pickle, is a bool
    half.replace(path)
