"""adbd's side of adb's protocol over TCP, for the real adb client: shell, shell_v2, exec and sync. An emulation of the
protocol, not of Android. Commands run in a root of their own (phone.py); files of sync are that root's."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.device.adbd_sync import TMP, Sync

CNXN, OPEN, OKAY, CLSE, WRTE, AUTH = (
    int.from_bytes(word, "little") for word in (b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE", b"AUTH")
)
TOKEN, PUBLIC_KEY = 1, 3  # kinds of AUTH
VERSION, LARGEST = 0x01000001, 1 << 18
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)  # packets of shell_v2


@dataclass
class Quirks:
    """shell_v2       False: as Android 6: CR LF, standard error in standard output, no exit status
    unauthorized   the key is never accepted
    offline        the connection is never answered
    cut_after      bytes received until the connection ends, once
    leaves         and then nobody listens any more
    room           bytes that sync can write; None: no limit
    terminal       without shell_v2, shells have a terminal: what is typed comes back
    frozen         nothing is read or answered any more, and nothing is closed
    """

    shell_v2: bool = True
    unauthorized: bool = False
    offline: bool = False
    cut_after: int | None = None
    leaves: bool = False
    room: int | None = None
    terminal: bool = False
    frozen: bool = False


class Stream:
    """One service on a connection: writes wait for the other side's OKAY."""

    def __init__(self, connection: Connection, local: int, remote: int):
        self.connection, self.local, self.remote = connection, local, remote
        self.pieces: queue.Queue[bytes | None] = queue.Queue()
        self.ready, self.open, self._held = threading.Semaphore(0), True, b""

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), self.connection.largest):
            if not self.open:
                raise ConnectionError
            self.connection.message(WRTE, self.local, self.remote, data[start : start + self.connection.largest])
            self.ready.acquire()

    def take(self, count: int) -> bytes:
        while len(self._held) < count:
            piece = self.pieces.get()
            if piece is None:
                raise ConnectionError
            self._held += piece
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def ended(self) -> None:
        self.open = False
        self.pieces.put(None)
        self.ready.release()

    def close(self) -> None:
        if self.open:
            self.open = False
            self.connection.message(CLSE, self.local, self.remote)


class Connection(threading.Thread):
    def __init__(self, link: socket.socket, phone: Adbd):
        super().__init__(daemon=True)
        self.link, self.phone, self.largest = link, phone, LARGEST
        self.streams: dict[int, Stream] = {}
        self._lock, self._count = threading.Lock(), 0

    def message(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = struct.pack("<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        while self.phone.quirks.frozen:
            time.sleep(0.05)
        with self._lock, contextlib.suppress(OSError):
            self.link.sendall(head + data)

    def _read(self, count: int) -> bytes:
        got = bytearray()
        while len(got) < count:
            piece = self.link.recv(min(1 << 16, count - len(got)))
            if not piece:
                raise ConnectionError
            got += piece
            self.phone.count(len(piece))
        return bytes(got)

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                command, first, second, size, _, magic = struct.unpack("<6I", self._read(24))
                if magic != command ^ 0xFFFFFFFF:
                    break
                self._handle(command, first, second, self._read(size))
        self.link.close()
        for stream in list(self.streams.values()):
            stream.ended()

    def _handle(self, command: int, first: int, second: int, data: bytes) -> None:
        quirks = self.phone.quirks
        if command in (CNXN, AUTH):
            if quirks.unauthorized:
                if command == CNXN or first != PUBLIC_KEY:  # the phone asks its user, who says nothing
                    self.message(AUTH, TOKEN, 0, os.urandom(20))
            elif not quirks.offline:
                self.largest = min(second, LARGEST)
                features = b"shell_v2,cmd" if quirks.shell_v2 else b"cmd"
                self.message(CNXN, VERSION, LARGEST, b"device::ro.product.model=emulated;features=" + features)
        elif command == OPEN:
            self._count += 1
            stream = self.streams[self._count] = Stream(self, self._count, first)
            service = data.rstrip(b"\0").decode()
            threading.Thread(target=self._serve, args=(stream, service), daemon=True).start()
        elif second in self.streams:
            stream = self.streams[second]
            if command == OKAY:
                stream.ready.release()
            elif command == WRTE:
                stream.pieces.put(data)
                self.message(OKAY, second, first)
            elif command == CLSE:
                self.streams.pop(second).ended()

    def _serve(self, stream: Stream, service: str) -> None:
        kind, _, words = service.partition(":")
        name, *options = kind.split(",")
        if name not in ("sync", "shell", "exec"):
            self.message(CLSE, 0, stream.remote)
            return
        self.message(OKAY, stream.local, stream.remote)
        with contextlib.suppress(ConnectionError):
            if name == "sync":
                Sync(stream, self.phone).serve()
            else:
                self._shell(stream, words, "v2" in options, name == "shell")
        stream.close()

    def _shell(self, stream: Stream, words: str, v2: bool, terminal: bool) -> None:
        if terminal and not v2 and self.phone.quirks.terminal:
            self._on_terminal(stream, words)
            return
        errors = subprocess.PIPE if v2 else subprocess.STDOUT
        process = subprocess.Popen(
            [*self.phone.enter, words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdin and process.stdout
        lock = threading.Lock()

        def pump(pipe: IO[bytes], number: int) -> None:
            with contextlib.suppress(ConnectionError):
                while data := os.read(pipe.fileno(), 1 << 16):
                    if not v2 and terminal:
                        data = data.replace(b"\n", b"\r\n")
                    with lock:
                        stream.send((struct.pack("<BI", number, len(data)) if v2 else b"") + data)

        def feed(pipe: IO[bytes]) -> None:
            try:
                while True:
                    number, size = struct.unpack("<BI", stream.take(5)) if v2 else (STDIN, 1)
                    data = stream.take(size)
                    if number == STDIN:
                        pipe.write(data)
                        pipe.flush()
                    elif number == CLOSE_STDIN:
                        pipe.close()
            except (ConnectionError, OSError, ValueError):
                if not stream.open:
                    self.phone.hang_up(process)
                    with contextlib.suppress(OSError):
                        pipe.close()

        pumps = [threading.Thread(target=pump, args=(process.stdout, STDOUT), daemon=True)]
        if process.stderr:
            pumps.append(threading.Thread(target=pump, args=(process.stderr, STDERR), daemon=True))
        threading.Thread(target=feed, args=(process.stdin,), daemon=True).start()
        for thread in pumps:
            thread.start()
        status = process.wait()
        for thread in pumps:
            thread.join()
        if v2:
            stream.send(struct.pack("<BIB", EXIT, 1, status & 255))

    def _on_terminal(self, stream: Stream, words: str) -> None:
        """A shell of Android 6: all that it reads and writes goes through a terminal, which echoes."""
        ours, theirs = os.openpty()
        process = subprocess.Popen(
            ["setsid", "--ctty", *self.phone.enter, words], stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)

        def feed() -> None:
            with contextlib.suppress(ConnectionError, OSError):
                while True:
                    os.write(ours, stream.take(1))

        typed = threading.Thread(target=feed, daemon=True)
        typed.start()
        with contextlib.suppress(ConnectionError, OSError):  # a terminal without programs ends with an error
            while data := os.read(ours, 1 << 12):
                stream.send(data)
        os.close(ours)  # who is still there is told by the kernel
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)


class Adbd:
    """Listens on a loopback port until `close`.

    enter    the words before a command's text
    tmp      the folder that is /data/local/tmp; None: it is in the root
    user     who has files that are pushed
    hang_up  ends a shell whose stream was closed
    """

    def __init__(
        self,
        root: Path,
        enter: Sequence[str],
        quirks: Quirks,
        *,
        tmp: Path | None = None,
        user: int | None = None,
        hang_up: Callable[[subprocess.Popen[bytes]], None] = subprocess.Popen.kill,
    ):
        self.root, self.enter, self.quirks, self.hang_up, self.user = root, enter, quirks, hang_up, user
        self.tmp = tmp or root / TMP.lstrip("/")
        self._server = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._server.accept()
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._links.append(link)
                Connection(link, self).start()

    def count(self, received: int) -> None:
        while self.quirks.frozen:
            time.sleep(0.05)
        if self.quirks.cut_after is not None:
            self.quirks.cut_after -= received
            if self.quirks.cut_after <= 0:
                self.quirks.cut_after = None
                if self.quirks.leaves:
                    self.close()
                else:
                    self.cut()

    def cut(self) -> None:
        """The cable is pulled; the phone still listens."""
        for link in self._links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        self._links.clear()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
