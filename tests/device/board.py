"""An emulated arm64 board: Debian under qemu-user behind an arm64 sshd on a loopback port, with the looks of a Pi.

It is no Pi: speed, memory and the number of usable processors are this machine's, and it has its kernel. What is
measured on it says that measuring works."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from smolship.runtime.errors import SetupError
from tests.device.board_files import MODELS, cpuinfo, write_files, write_sys, write_vcgencmd
from tests.device.board_root import UID, board_root
from tests.device.proxy import Proxy, free_port
from tests.device.spaces import end
from tests.device.ssh_client import ALIAS, client_files, client_programs, make_keys, need

USER, NAME, HOST = "pi", "raspberrypi", "127.0.0.1"
START_S = 60.0
CONFIG = """\
ListenAddress 127.0.0.1
HostKey /run/board/host_key
AuthorizedKeysFile /run/board/authorized_keys
PidFile none
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
"""


@dataclass(frozen=True)
class Board:
    """A running board.

    uri         of the device, for a command whose PATH begins with `clients`
    ssh_config  for `ssh -F`: the key, the known hosts, and "board", an alias of this board
    clients     a folder for the front of PATH: ssh, sftp and scp that read that file
    root        the root file system, kept and shared: not to be written
    home        the user's home folder as this machine sees it; on the board it is /home/pi
    sys         the folder that is the board's /sys; values may be written while it runs
    vcgencmd    the folder of vcgencmd's answers, by the name of the question; without a file it fails
    log         what sshd wrote
    proxy       counts of connections and bytes; stall(), resume(), cut()
    """

    uri: str
    host: str
    port: int
    user: str
    ssh_config: Path
    clients: Path
    root: Path
    home: Path
    sys: Path
    vcgencmd: Path
    log: Path
    proxy: Proxy
    alias: str = ALIAS


@contextmanager
def board(
    cpu: str = "cortex-a76", *, home: Path | None = None, files: Mapping[str, str] | None = None
) -> Iterator[Board]:
    """A board with that processor: "cortex-a72" (Pi 4) or "cortex-a76" (Pi 5).

    home   the folder of home folders that an earlier board had, for a restart; its `pi` is the user's
    files  texts over files that the board has, such as {"/proc/meminfo": ...}; /proc/cpuinfo and a fresh boot_id are

    Raises SetupError where a program is missing, or the board cannot be made or does not start."""
    if os.getuid() != 0:
        raise SetupError("the emulated board needs root, for the user and group ids of its files", todo="run as root")
    root, model = board_root(), MODELS[cpu]
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smolship-board-")))
        state.chmod(0o755)
        for name in ("tmp", "sys", "vcgencmd", "ssh", "files"):
            (state / name).mkdir()
        (state / "tmp").chmod(0o1777)
        homes = home or state / "home"
        if home is None:
            (homes / USER).mkdir(parents=True)
            os.chown(homes / USER, UID, UID)
        else:
            (state / "home").symlink_to(home)
        write_sys(state / "sys", model)
        write_vcgencmd(state / "vcgencmd")
        over = {"/proc/cpuinfo": cpuinfo(model), "/proc/sys/kernel/random/boot_id": f"{uuid.uuid4()}\n"}
        write_files(state / "files", over | dict(files or {}))
        make_keys(state / "ssh")
        target = stack.enter_context(_running(root, state, cpu))
        proxy = Proxy(HOST, target)
        stack.callback(proxy.close)
        config = client_files(state / "ssh", HOST, proxy.port, USER)
        clients = client_programs(state, config)
        uri = f"ssh://{USER}@{HOST}:{proxy.port}"
        places = (root, homes / USER, state / "sys", state / "vcgencmd", state / "log")
        yield Board(uri, HOST, proxy.port, USER, config, clients, *places, proxy)


@contextmanager
def _running(root: Path, state: Path, cpu: str) -> Iterator[int]:
    """The port of the board's sshd. All its processes end with it."""
    port = free_port(HOST)
    (state / "ssh" / "sshd_config").write_text(f"{CONFIG}Port {port}\nSetEnv QEMU_CPU={cpu}\n")
    here, log = Path(__file__).parent, state / "log"
    for program in ("mount", "chroot", "qemu-aarch64-static"):
        need(program)
    script = [str(here / "board.sh"), str(root), str(state), cpu, NAME]
    with log.open("wb") as out:
        command = [sys.executable, "-P", str(here / "emulate.py"), *script]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + START_S
        while "Server listening" not in (said := log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                expected = "root, Linux 6.7 or newer, and the packages of tests/device/install"
                raise SetupError(
                    "the emulated board did not start", got=" ".join(said.splitlines()[-3:]), expected=expected
                )
            time.sleep(0.05)
        yield port
    finally:
        end(process)


def main(cpu: str) -> None:
    """A board to look at, until Ctrl-C."""
    with board(cpu) as running:
        print(f"{running.uri}\nssh -F {running.ssh_config} {running.alias}", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main(*sys.argv[1:] or ["cortex-a76"])
