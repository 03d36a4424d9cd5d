"""Workers (worker.py) as the lab sees them: a process that is asked, and the environments that they run in."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from smolship.runtime import process
from smolship.runtime.child import Child, Ended, Progress
from smolship.runtime.errors import SetupError, SmolshipError, clip


class Process:
    """A worker. Whatever the peer raises, or a crash, is a SetupError here, with the last line of its log."""

    def __init__(self, python: Path, log: Path):
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        command = process.python("smolship.tools.peers.worker", executable=python)
        with log.open("w") as file:
            self.child = Child(command, file, process.environment(active=True) | {"PYTHONPATH": process.roots()})

    def ask(
        self, do: str, progress: Progress = lambda what, done, total: None, limit_s: float = 3600, **arguments: Any
    ) -> Any:
        """Have something done. Raises SetupError where that fails or takes longer than `limit_s`."""
        why: object
        try:
            return self.child.ask({"do": do, **arguments}, progress, limit_s=limit_s)
        except SmolshipError as error:
            why = error
        except Ended as end:
            why = last_line(self.log.read_text(errors="replace"))
            if end.late:
                why = f"took more than {limit_s:,.0f} s"
            elif end.status < 0:
                why = f"ended by {signal.Signals(-end.status).name}: {why}"
        raise SetupError(f"{do} failed", got=why, todo=f"see {self.log}")

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.__exit__(kind, error, trace)


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
