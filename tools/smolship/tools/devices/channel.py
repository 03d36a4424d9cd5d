"""One framed script through a client's process: the frame goes in, what is the script's comes out, and nothing waits
longer than its limit."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from smolship.runtime.errors import SetupError
from smolship.tools.devices.link import LOST_S, Frame

LINGER_S = 1.0  # for what is still to come of standard error once the script has ended
MOST = 64 << 20  # bytes of an unfinished line
SLOWEST = 10_000  # bytes/s of a network
TAIL = 1 << 20  # bytes kept of standard error; 4,096 of what comes before the begin mark


@dataclass(frozen=True)
class Ended:
    """What was left when the client's process had ended or its time was over.

    status  of the script; None where the end mark did not come
    began   the begin mark came
    err     standard error
    noise   the last of standard output before the begin mark
    code    the client's own exit status; None where it was ended by us
    late    the time was over
    gone    why the device was taken for lost
    """

    status: int | None
    began: bool
    err: bytes
    noise: bytes
    code: int | None
    late: bool
    gone: str | None = None


class Output:
    """What a client prints: noise, the begin mark, the script's output, the end mark with its status."""

    def __init__(self, frame: Frame, hand: Callable[[bytes], None], by_line: bool, crlf: bool = False):
        """hand     gets the script's output, as lines without their newline, or as it comes
        crlf     a terminal on the way may end lines with CR and LF: they become LF
        """
        self._crlf, self._cr = crlf, b""
        self._begin, self._end = b"\n" + frame.begin + b"\n", b"\n" + frame.end + b" "
        self._hand, self._take = hand, self._lines if by_line else self._bytes
        self._held, self._blank = bytearray(b"\n"), False
        self.began, self.noise = False, b""
        self.status: int | None = None

    def take(self, chunk: bytes) -> None:
        if self._crlf:  # a CR at the chunk's end waits for what follows
            chunk = (self._cr + chunk).replace(b"\r\n", b"\n")
            self._cr = b"\r" if chunk.endswith(b"\r") else b""
            chunk = chunk.removesuffix(b"\r")
        self._held += chunk
        if not self.began:
            noise, mark, rest = self._held.partition(self._begin)
            if mark:
                self.began, self._held = True, rest
            keep = 0 if mark else len(self._begin)
            self.noise = (self.noise + bytes(noise[: len(noise) - keep]))[-4096:]
            if not mark:
                del self._held[: max(0, len(self._held) - keep)]
        if self.began and self.status is None:
            self._take()
            if len(self._held) > MOST:
                raise SetupError("the device prints a line without an end", expected=f"lines below {MOST:,} bytes")

    def rest(self) -> bytes:
        """All that came before the begin mark, where that has not come."""
        return (self.noise + bytes(self._held)).strip()[-4096:]

    def _bytes(self) -> None:
        at = self._held.find(self._end)
        if at < 0:  # the last newline may be the end mark's
            at = self._held.rfind(b"\n", max(0, len(self._held) - len(self._end)))
            at = at if at >= 0 and self._end.startswith(self._held[at:]) else len(self._held)
        if at:
            self._hand(bytes(self._held[:at]))
            del self._held[:at]
        if found := re.match(re.escape(self._end) + rb"([0-9]{1,3})\n", self._held):
            self.status = int(found[1])

    def _lines(self) -> None:
        *whole, self._held = self._held.split(b"\n")
        for line in whole:
            if found := re.fullmatch(re.escape(self._end[1:]) + rb"([0-9]{1,3})", line):
                self.status = int(found[1])  # the newline before it is the frame's
                return
            if self._blank:
                self._hand(b"")
            self._blank = not line
            if line:
                self._hand(bytes(line))


class Writer(threading.Thread):
    """Writes the frame, waits until the script runs, and writes what it reads. `error`: what the feed raised."""

    def __init__(self, pipe: IO[bytes], frame: Frame, feed: Iterable[bytes] | None):
        super().__init__(daemon=True, name="smolship-feed")
        self.began, self.over = threading.Event(), False
        self.error: Exception | None = None
        self._pipe, self._frame, self._feed = pipe, frame, feed

    def run(self) -> None:
        try:
            self._write(self._frame.text.encode())
            if self._feed is not None:
                self.began.wait()
                if not self.over:
                    for piece in self._feed:
                        if self.over:
                            break
                        self._write(piece)
        except OSError as error:
            self.error = None if isinstance(error, BrokenPipeError) else error
        except Exception as error:
            self.error = error
        finally:
            with contextlib.suppress(OSError):
                self._pipe.close()

    def stop(self) -> None:
        self.over = True
        self.began.set()

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            rest = rest[self._pipe.write(rest) :]


class Presence(Protocol):
    """Whether a device is still there: adb_pulse.Pulse."""

    def heard(self) -> None: ...

    def gone(self) -> str | None: ...


class Kept(bytearray):
    """What a script prints, as it comes; `uri` is the device's."""

    MOST = 64 << 20  # bytes

    def __init__(self, uri: str):
        super().__init__()
        self.uri = uri

    def take(self, piece: bytes) -> None:
        self.extend(piece)
        if len(self) > self.MOST:
            raise SetupError(f"{self.uri}: the device says too much", expected=f"at most {self.MOST:,} bytes")


def transfer_s(size: int) -> float:
    """Seconds that so many bytes may take: a minute, and 10 kB/s. A link that is lost is noticed long before; one that
    is slow (a phone's network, a tunnel) has to bring a whole piece over, or it never gets on."""
    return 60.0 + size / SLOWEST


def untransferred(uri: str, verb: str, got: str, expected: str) -> SetupError:
    """The refusal of a file that does not come through; `verb`: push or pull."""
    return SetupError(
        f"{uri}: {verb}: a file cannot be {'written' if verb == 'push' else 'read'} there",
        got=got,
        expected=expected,
        todo="free some space on the device, or choose another folder there",
    )


def unfinished(uri: str, limit_s: float, said: str) -> SetupError:
    """The refusal of a script that began and did not end."""
    return SetupError(
        f"{uri}: the device did not finish in time",
        got=f"{limit_s:.0f} s; {said}",
        expected="a device that is less busy, or a longer limit",
    )


def talk(
    command: Sequence[str],
    frame: Frame,
    hand: Callable[[bytes], None],
    *,
    by_line: bool,
    feed: Iterable[bytes] | None,
    limit_s: float,
    begin_s: float = LOST_S,
    crlf: bool = False,
    pulse: Presence | None = None,
) -> Ended:
    """Run a client whose standard input is the device's /bin/sh.

    hand     gets the script's output, see `Output`; called by this thread
    feed     the script's standard input; taken by another thread, which is told to stop when the script has ended, and
             stops at the feed's next piece
    limit_s  for all of it; `begin_s` until the script begins
    crlf     see `Output`
    pulse    asks whether the device is there once the script runs; None: the client does

    The client sees no terminal: it gets a session of its own. What `hand` or `feed` raise ends it.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        raise no_client(command[0], error) from None
    assert process.stdin and process.stdout and process.stderr
    output, err = Output(frame, hand, by_line, crlf), bytearray()
    writer = Writer(process.stdin, frame, feed)
    late, gone = False, None
    start = time.monotonic()
    over = start + limit_s
    try:
        writer.start()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stderr, selectors.EVENT_READ)
            linger = False
            while selector.get_map() and not (late or gone or writer.error):
                until = over if output.began else min(over, start + begin_s)
                for key, _ in selector.select(max(0.0, min(0.2, until - time.monotonic()))):
                    chunk = os.read(key.fd, 1 << 16)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stdout:
                        output.take(chunk)
                    else:
                        err += chunk
                        del err[: max(0, len(err) - TAIL)]
                    if pulse and chunk:
                        pulse.heard()
                if output.began:
                    writer.began.set()
                    gone = pulse.gone() if pulse and not linger else None
                if not linger and (output.status is not None or process.stdout not in _open(selector)):
                    linger, over = True, min(over, time.monotonic() + LINGER_S)
                late = time.monotonic() >= until and not linger
                if linger and time.monotonic() >= over:
                    break
        code = _wait(process) if linger else None
    finally:
        writer.stop()
        end(process)
        writer.join(0.2)
        process.stdout.close()
        process.stderr.close()
    if writer.error:
        raise writer.error
    noise = output.rest() if not output.began else b""
    return Ended(output.status, output.began, bytes(err), noise, code, late, gone)


def _open(selector: selectors.BaseSelector) -> list[object]:
    return [key.fileobj for key in selector.get_map().values()]


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit status, where it ends by itself."""
    try:
        return process.wait(0.2)
    except subprocess.TimeoutExpired:
        return None


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours: TERM, a second, KILL."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def no_client(program: str, error: OSError) -> SetupError:
    return SetupError(
        f"{program} cannot be started", got=error, expected=f"the system's {program} in PATH", todo=f"install {program}"
    )
