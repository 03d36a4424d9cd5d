"""A TCP proxy on a loopback port that counts connections, and resets, stalls or cuts them."""

from __future__ import annotations

import random
import socket
import struct
import threading
from dataclasses import dataclass, field

PIECE = 65536


def listen(host: str, port: int) -> socket.socket:
    """A listener; an IPv6 address may have its zone."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address, family=family)


def free_port(host: str) -> int:
    """A port that nobody has, below those that the kernel gives to clients, which could take it in between."""
    for port in random.sample(range(20_000, 32_000), 100):
        try:
            listen(host, port).close()
        except OSError:
            continue
        return port
    raise OSError("no free port")


def reset(connection: socket.socket) -> None:
    """Close with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@dataclass(eq=False)
class _Pair:
    """A client's connection and the server's."""

    client: socket.socket
    server: socket.socket
    cut: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Forwards connections to `target`, a port of the same host; without one it accepts and stays silent.

    connections   accepted so far
    most_at_once  open at the same time, at most
    passed        bytes forwarded, both ways
    """

    def __init__(
        self,
        host: str,
        target: int | None,
        *,
        resets: int = 0,
        cut_after: int | None = None,
        cuts: int = 1,
        stall_after: int | None = None,
    ) -> None:
        self.connections = self.most_at_once = self.passed = 0
        self._host, self._target, self._resets = host, target, resets
        self._cut_after, self._cuts, self._stall_after = cut_after, cuts, stall_after
        self._since_cut = 0
        self._lock, self._flows = threading.Lock(), threading.Event()
        self._pairs: set[_Pair] = set()
        self._silent: list[socket.socket] = []
        self._flows.set()
        self._listener = listen(host, 0)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Nothing is forwarded any more, and nothing is closed."""
        self._flows.clear()

    def resume(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """Reset every connection that is open. New ones work."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._cut(pair)

    def close(self) -> None:
        """Stop, with every connection cut."""
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        self.cut()
        for connection in self._silent:
            reset(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self._resets > 0:
                self._resets -= 1
                reset(client)
            elif self._target is None:
                self._silent.append(client)
            else:
                self._join(client, self._target)

    def _join(self, client: socket.socket, target: int) -> None:
        try:
            server = socket.create_connection((self._host, target), timeout=5)
        except OSError:
            reset(client)
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = _Pair(client, server)
        with self._lock:
            self._pairs.add(pair)
            self.most_at_once = max(self.most_at_once, len(self._pairs))
        threading.Thread(target=self._serve, args=(pair,), daemon=True).start()

    def _serve(self, pair: _Pair) -> None:
        back = threading.Thread(target=self._pump, args=(pair.server, pair.client, pair), daemon=True)
        back.start()
        self._pump(pair.client, pair.server, pair)
        back.join()
        with self._lock:
            self._pairs.discard(pair)
        for end in (pair.client, pair.server):
            if pair.cut.is_set():
                reset(end)
            else:
                end.close()

    def _pump(self, source: socket.socket, sink: socket.socket, pair: _Pair) -> None:
        try:
            while data := source.recv(PIECE):
                self._count(len(data), pair)
                while not self._flows.wait(0.05) and not pair.cut.is_set():
                    pass
                if pair.cut.is_set():
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._cut(pair)

    def _count(self, size: int, pair: _Pair) -> None:
        with self._lock:
            self.passed += size
            self._since_cut += size
            cut = self._cut_after is not None and self._cuts > 0 and self._since_cut >= self._cut_after
            if cut:
                self._cuts -= 1
                self._since_cut = 0
            if self._stall_after is not None and self.passed >= self._stall_after:
                self._stall_after = None
                self._flows.clear()
        if cut:
            self._cut(pair)

    @staticmethod
    def _cut(pair: _Pair) -> None:
        pair.cut.set()
        for end in (pair.client, pair.server):
            try:
                end.shutdown(socket.SHUT_RD)  # wakes recv() and sends nothing; the reset follows when both have ended
            except OSError:
                continue
