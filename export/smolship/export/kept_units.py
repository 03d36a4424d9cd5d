"""Units of probes that were made, in a folder, and the state of one that was interrupted."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from smolship.export.stream import InFile, Saved
from smolship.runtime.errors import InputError
from smolship.runtime.probes import Probes, Window


class KeptUnits:
    """Units by their names. Without a folder none is kept, and none found."""

    def __init__(self, folder: Path | None, windows: Sequence[Window]):
        self.folder, self.windows = folder, windows

    def find(self, name: str) -> Probes | None:
        """A unit that ended. What cannot be read, or is of other text, is as if it were not there."""
        if self.folder is None or not (path := self.folder / f"{name}.npz").exists():
            return None
        try:
            part = Probes.load(path, whole=False)
        except InputError:
            return None
        same = [np.array_equal(a.ids, b.ids) for a, b in zip(part.windows, self.windows, strict=False)]
        return part if all(same) and len(part.windows) == len(self.windows) else None

    def keep(self, name: str, part: Probes) -> None:
        if self.folder is None:
            return
        half = self.folder / f"{name}.half.npz"
        with contextlib.suppress(OSError):  # a full disk: this unit is made again where it is wanted again
            part.save(half)
            half.replace(self.folder / f"{name}.npz")
            self._state(name).unlink(missing_ok=True)

    def saved(self, name: str) -> Saved:
        """Where the state of a unit is saved between layers."""
        return Saved() if self.folder is None else InFile(self._state(name))

    def _state(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.state.npz"
