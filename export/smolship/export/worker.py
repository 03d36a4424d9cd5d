"""The steps of an export, each a process of its own (child.py): its memory goes back to the system when it ends, its
peak is measured by the kernel, and Ctrl-C or the out-of-memory killer take it without leaving anything half-done.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolship.export.steps import STEPS
from smolship.runtime import child
from smolship.runtime.child import Progress
from smolship.runtime.disk import disk_errors
from smolship.runtime.memory import read_memory
from smolship.runtime.process import environment, python


@dataclass(frozen=True)
class Outcome:
    """What a step returned, and what it cost."""

    result: Any
    seconds: float
    peak_bytes: int | None  # of resident memory; None where the system does not say


# One place for all threads of torch: glibc gives each an arena of its own, whose holes the others do not fill. It is a
# tenth of what the training of SmolLM2 holds on two threads.
ARENAS = {"MALLOC_ARENA_MAX": "1"}
OF_THREADS = ("calibrate", "bits")


def run_step(name: str, arguments: dict[str, Any], progress: Progress) -> Outcome:
    """Run step `name` in a child process. Raises as child.run does."""
    start, command = time.monotonic(), python("smolship.export.worker", name)
    env = (ARENAS if name in OF_THREADS else {}) | environment()
    answer = child.run(f"the step {name!r}", command, arguments, progress, env, _folder(arguments))
    return Outcome(answer["result"], time.monotonic() - start, answer["peak_bytes"])


def _folder(arguments: dict[str, Any]) -> Path | None:
    """Where a step writes: the `folder`, or the file `path`, that it is given. None: it writes nothing."""
    if "path" in arguments:
        return Path(arguments["path"]).parent
    return Path(arguments["folder"]) if "folder" in arguments else None


@contextlib.contextmanager
def _temporary_files(folder: Path | None) -> Iterator[None]:
    """They lie where a step writes: coremltools makes some as large as the model, and /tmp may be small or memory."""
    if folder is None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix=".tmp.", dir=folder) as temporary:
        before, tempfile.tempdir = tempfile.tempdir, temporary
        try:
            yield
        finally:  # a fault's traceback goes to the usual place
            tempfile.tempdir = before


def main() -> None:
    name = sys.argv[1]

    def answer(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
        folder = _folder(arguments)
        with disk_errors(), _temporary_files(folder), disk_errors(folder):
            result = STEPS[name](**arguments, progress=progress)
        return {"result": result, "peak_bytes": read_memory().peak_bytes}

    sys.exit(child.serve(answer, f"the step {name!r}"))


if __name__ == "__main__":
    main()
