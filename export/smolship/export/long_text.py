"""Texts longer than a probed window: which positions of them are looked at, and how they are run.

Rotary tables, masks and buffers go wrong at the end of a context, where no window reaches.
"""

from __future__ import annotations

import numpy as np

from smolship.export.reference import Reference, run
from smolship.runtime.probes import Window

EDGE = 16  # positions probed at the very end of the cache
BESIDE = range(510, 517)  # and around the longest chunk that an engine takes, with some after it
WAY = 4  # and at each quarter of the way
STEP = 512  # positions run at once: logits of more would not fit into memory for large vocabularies


def in_steps(ops: Reference, ids: np.ndarray) -> np.ndarray:
    """Logits float32 [S, V] through the cache, 512 tokens at a time."""
    return np.concatenate(
        [run(ops.config, ops, ids[start : start + STEP].tolist(), start) for start in range(0, len(ids), STEP)]
    )


def at_positions(ops: Reference, ids: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Logits float32 [N, V] at the positions `at` of a long text. The head is left out where nobody looks."""
    wanted, rows, start = set(at.tolist()), [], 0
    while start < len(ids):
        stop = start + 1
        while stop < min(start + STEP, len(ids)) and (stop in wanted) == (start in wanted):
            stop += 1
        logits = run(ops.config, ops, ids[start:stop].tolist(), start, last_only=start not in wanted)
        rows += [logits] if start in wanted else []
        start = stop
    return np.concatenate(rows)


def repeated(windows: list[Window], length: int) -> np.ndarray:
    """All windows as one text, from the start again where they end."""
    return np.resize(np.concatenate([w.ids for w in windows]), length).astype(np.int32)


def spread(length: int) -> np.ndarray:
    """Positions of a text of that length: some on the way, some that windows do not reach, and the last."""
    way = [range(length * i // 4, length * i // 4 + WAY) for i in (1, 2, 3)]
    wanted = {p for part in (*way, BESIDE) for p in part if p < length - 1 - EDGE}
    return np.array(sorted(wanted | set(range(max(length - EDGE, 0), length))), np.int32)
