"""emulate.py SCRIPT WORDS...: sh SCRIPT WORDS as process 1 and user 0 of namespaces of its own, in which arm64 programs
run under qemu-aarch64. Users 0 to 65535 are those of this machine. Needs root, and Linux 6.7 for a binfmt_misc of a
namespace's own; nothing outside the namespaces changes, and all ends with this process, which ends with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000
MS_REC, MS_PRIVATE, PR_SET_PDEATHSIG = 0x4000, 1 << 18, 1
FORMAT, MISC = Path("/usr/lib/binfmt.d/qemu-aarch64.conf"), Path("/proc/sys/fs/binfmt_misc")
libc = ctypes.CDLL(None, use_errno=True)


def checked(what: str, result: int) -> None:
    if result != 0:
        sys.exit(f"emulate.py: {what}: {os.strerror(ctypes.get_errno())}")


def own_users() -> None:
    """Enter the namespaces. The map of users is written by a process that is outside of them."""
    outside = os.getpid()
    ready_read, ready_write = os.pipe()
    done_read, done_write = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.read(ready_read, 1)
        status = 0
        try:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{outside}/{name}").write_text("0 0 65536")
        except OSError as error:
            print(f"emulate.py: {name}: {error.strerror}; root is needed", file=sys.stderr)
            status = 1
        os.write(done_write, b"x")
        os._exit(status)
    checked("unshare", libc.unshare(NEWUSER | NEWNS | NEWPID | NEWUTS | NEWIPC))
    os.write(ready_write, b"x")
    os.read(done_read, 1)
    if os.waitpid(helper, 0)[1] != 0:
        sys.exit(1)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    checked("private mounts", libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))


def own_formats() -> None:
    """arm64 programs run under the emulator, in this namespace alone."""
    what = "a binfmt_misc of a namespace's own (Linux 6.7 or newer)"
    checked(what, libc.mount(b"binfmt_misc", str(MISC).encode(), b"binfmt_misc", 0, None))
    (MISC / "register").write_text(FORMAT.read_text().strip())


def main(words: list[str]) -> int:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    own_users()
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of users has cleared it
    first = os.fork()  # process 1 of the namespace
    if first == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        own_formats()
        os.execv("/bin/sh", ["/bin/sh", "-e", *words])
    return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
