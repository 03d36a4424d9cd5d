"""What is heard of a run on a device, line by line, and how its end is said."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from smolship.runtime.child import Listener, Progress
from smolship.runtime.errors import clip

MOST = 1 << 53  # of what is counted
OURS = b"smolship-supervisor "
WHY = {
    "lost": "no heartbeat came through for half a minute",
    "late": "its time was over",
    "memory": "less than 5 % of the device's memory was available",
}


@dataclass
class Watch:
    """What a runner has said so far."""

    progress: Progress
    answer: dict[str, Any] = field(default_factory=dict)
    stage: str = "starting"
    last: float = field(default_factory=time.monotonic)
    words: list[str] = field(default_factory=list)  # of the supervisor's last line
    boot: str = ""
    other: list[str] = field(default_factory=list)  # lines that are no JSON of ours

    def line(self, raw: bytes) -> None:
        if raw.isdigit():  # a heartbeat, as an old phone's terminal echoes it
            return
        self.last = time.monotonic()
        if raw.startswith(OURS):
            self.words = raw[len(OURS) :].decode(errors="replace").split()
            if self.words[:1] == ["started"]:
                self.boot = self.words[2] if len(self.words) > 2 else ""
            return
        tokens: list[int] = []
        try:
            said = json.loads(raw)
            if "progress" in said:
                what, done, total = said["progress"]
                self.stage = clip(what, 80)
                self.progress(self.stage, count(done), count(total))
            elif "error" in said:
                kind, text = said["error"]
                self.answer = {"error": (str(kind), str(text))}
            elif "result" in said:
                self.answer = {"result": None}
            elif isinstance(self.progress, Listener):
                tokens = [one for one in said["tokens"] if type(one) is int and one >= 0]
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            self.other = [*self.other, clip(raw.decode(errors="replace"), 200)][-5:]
        if tokens and isinstance(self.progress, Listener):
            self.progress.tokens(tokens)


def count(value: Any) -> int:
    """Of a progress. Raises ValueError or TypeError for what none is, which a bar could not show."""
    number = int(value)
    if not 0 <= number <= MOST:
        raise ValueError
    return number


def status_words(status: int | None) -> str:
    if status is None:
        return "no word of how it ended"
    if status > 128:
        try:
            return f"ended by {signal.Signals(status - 128).name}"
        except ValueError:
            pass
    return f"exit status {status}"


def remedy(status: int | None, why: str) -> str:
    if why == WHY["late"]:
        return "give it longer, such as --limit 1h, or ask for less: --quick, fewer --repeats or --max-tokens"
    if why == WHY["memory"] or status == 128 + signal.SIGKILL:
        return "it ran out of memory, perhaps: export with a smaller --context, or close what else runs there"
    if status == 128 + signal.SIGILL:
        return "the engine has an instruction that this processor lacks: install another version of it"
    if status == 128 + signal.SIGSYS:
        return "the device forbids a system call of the runner, as Android does in apps: run it from adb's own shell"
    return "run the command again"
