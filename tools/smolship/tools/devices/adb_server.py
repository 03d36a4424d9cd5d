"""The system's adb client and the server behind it: calls with a limit on time, the devices that it lists, and what
stands in the way of one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from smolship.runtime.errors import SetupError, clip
from smolship.tools.devices.adb_pulse import Pulse
from smolship.tools.devices.link import CONNECT_S, LinkLost

LOOK_S = 0.5  # between two looks at a call that goes on
PROGRESS = re.compile(rb"\[ *([0-9]{1,3})%\][^\r\n\x1b]*")  # as adb writes it on a terminal, over and over
ERASE = b"\x1b[K"
PORT = 5037  # of adb's server, where nothing else is said
FACT = re.compile(r"\s(usb|product|model|device|transport_id|features):(\S+)")
REMEDIES = {
    "unauthorized": "unlock the phone and accept this computer's key (Allow USB debugging), then run it again",
    "authorizing": "the phone is asking: unlock it and accept this computer's key, then run it again",
    "offline": "plug the cable in again, or turn the phone's USB or wireless debugging off and on",
    "recovery": "the phone is in recovery: choose Reboot system now",
    "rescue": "the phone is in rescue mode: choose Reboot system now",
    "sideload": "the phone waits for an update: end it there and reboot",
    "bootloader": "the phone is in its boot loader: fastboot reboot",
    "connecting": "the connection is being made: wait a few seconds, then run it again",
    "detached": "somebody has detached it from this computer: adb attach",
    "host": "this is a device in host mode, not one to run on: plug in the phone",
    "no permissions": "give your user access to the USB device: install Debian's android-sdk-platform-tools-common "
    "(udev rules), join the group plugdev, log in again and plug the cable in again",
}


# Makers put spaces into serial numbers: the first word that is a state ends one.
KNOWN = re.compile(rf"(\S.*?)\s+((?:device|{'|'.join(REMEDIES)})\b.*?)\s*")


@dataclass(frozen=True)
class Listed:
    """A line of `adb devices -l`. `state` is "device" where it can be used; `facts` has usb, product, model, device
    and transport_id where they are known."""

    serial: str
    state: str
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str | None:
        return self.facts.get("model")

    def __str__(self) -> str:
        return f"{self.serial} ({self.state}{', ' + self.model if self.model else ''})"


def parse_devices(text: str) -> list[Listed]:
    """From the text of `adb devices -l`. Lines about the server are no devices."""
    found = []
    for line in text.replace("\r", "").split("\n"):
        if not line.strip() or line.startswith(("List of devices", "* ", "adb server", "adb: ", "error:", "WARNING")):
            continue
        entry = KNOWN.fullmatch(line) or re.fullmatch(r"(\S+(?: \([0-9]+\)\S*)?)\s+(\S.*?)\s*", line)
        if entry:
            first = FACT.search(entry[2])
            state = entry[2][: first.start()] if first else entry[2]
            found.append(Listed(entry[1], state.strip(), dict(FACT.findall(entry[2]))))
    return found


def remedy(device: Listed) -> str:
    """What to do about a device that is listed in another state than "device"."""
    known = next((todo for state, todo in REMEDIES.items() if device.state.startswith(state)), None)
    return known or "see `adb devices -l`, plug the cable in again, then run it again"


def unusable(uri: str, device: Listed) -> SetupError:
    """The refusal for a device that is listed in another state than "device"."""
    return SetupError(
        f"{uri}: connect: the phone cannot be used",
        got=f"{device.serial}: {device.state}",
        expected="the state `device` in `adb devices`",
        todo=remedy(device),
    )


@dataclass(frozen=True)
class Client:
    """The system's adb, with the server at a port of this machine; None: adb's own choice."""

    program: str
    port: int | None

    def command(self, *words: str) -> list[str]:
        return [self.program, *(("-P", str(self.port)) if self.port else ()), *words]

    def call(
        self,
        *words: str,
        limit_s: float = CONNECT_S,
        pulse: Pulse | None = None,
        percent: Callable[[int], None] | None = None,
    ) -> tuple[int, str]:
        """Exit status and all that was printed. `percent` gets how far a transfer is, which adb tells a terminal alone.
        Raises LinkLost where the time is over, or `pulse` takes the phone for lost."""
        said, until = bytearray(), time.monotonic() + limit_s
        reading, writing = os.openpty() if percent else os.pipe()
        try:
            process = subprocess.Popen(
                self.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
                env=os.environ | {"TERM": "xterm"} if percent else None,
            )
        except OSError as error:
            os.close(reading)
            raise SetupError("adb cannot be started", got=error, todo="install adb (Debian: apt install adb)") from None
        finally:
            os.close(writing)
        try:
            while (chunk := _read(reading, min(until, time.monotonic() + LOOK_S))) != b"":
                if chunk and pulse:
                    pulse.heard()
                said += chunk or b""
                if percent and (told := PROGRESS.findall(said)):
                    percent(int(told[-1]))
                    said = bytearray(PROGRESS.sub(b"", said))
                gone = pulse.gone() if pulse else None
                if gone or time.monotonic() >= until:
                    raise LinkLost(
                        "adb did not answer in time",
                        got=gone or f"{limit_s:.0f} s; adb {' '.join(words)}: {clip(_text(said))}",
                        todo="check the cable or the network and the phone's screen, then run it again",
                    )
            status = process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise LinkLost("adb did not end in time", got=f"{limit_s:.0f} s; adb {' '.join(words)}") from None
        finally:
            os.close(reading)
            if process.poll() is None:
                process.kill()
                process.wait()
        if percent:  # what a terminal would show
            said = said.replace(ERASE, b"").replace(b"\r", b"").strip()
        return status, _text(said)

    def devices(self) -> list[Listed]:
        status, text = self.call("devices", "-l")
        if status:
            raise SetupError("adb cannot list devices", got=text, todo="adb devices -l")
        return parse_devices(text)

    def check_server(self) -> None:
        """Raises SetupError where the server at the port is of another version: this client would end it, and with it
        what others are doing. No server: adb starts its own."""
        theirs = server_version(self._place())
        if theirs is None:
            return
        _, text = self.call("version")
        ours = re.search(r"version 1\.0\.([0-9]+)", text)
        if ours and int(ours[1]) != theirs:
            server = listener(self._place()[1])
            raise SetupError(
                "adb's client and the server that runs are of different versions",
                got=f"client {self.program} (1.0.{ours[1]}), server {server} (1.0.{theirs})",
                expected="one version; smolship does not end a server that others may use",
                todo="put the server's adb first in PATH, or end that server yourself when nobody uses it",
            )

    def _place(self) -> tuple[str, int]:
        socket_name = re.fullmatch(r"tcp:(?:(.*):)?([0-9]{1,5})", os.environ.get("ADB_SERVER_SOCKET", ""))
        if self.port is None and socket_name:
            return socket_name[1] or "127.0.0.1", int(socket_name[2])
        named = os.environ.get("ANDROID_ADB_SERVER_PORT", "")
        port = self.port or (int(named) if re.fullmatch(r"[0-9]{1,5}", named) else PORT)
        return os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or "127.0.0.1", port


def _read(file: int, until: float) -> bytes | None:
    """What comes next; empty at the end, None where nothing came in time."""
    if not select.select([file], [], [], max(0.0, until - time.monotonic()))[0]:
        return None
    try:
        return os.read(file, 1 << 16)
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal without programs
            return b""
        raise


def _text(raw: bytes | bytearray) -> str:
    return raw.decode("utf-8", "replace")


def find_client(port: int | None) -> Client:
    program = shutil.which("adb")
    if program is None:
        raise SetupError(
            "adb is not installed",
            expected="Android's adb in PATH",
            todo="install adb (Debian: apt install adb; else Android's platform-tools)",
        )
    return Client(program, port)


def server_version(place: tuple[str, int]) -> int | None:
    """Of the server there, by adb's own question; None where there is none or it does not answer."""
    with contextlib.suppress(OSError, ValueError), socket.create_connection(place, 3.0) as link:
        link.sendall(b"000chost:version")
        said = b""
        while len(said) < 12 and (piece := link.recv(12 - len(said))):
            said += piece
        if said[:8] == b"OKAY0004":
            return int(said[8:12], 16)
    return None


def listener(port: int) -> str:
    """The program that listens at a port of this machine."""
    with contextlib.suppress(OSError):
        inodes = set()
        for table in ("tcp", "tcp6"):
            for row in Path(f"/proc/net/{table}").read_text().split("\n")[1:]:
                words = row.split()
                if len(words) > 9 and words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{words[9]}]")
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if any(str(file.readlink()) in inodes for file in (process / "fd").iterdir()):
                    return f"{(process / 'exe').readlink()}, process {process.name}"
    return f"at port {port}"
