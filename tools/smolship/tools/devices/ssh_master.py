"""One connection of the system's ssh client, which later clients share through a socket of our own.

A small shell ends the connection as soon as this process is gone, however that came. No client holds a pipe of ours
longer than its script: what the connection's says goes to a file.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from smolship.runtime.errors import SetupError
from smolship.tools.devices.channel import no_client
from smolship.tools.devices.link import CONNECT_S, SAFE
from smolship.tools.devices.uri import Address

LONGEST = 60  # characters of the socket's path: ssh adds 17 for a moment, and systems take 104 to 108
SLOWEST_S = 25.0  # of one attempt: a dead address first, or a slow login
ASKED_S = 180.0  # where a person answers
# Only the inner shell has standard output open, and only until ssh ends. Reading ends with this process.
WATCH = """trap '' INT QUIT
folder=$1; shift
( client=
trap 'kill $client 2>/dev/null' TERM
"$@" </dev/null >/dev/null & client=$!
wait "$client"
wait "$client" ) & inner=$!
exec >/dev/null
read -r word
kill "$inner" 2>/dev/null
wait "$inner"
rm -rf "$folder"
"""


def options(address: Address, config: Path | None, ask: bool) -> list[str]:
    """What ssh is told besides the host: how it behaves, and what the URI names."""
    found = [] if config is None else ["-F", str(config)]
    if address.user:
        found += ["-l", address.user]
    if address.port is not None:
        found += ["-p", str(address.port)]
    settings = {
        "ControlPersist": "no",  # else the client leaves for the background, whatever the user's configuration says
        "ConnectTimeout": f"{CONNECT_S:.0f}",
        "ConnectionAttempts": "1",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "LogLevel": "INFO",
    }
    if not ask:
        settings["BatchMode"] = "yes"
    return [*found, *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]


class Master:
    """A connection that was begun. `up()` tells whether it stands, `gone()` whether it has ended."""

    def __init__(self, address: Address, config: Path | None, ask: bool, more: Sequence[str] = ()):
        self.folder = socket_folder()
        self.socket, self._log = self.folder / "s", self.folder / "log"
        words = ["-N", "-T", "-x", "-a", "-M", "-S", str(self.socket), *options(address, config, ask), *more]
        program = shutil.which("ssh")
        try:
            if program is None:
                raise FileNotFoundError("no such program in PATH")
            with self._log.open("wb") as log:
                self._shell = subprocess.Popen(
                    ["/bin/sh", "-c", WATCH, "smolship", str(self.folder), program, *words, "--", address.host],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=not ask,  # no terminal there, so nothing can ask
                )
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise no_client("ssh", error) from None
        self._own_session = not ask

    def wait(self, limit_s: float) -> bool:
        """Whether the connection stands; False where ssh has ended or the time is over."""
        deadline = time.monotonic() + limit_s
        while not self.up():
            if self.gone(0.02) or time.monotonic() > deadline:
                return self.up() and not self.gone()
        return True

    def up(self) -> bool:
        try:
            return stat.S_ISSOCK(self.socket.stat().st_mode)
        except OSError:
            return False

    def gone(self, wait_s: float = 0.0) -> bool:
        """Whether ssh has ended, waiting for that a moment."""
        assert self._shell.stdout
        return self._shell.stdout.closed or bool(select.select([self._shell.stdout], [], [], wait_s)[0])

    def said(self) -> str:
        """What ssh printed, without the carriage returns of its messages."""
        try:
            return self._log.read_bytes().decode("utf-8", "replace").replace("\r", "")
        except OSError:
            return ""

    def close(self) -> None:
        """End ssh; idempotent."""
        shell = self._shell
        assert shell.stdin and shell.stdout
        with contextlib.suppress(OSError):
            shell.stdin.close()
        try:
            shell.wait(3.0)
        except subprocess.TimeoutExpired:
            if self._own_session:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(shell.pid, 9)
            shell.kill()
            shell.wait()
        shell.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def socket_folder() -> Path:
    """A new folder of the user's alone whose path is short and means nothing to ssh (no %, ~ or $).

    Raises SetupError where there is none."""
    places = ["/tmp", os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/var/tmp", "/dev/shm"]
    tried = []
    for place in dict.fromkeys(places):
        if place.startswith("/") and set(place) <= SAFE and len(place) + len("/smolship-12345678/s") <= LONGEST:
            try:
                return Path(tempfile.mkdtemp(prefix="smolship-", dir=place))
            except OSError as error:
                tried.append(f"{place}: {error.strerror}")
    raise SetupError(
        "no folder for ssh's control socket",
        got="; ".join(tried) or "only long paths",
        expected=f"a folder that can be written, of at most {LONGEST - 20} plain characters, such as /tmp",
        todo="set TMPDIR or XDG_RUNTIME_DIR to one",
    )
