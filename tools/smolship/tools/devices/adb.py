"""A link to a phone, by the system's own adb client.

One adb call a script: the device's shell sees the word `sh`, the script goes through its standard input. Files go by
adb's sync alone, which is the only way that is binary on every device. Devices without `shell_v2` (Android 6 and older)
have a terminal in between: it echoes, lines end with CR LF, standard error is in the output, the status is always 0.
There, lines are read both ways, standard error goes through a file, the status is the frame's.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from smolship.runtime.disk import writing
from smolship.runtime.errors import InputError, SetupError, clip
from smolship.runtime.files import regular_file
from smolship.tools.devices.adb_pulse import Pulse
from smolship.tools.devices.adb_server import Client, Listed, find_client, unusable
from smolship.tools.devices.channel import Ended, Kept, talk, transfer_s, unfinished, untransferred
from smolship.tools.devices.link import LOST_S, Done, Link, LinkLost, device_path, fetched_size, framed, quote
from smolship.tools.devices.uri import SERIAL, Address

SCRATCH = "/data/local/tmp"  # what adb's user may write on every phone
# An old adbd gives every shell a terminal. One whose output is a pipe does not edit what it reads, prompts for nothing
# and has no job control.
OLD_SHELL = "sh 2>&1 | cat"
SETTLE_S = 3.0  # for a state that passes by itself
WIRELESS = re.compile(r".+:[0-9]{1,5}|.+\._tcp\.?")


def devices(*, server_port: int | None = None) -> list[Listed]:
    """What `adb devices -l` lists. Raises SetupError where there is no adb, or a server of another version."""
    client = find_client(server_port)
    client.check_server()
    return client.devices()


def connect(address: Address, *, server_port: int | None = None) -> ADBLink:
    """Connect to the phone that the address names, else ANDROID_SERIAL, else the only one.

    server_port  of adb's server; None: adb's own choice

    Raises SetupError with the state's own cure, InputError where several phones are there and none is named.
    """
    client = find_client(server_port)
    client.check_server()
    serial, named = address.serial, os.environ.get("ANDROID_SERIAL", "")
    if not serial and named:
        if not SERIAL.fullmatch(named):
            raise InputError("ANDROID_SERIAL is not a serial", got=named, expected="a serial of `adb devices`")
        serial = named
        print(f"{address.uri}: ANDROID_SERIAL names the phone: {serial}", file=sys.stderr)
    listed = client.devices()
    if not serial:
        if len(listed) > 1:
            raise InputError(
                f"{address.uri}: connect: several phones, and none is named",
                got=", ".join(map(str, listed)),
                expected="one of " + ", ".join(f"adb://{device.serial}" for device in listed),
            )
        if not listed:
            raise _missing(address.uri, "no phone", listed)
        serial = listed[0].serial
    _check_named(address.uri, serial, listed)
    found, said = _state(listed, serial), ""
    if WIRELESS.fullmatch(serial) and (found is None or found.state == "offline"):
        _, said = client.call("connect", serial)
        listed = client.devices()
        found = _state(listed, serial)
    until = time.monotonic() + SETTLE_S
    while found and found.state in ("authorizing", "connecting") and time.monotonic() < until:
        time.sleep(0.2)
        listed = client.devices()
        found = _state(listed, serial)
    if found is None:
        raise _missing(address.uri, " ".join(f"{serial} {said}".split()), listed)
    if found.state != "device":
        raise unusable(address.uri, found)
    status, text = client.call("-s", serial, "features")
    if status:
        raise LinkLost(f"{address.uri}: connect: the phone does not answer", got=text, todo="adb devices -l")
    return ADBLink(address.uri, client, serial, "shell_v2" in text.split())


def _share(size: int, moved: Callable[[int], None], percent: int) -> None:
    moved(size * percent // 100)


def _state(listed: list[Listed], serial: str) -> Listed | None:
    return next((device for device in listed if device.serial == serial), None)


def _check_named(uri: str, serial: str, listed: list[Listed]) -> None:
    """Raise SetupError where adb could not tell which phone is meant."""
    same = [device for device in listed if device.serial == serial]
    if same and all(device.state.startswith("no permissions") for device in same):  # nor may its number be read
        raise unusable(uri, same[0])
    if len(same) > 1:
        raise SetupError(
            f"{uri}: connect: several phones have that serial number",
            got=", ".join(f"{device}, at {device.facts.get('usb', 'an unknown place')}" for device in same),
            expected="one of each number, which is how adb names them",
            todo="unplug all but one",
        )
    if same and not SERIAL.fullmatch(serial):
        raise SetupError(
            f"{uri}: connect: adb cannot name the phone",
            got=serial,
            expected="a serial number of letters and digits",
            todo="connect it by the network in place of the cable: adb -t "
            f"{same[0].facts.get('transport_id', 'ID')} tcpip 5555, then adb://ADDRESS:5555",
        )


def _missing(uri: str, wanted: str, listed: list[Listed]) -> SetupError:
    return SetupError(
        f"{uri}: connect: no such phone",
        got=f"{wanted}; adb lists {', '.join(map(str, listed)) or 'none'}",
        expected="a phone in `adb devices`",
        todo="plug it in, turn on USB debugging (Settings, Developer options), unlock it, then run it again",
    )


class ADBLink(Link):
    """See `connect`. `serial` is adb's name of the phone; `shell_v2`: standard error and input's end are passed."""

    def __init__(self, uri: str, client: Client, serial: str, shell_v2: bool):
        self.uri, self.serial, self.shell_v2 = uri, serial, shell_v2
        self._client = client

    def run(
        self,
        script: str,
        *,
        feed: Iterable[bytes] | None = None,
        lines: Callable[[bytes], None] | None = None,
        limit_s: float,
    ) -> Done:
        """See `Link.run`. Without shell_v2 a feed must be lines, and its end is not seen there."""
        out = Kept(self.uri)
        errors = None if self.shell_v2 else f"{SCRATCH}/smolship-{secrets.token_hex(8)}.err"
        if errors:
            script = f"(\n{script}\n) 2>{quote(errors)}{'' if feed is not None else ' </dev/null'}"
        ended = self._talk(script, lines or out.take, lines is not None, feed, limit_s)
        assert ended.status is not None
        err = ended.err
        if errors:
            took = bytearray()
            self._talk(f"cat {quote(errors)} 2>/dev/null; rm -f {quote(errors)}", took.extend, False, None, LOST_S)
            err = bytes(took)
        return Done(ended.status, bytes(out), err)

    def push(self, content: Path, to: str, sent: Callable[[int], None] = lambda count: None) -> None:
        size = regular_file(content, content.name)
        part = f"{device_path(to)}.{secrets.token_hex(4)}.part"
        try:
            self._sync("push", str(content.absolute()), part, size, f"{size:,} bytes at {to}", sent)
            self._arrived(part, to, size)
        except LinkLost:
            raise
        except SetupError:
            with contextlib.suppress(SetupError):
                self.run(f"rm -f {quote(part)}", limit_s=LOST_S)
            raise

    def pull(self, path: str, into: Path) -> None:
        done = self.run(f"wc -c <{quote(device_path(path))}", limit_s=LOST_S)
        size = fetched_size(self.uri, path, done)
        part = into.absolute().with_name(f".{into.name}.{secrets.token_hex(4)}.part")
        try:
            with writing(into):
                part.touch()
                self._sync("pull", path, str(part), size, f"{size:,} bytes of {path}")
                if (got := part.stat().st_size) != size:
                    raise SetupError(f"{self.uri}: pull: a file came incomplete", got=got, expected=f"{size} bytes")
                part.replace(into)
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is held: the connection is adb's server's."""

    def _arrived(self, part: str, to: str, size: int) -> None:
        script = f"""
        size=$(($(wc -c <{quote(part)}))) && [ "$size" -eq {size} ] || {{ echo "$size bytes arrived" >&2; exit 1; }}
        mv -f {quote(part)} {quote(to)}
        """
        done = self.run(script, limit_s=LOST_S)
        if done.status:
            raise SetupError(
                f"{self.uri}: push: a file did not arrive",
                got=clip(done.err.decode("utf-8", "replace")),
                expected=f"{size:,} bytes at {to}",
                todo="free some space on the device, or choose another folder there",
            )

    def _sync(
        self, verb: str, source: str, target: str, size: int, expected: str, moved: Callable[[int], None] | None = None
    ) -> None:
        """Twice where the link was lost and came back."""
        for again in (False, True):
            with self._pulse() as pulse:
                words, limit_s = ("-s", self.serial, verb, source, target), transfer_s(size)
                try:
                    percent = partial(_share, size, moved) if moved else None
                    status, text = self._client.call(*words, limit_s=limit_s, pulse=pulse, percent=percent)
                except LinkLost as error:
                    raise self._lost(f"{verb}: the phone is silent", error.parts()["got"] or "") from None
            if status == 0:
                return
            if self._alive():
                raise untransferred(self.uri, verb, text, expected)
            if again or not self._reconnect():
                raise self._lost(f"{verb}: the link ended before the file's end", text)

    def _pulse(self) -> Pulse:
        return Pulse(self._client.command("-s", self.serial, "shell"))

    def _alive(self) -> bool:
        found = _state(self._client.devices(), self.serial)
        return found is not None and found.state == "device"

    def _reconnect(self) -> bool:
        if not WIRELESS.fullmatch(self.serial):
            return False
        self._client.call("disconnect", self.serial)
        self._client.call("connect", self.serial)
        return self._alive()

    def _talk(
        self, script: str, hand: Callable[[bytes], None], by_line: bool, feed: Iterable[bytes] | None, limit_s: float
    ) -> Ended:
        """A script that did not begin, its link being lost, is sent again once the link is back."""
        words = ("-s", self.serial, "shell", *(("-T", "exec sh") if self.shell_v2 else (OLD_SHELL,)))
        for again in (False, True):
            with self._pulse() as pulse:
                ended = talk(
                    self._client.command(*words),
                    framed(script),
                    hand,
                    by_line=by_line,
                    feed=feed,
                    limit_s=limit_s,
                    crlf=not self.shell_v2,
                    pulse=pulse,
                )
            if ended.status is not None:
                return ended
            if ended.late and ended.began:
                raise unfinished(self.uri, limit_s, clip(ended.err.decode("utf-8", "replace")))
            if ended.gone:
                raise self._lost("the phone is silent", ended.gone)
            back = not self._alive() and self._reconnect()
            if ended.began or again or not back:
                break
        what = "the link ended before the script did" if ended.began else "the link ended before the script began"
        raise self._lost(what, (ended.noise + b" " + ended.err).decode("utf-8", "replace"))

    def _lost(self, what: str, said: str) -> LinkLost:
        return LinkLost(
            f"{self.uri}: {what}",
            got=said.strip() or "nothing was printed",
            expected="the phone at the other end until the end",
            todo="check the cable or the network and `adb devices`, then run it again",
        )
