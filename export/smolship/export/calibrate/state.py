"""What is saved on the way, and found again after an interruption."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np

from smolship.export.arrays import load, save

SECONDS = 20  # at least between two times that large state is saved


class State:
    """Arrays in files of a folder, by names; each is written whole or not at all. Without a folder none is kept, and
    none found."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.last = time.monotonic()

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """None where there are none, or they were cut off."""
        return None if self.folder is None else load(self.folder / f"{name}.npz")

    def save(self, name: str, **arrays: np.ndarray) -> None:
        if self.folder is None:
            return
        with contextlib.suppress(OSError):  # a full disk: what is interrupted begins again
            save(self.folder / f"{name}.npz", arrays)

    def due(self) -> bool:
        """Whether so much time has passed that large state is saved again."""
        if self.folder is None or time.monotonic() - self.last < SECONDS:
            return False
        self.last = time.monotonic()
        return True

    def clear(self) -> None:
        """What is done needs none of it."""
        for path in self.folder.glob("*.npz") if self.folder else ():
            path.unlink(missing_ok=True)
