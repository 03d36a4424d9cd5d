"""Workers (worker.py) as the lab sees them: a process that is asked, and the environments that they run in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from smolship.runtime import process
from smolship.runtime.errors import SetupError, clip

Progress = Callable[[str, int, int], None]


class Process:
    """A worker. Whatever the peer raises, or a crash, is a SetupError here, with the last line of its log."""

    def __init__(self, python: Path, log: Path):
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("w") as file:
            self.child = subprocess.Popen(
                process.python("smolship.tools.peers.worker", executable=python),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                encoding="utf-8",
                start_new_session=True,
                env=process.environment(active=True) | {"PYTHONPATH": process.roots()},
            )

    def ask(
        self, do: str, progress: Progress = lambda what, done, total: None, limit_s: float = 3600, **arguments: Any
    ) -> Any:
        """Have something done. Raises SetupError where that fails or takes longer than `limit_s`."""
        assert self.child.stdin and self.child.stdout
        timer = threading.Timer(limit_s, self._kill)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                self.child.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
                self.child.stdin.flush()
            for line in self.child.stdout:
                answer = json.loads(line)
                if "result" in answer:
                    return answer["result"]
                if "error" in answer:
                    raise SetupError(f"{do} failed", got=answer["error"], todo=f"see {self.log}")
                progress(*answer["progress"])
            late = not timer.is_alive()
        finally:
            timer.cancel()
        status = self.child.wait()
        why = last_line(self.log.read_text(errors="replace"))
        if late:
            why = f"took more than {limit_s:,.0f} s"
        elif status < 0:
            why = f"ended by {signal.Signals(-status).name}: {why}"
        raise SetupError(f"{do} failed", got=why, todo=f"see {self.log}")

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()  # what it has to say, it has said; its own children go with it
        self.child.wait()


def environment(folder: Path, name: str, requirements: Sequence[str]) -> Path:
    """The Python of a peer's own environment below `folder`, made where it is not there yet; ours for no requirements.

    Raises SetupError where the packages cannot be installed.
    """
    if not requirements:
        return Path(sys.executable)
    key = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:8]
    home = folder / f"{name}-{key}"
    python, done = home / "bin" / "python", home / "installed"
    if not done.exists():
        commands = [
            process.python("venv", "--clear", str(home)),
            process.python("pip", "install", "--no-input", "--quiet", *requirements, executable=python),
        ]
        for command in commands:
            ran = subprocess.run(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=process.environment() | {"PYTHONPATH": ""},
            )
            if ran.returncode:
                raise SetupError(f"the environment of {name} cannot be made", got=last_line(ran.stderr))
        done.write_text("\n".join(requirements) + "\n")
    return python


def last_line(log: str) -> str:
    """What a log ends with: of a traceback, the exception."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return clip(lines[-1], 300) if lines else "nothing in its log"
