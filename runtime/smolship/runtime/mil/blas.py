"""numpy's BLAS with one thread, for as long as something computes, and as it was before afterwards.

Its own threads wait for one another in a loop, which takes ten times as long as the work itself as soon as something
else wants the cores. How many there are is a setting of the whole process.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = ("64_", "")  # of numpy's OpenBLAS: with integers of 64 bits, and of 32

_lock = threading.Lock()
_users = 0
_before: list[int] = []  # threads of each library, when the first user came


def thread_counts() -> list[int]:
    """Threads of each OpenBLAS that numpy brought; none where its BLAS is another (Apple's Accelerate)."""
    return [get() for get, _ in _libraries()]


@contextmanager
def one_thread() -> Iterator[None]:
    """Several may be inside, in threads of their own: the last one puts back what the first one found."""
    global _users
    with _lock:
        if not _users:
            _before[:] = thread_counts()
            _set([1] * len(_before))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _set(_before)


def _set(counts: list[int]) -> None:
    for (_, put), count in zip(_libraries(), counts, strict=True):
        put(count)


@cache
def _libraries() -> list[tuple[Any, Any]]:
    """What tells and sets the number of threads of each."""
    found = []
    for folder in (Path(np.__file__).parent.parent / "numpy.libs", Path(np.__file__).parent / ".dylibs"):
        for path in folder.glob("*openblas*"):
            library = ctypes.CDLL(str(path))
            for suffix in SUFFIXES:
                names = (f"scipy_openblas_{verb}_num_threads{suffix}" for verb in ("get", "set"))
                get, put = (getattr(library, name, None) for name in names)
                if get and put:
                    found.append((get, put))
                    break
    return found
