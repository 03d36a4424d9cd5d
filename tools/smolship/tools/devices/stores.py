"""The folders of a device that take our files: what does not fit into one goes into the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from smolship.runtime.child import Progress
from smolship.runtime.errors import SetupError
from smolship.tools.devices.link import Link
from smolship.tools.devices.store import NoRoom, Store


class Stores:
    """`home`, the first of the folders, has the lock, the runs, and what is noted for later; `last` is the store that
    the last `put` filled."""

    def __init__(self, link: Link, folders: Sequence[str]):
        """folders  the best first; one at least"""
        self._stores = [Store(link, folder) for folder in folders]
        self._uri = link.uri
        self.folders, self.home = list(folders), folders[0]
        self.last = self._stores[0]

    def put(self, files: Mapping[str, Path], progress: Progress, beside: int = 0) -> str:
        """As Store.put, in the first folder that has room for what is missing there."""
        refused = []
        for store in self._stores:
            try:
                self.last = store
                return store.put(files, progress, beside)
            except NoRoom as error:
                refused.append(error.parts())
        raise SetupError(
            f"{self._uri}: push: not enough space on the device; nothing was sent",
            got="; ".join(str(one["got"]) for one in refused),
            expected=" or ".join(dict.fromkeys(str(one["expected"]) for one in refused)),
            todo=f"free some space there, or name a folder on another disk of it: {self._uri}/FOLDER",
        )
