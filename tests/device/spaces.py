"""Processes in namespaces of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path


def end(parent: subprocess.Popen[bytes]) -> None:
    """End a namespace of processes whose process 1 is the only child of `parent`, which waits for it. The kernel lets
    process 1 go when all others have ended, so that none is left on return."""
    if parent.poll() is None:
        for child in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            parent.wait(10)
    parent.kill()
    parent.wait()
