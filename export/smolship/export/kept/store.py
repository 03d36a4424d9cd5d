"""The kept steps as one export uses them. What it takes or makes is held until it ends, so that no other removes it.

Nothing here ends an export: where a step cannot be kept, or what was kept cannot be used, it is said, and the step is
done as if there were no kept ones.

A file goes into the store as a second name of the same file, which costs nothing; what a user then does to the one in
his bundle shows by its hash. It comes out as a copy (of which file systems that can share blocks make none), so that
two bundles never share a file. The set of weights, which only we read, comes out as it went in.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smolship.export.kept import place
from smolship.export.kept.entries import (
    FILES,
    NAMES,
    RECORD,
    Record,
    entries,
    name_of,
    now,
    read_entry,
    remove,
    sweep,
    write_record,
)
from smolship.runtime.errors import SmolshipError, clip
from smolship.runtime.files import sha256
from smolship.runtime.filesystem import clone
from smolship.runtime.folders import lock, new_folder
from smolship.runtime.manifest import ListedFile

Say = Callable[[str], None]
WORK = ".work/"  # of a bundle that is being made: what does not stay


@dataclass(frozen=True)
class Asked:
    """One step: its kind, all that it depends on (keys.py), the model and the options in words."""

    kind: str
    key: dict[str, Any]
    model: str
    words: str

    @property
    def name(self) -> str:
        return name_of(self.kind, self.key)


@dataclass
class Store:
    """See `open_store`. Without a `root` nothing is kept; `why` says the reason where the user has not asked for it."""

    root: Path | None
    why: str = ""
    _held: dict[str, int] = field(default_factory=dict)

    def take(self, asked: Asked, into: Path, say: Say) -> Record | None:
        """The record of such a step, its files put into the folder `into`; None where none is kept."""
        if self.root is None or not (path := self.root / asked.name).exists():
            return None
        try:
            self._hold(asked.name)
            entry = read_entry(path)
            fault = "its record" if entry is None or entry.record.asked != asked.key else _put(entry.record, path, into)
        except OSError as error:
            say(f"what is kept of it cannot be taken: {_line(error)}")
            return None
        if not fault and entry:
            with contextlib.suppress(OSError):
                os.utime(path / RECORD)  # when it was used last
            return entry.record
        self._let_go(asked.name)
        remove(path)
        say(f"what was kept of it is damaged ({fault}), and was removed")
        return None

    def keep(self, asked: Asked, record: Record, names: Sequence[str], source: Path, say: Say) -> None:
        """Keep a step with its files, which lie in `source` by these names."""
        if self.root is None or (self.root / asked.name).exists():
            return
        try:
            size = sum((source / name).stat().st_size for name in names)
            if not self.make_room(size):
                say("not kept: it is larger than what may be kept (`smolship cache` says how much)")
                return
            with new_folder(self.root / asked.name, ours=NAMES) as folder:
                listed = {}
                for name in names:
                    link(source / name, folder / FILES / name)
                    listed[name] = ListedFile(size=(source / name).stat().st_size, sha256=sha256(source / name))
                write_record(folder, replace(record, files=listed))
            self._hold(asked.name)
        except (SmolshipError, OSError) as error:
            if not (self.root / asked.name).exists():  # another export was faster
                say(f"not kept: {_line(error)}")

    @contextlib.contextmanager
    def parts(self, asked: Asked, say: Say) -> Iterator[Path | None]:
        """A folder for the parts of a step that takes long: what lies there is found again where the step was
        interrupted, or where another has parts in common with it. It is for one export at a time; None where there is
        none, or another has it."""
        try:
            path, held = self._open_parts(asked)
        except BlockingIOError:
            path = None
            say("its parts are not kept: another export that runs measures the same")
        except (SmolshipError, OSError) as error:
            path = None
            say(f"its parts are not kept: {_line(error)}")
        if path is None:
            yield None
            return
        start = time.monotonic()
        try:
            yield path / FILES
        finally:
            with contextlib.suppress(OSError, SmolshipError):
                if entry := read_entry(path):
                    spent = entry.record.seconds + time.monotonic() - start
                    write_record(path, replace(entry.record, seconds=round(spent, 2)))
                self.make_room(0)
            os.close(held)

    def _open_parts(self, asked: Asked) -> tuple[Path | None, int]:
        """The folder, made where it is not there, and the descriptor that holds it locked."""
        if self.root is None:
            return None, -1
        path = self.root / asked.name
        if read_entry(path) is None:
            remove(path)  # damaged
            try:
                with new_folder(path, ours=NAMES) as folder:
                    (folder / FILES).mkdir()
                    write_record(folder, Record(asked.key, asked.model, asked.words, None, 0.0, None, now(), {}))
            except SmolshipError:
                if read_entry(path) is None:  # else another export was faster
                    raise
        return path, lock(path)

    def make_room(self, size: int) -> bool:
        """Remove those that were used longest ago, until `size` bytes more may be kept. Whether they may."""
        assert self.root
        found = entries(self.root)
        total = sum(entry.size for entry in found)
        most = place.limit(self.root, total)
        for entry in reversed(found if size <= most else []):
            if total + size <= most:
                break
            if remove(entry.path):
                total -= entry.size
        return total + size <= most

    def _hold(self, name: str) -> None:
        """Raises OSError where somebody removes it, or the file system knows no locks."""
        assert self.root
        if name not in self._held:
            self._held[name] = lock(self.root / name, shared=True)

    def _let_go(self, name: str) -> None:
        os.close(self._held.pop(name))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._held):
            self._let_go(name)


def open_store(wanted: bool = True) -> Store:
    """The store of this user, swept of what killed processes left; an empty one where none is wanted or to be had.
    Raises where the user has named a place that cannot be used."""
    if not wanted:
        return Store(None)
    place.given_limit()
    try:
        root = place.place()
        if root is None:
            return Store(None)
        place.make_place(root)
        sweep(root)
        store = Store(root)
        store.make_room(0)  # the disk may have less by now
    except (SmolshipError, OSError) as error:
        if place.is_named():
            raise place.unusable(error) if isinstance(error, OSError) else error from None
        return Store(None, _line(error))
    return store


def _put(record: Record, path: Path, into: Path) -> str:
    """Put the files of a step into a folder. None is there where one is damaged, which is returned, or where an OSError
    is raised."""
    with contextlib.ExitStack() as undo:
        for name, listed in record.files.items():
            source, target = path / FILES / name, into / name
            if not source.is_file():
                return name
            for folder in [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()][::-1]:
                folder.mkdir()
                undo.callback(folder.rmdir)
            undo.callback(target.unlink, missing_ok=True)
            (link if name.startswith(WORK) else clone)(source, target)
            if sha256(target) != listed.sha256:
                return name
        undo.pop_all()
    return ""


def link(source: Path, target: Path) -> None:
    """A second name of a file where the file system allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        clone(source, target)


def _line(error: BaseException) -> str:
    return clip(str(error).replace("\n", ";"), 200)
