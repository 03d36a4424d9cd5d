"""Memory that was freed and that malloc keeps."""

from __future__ import annotations

import ctypes
import os

OFTEN = 1 << 24  # numbers that were held between two times
_held = 0  # since the last
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None  # of glibc alone


def trim(numbers: int) -> None:
    """Give freed memory back to the system, now and then: `numbers` were held. glibc keeps what lies
    in holes that no later array of another size fills: after passes through SmolLM2, twice as much as is in use."""
    global _held
    _held += numbers
    if _TRIM and _held > OFTEN:
        _held = 0
        _TRIM(0)
