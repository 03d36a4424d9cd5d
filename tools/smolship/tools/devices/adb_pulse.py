"""Whether a phone is still there while nothing comes from it.

adb notices a cable that is pulled, and does not notice a phone that has left the network: its connection stays for many
minutes. A phone that was silent for a while is asked by a second shell. A busy one answers late, and is not lost.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType
from typing import IO

QUIET_S = 8.0  # without a word, until it is asked
ANSWER_S = 20.0  # for its answer
AGAIN_S = 1.0  # after a question that failed at once


class Pulse:
    """Of one phone, while one call to it goes on. To be closed."""

    def __init__(self, shell: Sequence[str]):
        """shell  the command line before the text of a command"""
        self._shell, self._word = list(shell), f"smolship-{secrets.token_hex(8)}"
        self._asked: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._heard = self._last = time.monotonic()
        self._since: float | None = None  # the first question that has no answer yet

    def heard(self) -> None:
        """Something came from the phone."""
        self._heard, self._since = time.monotonic(), None

    def gone(self) -> str | None:
        """Why the phone is taken for lost. To be called often: it asks, and does not wait for the answer."""
        now = time.monotonic()
        if self._since is None:
            self._end()
            if now - self._heard < QUIET_S:
                return None
            self._since = now
        if self._asked is None and now - self._last >= AGAIN_S:
            self._ask(now)
        elif self._asked is not None and self._asked.poll() is not None:
            answered = self._answered()
            self._end()
            if answered:
                self.heard()
                return None
        if now - self._since < ANSWER_S:
            return None
        return f"nothing came for {now - self._heard:.0f} s, and no answer when it was asked"

    def _ask(self, now: float) -> None:
        self._last, self._said = now, tempfile.TemporaryFile()  # noqa: SIM115 closed by _end
        with contextlib.suppress(OSError):
            self._asked = subprocess.Popen(
                [*self._shell, f"echo {self._word}"],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _answered(self) -> bool:
        assert self._said
        self._said.seek(0)
        return self._word.encode() in self._said.read(1 << 16)

    def _end(self) -> None:
        if self._asked:
            if self._asked.poll() is None:
                self._asked.kill()
            self._asked.wait()
        if self._said:
            self._said.close()
        self._asked = self._said = None

    def __enter__(self) -> Pulse:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
