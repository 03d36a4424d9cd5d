"""Texts longer than a probed window: what they hold, and which positions of them are looked at.

Rotary tables, masks and buffers go wrong at the end of a context, where no window reaches.
"""

from __future__ import annotations

import numpy as np

from smolship.export.config import DecoderConfig
from smolship.runtime.probes import Window, filled

EDGE = 16  # positions probed at the very end of the cache
BESIDE = range(510, 517)  # and around the longest chunk that an engine takes, with some after it
WAY = 4  # and at each quarter of the way


def is_filled(config: DecoderConfig, context: int) -> bool:
    """Whether a text is run to the end of so long a cache."""
    parameters = sum(rows * width for rows, width in config.linears().values())
    return filled(context, parameters, sum(2 * mixer.heads * mixer.head_dim for mixer in config.attentions))


def repeated(windows: list[Window], length: int) -> np.ndarray:
    """All windows as one text, from the start again where they end."""
    return np.resize(np.concatenate([w.ids for w in windows]), length).astype(np.int32)


def spread(length: int) -> np.ndarray:
    """Positions of a text of that length: some on the way, some that windows do not reach, and the last."""
    way = [range(length * i // 4, length * i // 4 + WAY) for i in (1, 2, 3)]
    wanted = {p for part in (*way, BESIDE) for p in part if p < length - 1 - EDGE}
    return np.array(sorted(wanted | set(range(max(length - EDGE, 0), length))), np.int32)
