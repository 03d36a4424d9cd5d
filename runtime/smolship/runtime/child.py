"""Children: processes of ours that are asked in JSON lines and answer in JSON lines.

A child reads requests from its standard input, one a line, or has a single one from its command line. To each it says
{"progress": [what, done, total]} and {"tokens": [id, …]} as often as it likes, and then {"result": …} or {"error":
[class, text]}. Its standard output belongs to the answers; what it and its libraries print goes to its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from smolship.runtime import errors
from smolship.runtime.disk import full, full_disk
from smolship.runtime.errors import SmolshipError
from smolship.runtime.faults import as_ours, ended

Progress = Callable[[str, int, int], None]

OFTEN = 0.1  # seconds between two lines of progress
PARENT = "SMOLSHIP_PARENT"  # the process that asks a child
ORPHANED = 1.0  # seconds until a child ends whose parent was killed, about


class Listener:
    """A Progress that takes the tokens of an answer, too, as they are chosen."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """How far it is."""

    def tokens(self, ids: Sequence[int]) -> None:
        """What follows those of the calls before."""


class Ended(Exception):
    """A child ended before it answered, `late` by our own hand."""

    def __init__(self, status: int, late: bool):
        super().__init__(f"exit status {status}")
        self.status, self.late = status, late


class Child:
    """A child as who asks it sees it. It leads a process group, which ends with it at the latest when the context
    does."""

    def __init__(self, command: Sequence[str], log: IO[str], env: dict[str, str]):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            env=env | {PARENT: str(os.getpid())},
        )

    def ask(self, request: Any, progress: Progress, *, last: bool = False, limit_s: float | None = None) -> Any:
        """The result of one request; None is none, for a child that has it from its command line.

        last     no more will be asked: wait until it has ended by itself
        limit_s  kill it where it takes longer

        Raises the SmolshipError that it answers with, or Ended.
        """
        assert self.process.stdin and self.process.stdout
        timer = threading.Timer(limit_s or 0, self._kill)
        if limit_s is not None:
            timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                if request is not None:
                    self.process.stdin.write(json.dumps(request) + "\n")
                    self.process.stdin.flush()
                if last:
                    self.process.stdin.close()
            answer = self._answer(progress)
            if last and answer:
                self.process.stdout.read()
                self.process.wait()
            late = limit_s is not None and not timer.is_alive()
        finally:
            timer.cancel()
        if not answer:
            raise Ended(self.process.wait(), late)
        if "error" in answer:
            kind, text = answer["error"]
            raise getattr(errors, kind)(text)
        return answer["result"]

    def _answer(self, progress: Progress) -> dict[str, Any]:
        """The line that ends a request; nothing where there is none."""
        assert self.process.stdout
        for line in self.process.stdout:
            try:
                answer: dict[str, Any] = json.loads(line)
            except ValueError:  # cut off
                break
            if "progress" in answer:
                progress(*answer["progress"])
            elif "tokens" not in answer:
                return answer
            elif isinstance(progress, Listener):
                progress.tokens(answer["tokens"])
        return {}

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: it is a zombie
            os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()  # what it has to say, it has said; its own children go with it
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        self.process.wait()


def run(
    who: str,
    command: Sequence[str],
    request: Any,
    progress: Progress,
    env: dict[str, str],
    folder: Path | None = None,
    started: Callable[[int], None] = lambda pid: None,
) -> Any:
    """What a child answers that is asked once. `who` is its name in errors, `folder` where it writes; `started` is told
    its process' number.

    Raises its own SmolshipError; SetupError, with the end of its log, where it was killed or crashed, or the disk was
    full; Fault where Python ended it with a traceback.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace", dir=folder) as log,
        Child(command, log, env) as child,
    ):
        try:
            started(child.process.pid)
            return child.ask(request, progress, last=True)
        except Ended as end:
            if folder and (code := full(folder)):  # native code says nothing, or is killed for it
                raise full_disk(f"{who} ended with status {end.status}", code, folder) from None
            log.seek(0)
            raise ended(who, end.status, log.read()) from None


def _end_with(parent: int) -> None:
    """A parent that is killed ends no context: its child, which may say nothing for minutes, ends itself."""
    while os.getppid() == parent:
        time.sleep(ORPHANED)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def serve(
    answer: Callable[[Any, Listener], Any], who: str, requests: Iterable[Any] | None = None, *, foreign: bool = False
) -> int:
    """Be a child: answer each request, until there are no more. Returns the last error's exit code, 0 for none.

    who       the name of this process in errors that nobody foresaw
    requests  those of the command line; None: standard input's
    foreign   it runs code of others: what that raises is no fault of ours, but the end, with a traceback in the log
    """
    parent = os.getppid()
    if os.environ.get(PARENT) == str(parent) and os.getpgrp() == os.getpid():
        threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    code = 0

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")

    class Said(Listener):
        last = 0.0

        def __call__(self, what: str, done: int, total: int) -> None:
            if done == total or time.monotonic() - self.last > OFTEN:
                self.last = time.monotonic()
                say(progress=[what, done, total])

        def tokens(self, ids: Sequence[int]) -> None:
            say(tokens=list(ids))

    said = Said()
    try:
        for request in map(json.loads, sys.stdin) if requests is None else requests:
            try:
                say(result=answer(request, said))
                code = 0
            except BrokenPipeError:
                raise
            except Exception as raised:
                if foreign and not isinstance(raised, SmolshipError):
                    raise
                error = as_ours(raised, who)
                say(error=[type(error).__name__, str(error)])
                code = error.exit_code
    except BrokenPipeError:  # whoever asked is gone
        return 1
    return code
