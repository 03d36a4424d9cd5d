"""Work in fixed pieces on threads.

Each piece is computed by one thread, and its size follows from the work alone: so the same numbers come out on any
number of threads. A library that splits a product over threads itself may add in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from smolship.export.calibrate.limits import MOST
from smolship.runtime.bundle import default_threads

T = TypeVar("T")
R = TypeVar("R")


class Pool:
    """Threads for pieces. `device` is where tensors lie; on a GPU pieces follow one another."""

    def __init__(self, threads: int, device: str = "cpu"):
        self.device = torch.device(device)
        self.threads = threads if self.device.type == "cpu" else 1
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None

    def map(self, function: Callable[[T], R], pieces: Iterable[T]) -> Iterator[R]:
        """The results in the order of the pieces."""
        if self._pool is None:
            return iter([function(piece) for piece in pieces])
        return self._pool.map(function, pieces)

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


@contextmanager
def open_pool(threads: int | None = None, device: str | None = None) -> Iterator[Pool]:
    """A pool of as many threads as there are processors, up to `MOST`; torch itself takes one in each. Without a
    `device` it is the GPU where there is one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    pool = Pool(min(threads or default_threads(), MOST), chosen)
    try:
        yield pool
    finally:
        pool.close()
        torch.set_num_threads(before)
