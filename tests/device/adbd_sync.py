"""adb's sync, version 1: the files of the emulated phone."""

from __future__ import annotations

import os
import posixpath
import stat
import struct
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from tests.device.adbd import Adbd, Stream

TMP = "/data/local/tmp"


class Sync:
    """Version 1 of sync: STAT, LIST, RECV, SEND."""

    def __init__(self, stream: Stream, phone: Adbd):
        self.stream, self.phone = stream, phone

    def serve(self) -> None:
        while True:
            verb, size = struct.unpack("<4sI", self.stream.take(8))
            if verb == b"QUIT":
                return
            name = self.stream.take(size).decode()
            try:
                {b"STAT": self._stat, b"LIST": self._list, b"RECV": self._receive, b"SEND": self._send}[verb](name)
            except KeyError:
                self._fail(f"unknown request {verb!r}")
                return
            except OSError as error:
                if isinstance(error, ConnectionError):
                    raise
                self._fail(str(error.strerror))

    def _path(self, name: str) -> Path:
        there = posixpath.normpath("/" + name.lstrip("/"))
        if there.startswith(TMP + "/"):
            return self.phone.tmp / there[len(TMP) + 1 :]
        return Path(str(self.phone.root) + there)

    def _fail(self, text: str) -> None:
        self.stream.send(struct.pack("<4sI", b"FAIL", len(text)) + text.encode())

    def _stat(self, name: str) -> None:
        try:
            found = self._path(name).lstat()
            facts = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))
        except OSError:
            facts = (0, 0, 0)
        self.stream.send(struct.pack("<4s3I", b"STAT", *facts))

    def _list(self, name: str) -> None:
        folder = self._path(name)
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            found, word = path.lstat(), path.name.encode()
            size = found.st_size & 0xFFFFFFFF
            head = struct.pack("<4s4I", b"DENT", found.st_mode, size, int(found.st_mtime), len(word))
            self.stream.send(head + word)
        self.stream.send(struct.pack("<4s4I", b"DONE", 0, 0, 0, 0))

    def _receive(self, name: str) -> None:
        with self._path(name).open("rb") as file:
            while data := file.read(1 << 16):
                self.stream.send(struct.pack("<4sI", b"DATA", len(data)) + data)
        self.stream.send(struct.pack("<4sI", b"DONE", 0))

    def _send(self, words: str) -> None:
        name, _, mode = words.rpartition(",")
        path, problem = self._path(name), ""
        file: IO[bytes] | None = None
        if not name.startswith(TMP + "/"):
            problem = "Read-only file system"
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("wb")
        while True:
            verb, number = struct.unpack("<4sI", self.stream.take(8))
            if verb == b"DONE":
                break
            data = self.stream.take(number)
            if file and not problem:
                room = self.phone.quirks.room
                if room is not None and file.tell() + len(data) > room:
                    problem = "No space left on device"
                else:
                    file.write(data)
        if file:
            file.close()
            path.chmod(stat.S_IMODE(int(mode)) & 0o777)
            os.utime(path, (number, number))
            if self.phone.user is not None:
                os.chown(path, self.phone.user, self.phone.user)
        if problem:
            self._fail(problem)
        else:
            self.stream.send(struct.pack("<4sI", b"OKAY", 0))
