"""An emulated arm64 phone behind adb: Android's kind of shell (mksh) and small tools, no Python, no C library, no /tmp;
only /data/local/tmp can be written, by a user without a name. Programs run under qemu-user.

It is no phone: its kernel, speed and memory are this machine's, and nothing of Android's runs there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from smolship.runtime.errors import SetupError
from tests.device.adbd import Adbd, Quirks
from tests.device.board_files import MODELS, cpuinfo, write_files, write_sys
from tests.device.board_root import CACHE, cache, extract, hashed, keep
from tests.device.phone import DUMPSYS, GETPROP, LEFT_OUT, make_root
from tests.device.spaces import end

PACKAGES, SHELL, BUSYBOX = "busybox-static,mksh", "usr/lib/aarch64-linux-musl/bin/mksh", "usr/bin/busybox"
CPU, USER, START_S = "cortex-a76", 2000, 20.0
PRELOAD = "/system/lib64/libsigchain.so"  # some makers set one; it is Android's, and cannot be loaded by others
ENVIRONMENT = {
    "PATH": "/product/bin:/system/bin:/system/xbin:/vendor/bin",
    "ANDROID_DATA": "/data",
    "ANDROID_ROOT": "/system",
    "HOME": "/",
    "TMPDIR": "/data/local/tmp",
    "USER": "shell",
    "QEMU_CPU": CPU,
}


@dataclass(frozen=True)
class ArmPhone:
    """
    root   kept and shared: not to be written
    tmp    its /data/local/tmp, as this machine sees it
    sys    its /sys; values may be written while it runs
    enter  the words before a command's text
    first  the process number, here, of its process 1
    """

    root: Path
    tmp: Path
    sys: Path
    enter: Sequence[str]
    first: int

    def adbd(self, quirks: Quirks | None = None) -> Adbd:
        """adb's side of it. Several may be there: each is a phone of its own to adb."""
        return Adbd(self.root, self.enter, quirks or Quirks(), tmp=self.tmp, user=USER, hang_up=hang_up)

    def commands(self) -> list[str]:
        """What runs there, without process 1 and what it waits with."""
        found, space = [], Path(f"/proc/{self.first}/ns/pid").readlink()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "ns/pid").readlink() == space and "qemu" in (path / "exe").readlink().name:
                    found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        return found


def hang_up(process: subprocess.Popen[bytes]) -> None:
    """As adbd when its other end is gone: the shell is told, and nobody else. It is the only child of `nsenter`."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGHUP)


def phone_root() -> Path:
    """Made if it is not there (about 6 s). Raises SetupError."""
    root = CACHE / f"phone-{hashed([PACKAGES, SHELL, GETPROP, DUMPSYS, sorted(LEFT_OUT)])}"
    if not root.exists():
        with tempfile.TemporaryDirectory(dir=cache(), prefix="phone-new-") as work:
            extract(Path(work) / "packages", PACKAGES, "the emulated phone's root")
            packages = Path(work) / "packages"
            keep(make_root(Path(work) / "root", packages / BUSYBOX, packages / SHELL), root)
    return root


@contextmanager
def arm_phone() -> Iterator[ArmPhone]:
    """A phone that runs until the end. Raises SetupError where it cannot be made or does not start."""
    if os.getuid() != 0:
        raise SetupError("the emulated phone needs root, for the user ids of its files", todo="run as root")
    root, model = phone_root(), MODELS[CPU]
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smolship-phone-")))
        state.chmod(0o755)
        for name in ("tmp", "sys", "files"):
            (state / name).mkdir()
        (state / "tmp").chmod(0o771)
        os.chown(state / "tmp", USER, USER)
        write_sys(state / "sys", model)
        shutil.rmtree(state / "sys/firmware")  # a board's
        cpu, boot = cpuinfo(model).partition("Revision")[0], f"{uuid.uuid4()}\n"
        write_files(state / "files", {"/proc/cpuinfo": cpu, "/proc/sys/kernel/random/boot_id": boot})
        here, log = Path(__file__).parent, state / "log"
        command = [sys.executable, "-P", str(here / "emulate.py"), str(here / "phone.sh"), str(root), str(state)]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        stack.callback(end, process)
        over = time.monotonic() + START_S
        while not (state / "ready").exists():
            if process.poll() is not None or time.monotonic() > over:
                said = " ".join(log.read_text(errors="replace").splitlines()[-3:])
                raise SetupError("the emulated phone did not start", got=said, expected="root and Linux 6.7 or newer")
            time.sleep(0.02)
        first = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        spaces = ["nsenter", f"--target={first}", "--user", "--mount", "--pid", "--uts", "--ipc", "--", "env", "-i"]
        variables = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        into = ["/usr/sbin/chroot", f"--userspec={USER}:{USER}", "--groups=", str(root)]
        into += ["/system/bin/env", f"LD_PRELOAD={PRELOAD}", "/system/bin/sh", "-c"]
        yield ArmPhone(root, state / "tmp", state / "sys", [*spaces, *variables, *into], first)
