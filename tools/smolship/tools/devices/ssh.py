"""A link over SSH, by the system's own client.

One connection, a channel for each script. The login shell, whatever it is, sees the one word `/bin/sh`; scripts and
files go through that shell's standard input, so neither sftp nor scp is needed, and start files may print what they
want.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from smolship.runtime.disk import writing
from smolship.runtime.errors import InputError, SetupError, clip
from smolship.runtime.files import open_file, regular_file
from smolship.tools.devices import ssh_errors
from smolship.tools.devices.channel import Ended, Kept, talk, transfer_s, unfinished, untransferred
from smolship.tools.devices.link import LOST_S, MOST, Done, Link, LinkLost, device_path, fetched_size, framed, quote
from smolship.tools.devices.ssh_master import ASKED_S, SLOWEST_S, Master, options
from smolship.tools.devices.uri import Address

REFUSED = b"session request failed"  # by a server that allows few, while it has not yet let go of the last one
AGAIN_S = (1.0, 2.0, 4.0)  # after a connection that was closed before authentication
SIZE = re.compile(rb"[0-9]{1,15}")
BLOCK = 1 << 18  # bytes


def connect(address: Address, *, config: Path | None = None, ask: bool) -> SSHLink:
    """Connect.

    config  another file instead of ssh's own configuration
    ask     ssh may ask, once, on the terminal of this process; without one it does not

    Raises SetupError with the cure where the connection does not come to stand.
    """
    ask = ask and _terminal()
    waits = iter(AGAIN_S)
    # An older ssh does not know the option, and refuses it.
    more = ["-o", "ForkAfterAuthentication=no"] if ssh_errors.forks(options(address, config, ask), address.host) else []
    while True:
        master = Master(address, config, ask, more)
        try:
            start = time.monotonic()
            if master.wait(ASKED_S if ask else SLOWEST_S):
                return SSHLink(address, master)
            ended, said = master.gone(), master.said()
        except BaseException:
            master.close()
            raise
        master.close()
        wait = next(waits, None) if ended and ssh_errors.was_reset(said) else None
        if wait is None:
            waited = None if ended else time.monotonic() - start
            identity = ssh_errors.Identity()
            if ssh_errors.AUTH.search(said):
                identity = ssh_errors.read_identity(options(address, config, ask), address.host)
            raise ssh_errors.explain(address, said, identity, waited, ask)
        time.sleep(wait)


def _terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


class SSHLink(Link):
    """See `connect`."""

    def __init__(self, address: Address, master: Master):
        self.uri, self._place = address.uri, ssh_errors.where(address)
        self._master = master
        # The configuration was read by the connection. Without that one nothing else is tried: `false` ends at once.
        self._client = ["ssh", "-F", os.devnull, "-S", str(master.socket), "-o", "ControlMaster=no"]
        self._client += [
            "-o",
            "BatchMode=yes",
            "-o",
            "ProxyCommand=false",
            "-T",
            "-e",
            "none",
            "--",
            address.host,
            "/bin/sh",
        ]
        atexit.register(self.close)

    def run(
        self,
        script: str,
        *,
        feed: Iterable[bytes] | None = None,
        lines: Callable[[bytes], None] | None = None,
        limit_s: float,
    ) -> Done:
        out = Kept(self.uri)
        ended = self._talk(script, lines or out.take, lines is not None, feed, limit_s)
        assert ended.status is not None
        return Done(ended.status, bytes(out), ended.err)

    def push(self, content: Path, to: str, sent: Callable[[int], None] = lambda count: None) -> None:
        size = regular_file(content, content.name)
        target, part = quote(device_path(to)), quote(f"{to}.{secrets.token_hex(4)}.part")
        script = f"""
        trap 'rm -f {part}' EXIT
        cat >{part} || {{ df -kP "$(dirname {target})" >&2; exit 1; }}
        size=$(($(wc -c <{part}))) && [ "$size" -eq {size} ] || {{ echo "$size bytes arrived" >&2; exit 1; }}
        mv -f {part} {target}
        """
        with open_file(content, content.name) as file:
            ended = self._talk(script, _nothing, False, _pieces(file, size, content, sent), transfer_s(size))
        if ended.status:
            said = clip(ended.err.decode("utf-8", "replace"))
            raise untransferred(self.uri, "push", said, f"{size:,} bytes at {to}")

    def pull(self, path: str, into: Path) -> None:
        source = quote(device_path(path))
        start, part = bytearray(), into.with_name(f".{into.name}.{secrets.token_hex(4)}.part")
        size, got = -1, 0
        limit_s = transfer_s(fetched_size(self.uri, path, self.run(f"wc -c <{source}", limit_s=LOST_S)))
        try:
            with writing(into), part.open("wb") as file:

                def keep(piece: bytes) -> None:
                    nonlocal size, got, start
                    if size < 0:
                        start += piece
                        if b"\n" not in start and len(start) < 100:
                            return
                        first, _, rest = bytes(start).partition(b"\n")
                        if not SIZE.fullmatch(first.strip()):
                            raise self._unreadable(path, bytes(start), "no size")
                        size, piece = min(int(first), MOST), rest
                    piece = piece[: size - got]  # a file that grows is taken as it was
                    got += len(piece)
                    file.write(piece)

                ended = self._talk(f"size=$(wc -c <{source}) && echo $size && cat {source}", keep, False, None, limit_s)
            if ended.status or got != size:
                raise self._unreadable(path, ended.err, f"{got:,} of {size:,} bytes")
            with writing(into):
                part.replace(into)
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        atexit.unregister(self.close)
        self._master.close()

    def _unreadable(self, path: str, err: bytes, got: str) -> SetupError:
        said = clip(err.decode("utf-8", "replace"))
        return SetupError(f"{self.uri}: pull: a file cannot be read there", got=f"{got}; {said}", expected=path)

    def _talk(
        self, script: str, hand: Callable[[bytes], None], by_line: bool, feed: Iterable[bytes] | None, limit_s: float
    ) -> Ended:
        if self._master.gone():
            raise self._lost("the link has ended", b"", b"")
        start = time.monotonic()
        while True:
            ended = talk(self._client, framed(script), hand, by_line=by_line, feed=feed, limit_s=limit_s)
            if ended.began or REFUSED not in ended.err or time.monotonic() - start > LOST_S:
                break
            time.sleep(0.5)
        if ended.status is not None:
            return ended
        if ended.late and ended.began:
            raise unfinished(self.uri, limit_s, ssh_errors.last_lines(ended.err.decode("utf-8", "replace")))
        if ended.late:
            raise self._lost("no script was begun there in time; a start file may wait for something", ended.noise, b"")
        what = "the link ended before the script did" if ended.began else "the link ended before the script began"
        raise self._lost(what, ended.noise, ended.err)

    def _lost(self, what: str, noise: bytes, err: bytes) -> LinkLost:
        self._master.gone(0.2)  # its own last words come a moment later than the client's end
        parts = [raw.decode("utf-8", "replace") for raw in (noise, err)]
        said = [ssh_errors.last_lines(text) for text in (*parts, self._master.said()) if text.strip()]
        todo = "check the device and the network, then run it again"
        if not self._master.gone():
            todo = f"see what the login shell and its start files do there: ssh -T {self._place} /bin/sh"
        return LinkLost(
            f"{self.uri}: {what}",
            got=" | ".join(said) or "nothing was printed",
            expected="/bin/sh at the other end, until the script's end",
            todo=todo,
        )


def _nothing(piece: bytes) -> None:
    pass


def _pieces(file: BinaryIO, size: int, content: Path, sent: Callable[[int], None]) -> Iterator[bytes]:
    """Exactly `size` bytes; `sent` gets how many were taken."""
    left = size
    while left:
        piece = file.read(min(BLOCK, left))
        if not piece:
            raise InputError("a file became shorter while it was sent", got=content, todo="run it again")
        left -= len(piece)
        yield piece
        sent(size - left)
