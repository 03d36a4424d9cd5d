"""Memory that was freed and that malloc keeps."""

from __future__ import annotations

import ctypes
import os

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None  # of glibc alone


def trim() -> None:
    """Give freed memory back to the system. glibc keeps what lies in holes that no later array of another size fills:
    after passes through SmolLM2, twice as much as is in use."""
    if _TRIM:
        _TRIM(0)
