"""How far a transfer is, in words for a progress bar: bytes and bytes/s, some times a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from smolship.runtime.child import Progress
from smolship.tools.units import size

EACH_S = 0.2  # between two updates
OVER_S = 10.0  # over which a rate is taken


class Transfer:
    """Of `total` bytes, of which `held` were there before.

    what      is being done, before the figures; empty: it is sent
    silent_s  nothing is told of what takes less
    """

    def __init__(
        self,
        progress: Progress,
        total: int,
        held: int = 0,
        what: str = "",
        silent_s: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.done, self.total = held, total
        self._progress, self._what, self._clock = progress, what, clock
        self._last = clock() + silent_s - EACH_S
        self._seen = deque([(clock(), held)])
        self._under_way = 0

    def moved(self, count: int) -> None:
        """So many bytes of a piece have gone; `arrived` counts them."""
        self._under_way = count
        self._tell()

    def arrived(self, count: int) -> None:
        """A piece of so many bytes is there."""
        self.done, self._under_way = self.done + count, 0
        self._tell()

    def _tell(self) -> None:
        now, done = self._clock(), min(self.done + self._under_way, self.total)
        if now - self._last < EACH_S and (done < self.total or now < self._last):
            return
        self._last = now
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= OVER_S:
            self._seen.popleft()
        (since, before), words = self._seen[0], f"{size(done)} of {size(self.total)}"
        if now > since and done > before:
            words += f", {size((done - before) / (now - since))}/s"
        self._progress(", ".join(filter(None, (self._what, words))), done, self.total)
