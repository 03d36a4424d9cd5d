"""How many bytes of weights an engine reads for one token."""

from __future__ import annotations

import math
from collections.abc import Callable

from smolship.export.config import DecoderConfig
from smolship.export.weights import Weights
from smolship.runtime.readback.hashing import Entry


def bytes_per_token(config: DecoderConfig, weights: Weights, stored_bytes: Callable[[Entry], int]) -> int:
    """All but the embedding's table, of which a token reads one row, unless that is the head too."""
    return sum(
        stored_bytes(entry) for name, entry in weights.entries.items() if name != "embed" or config.head == "embed"
    )


def set_bytes(entry: Entry) -> int:
    """Of a tensor in the set, before a target stores it: codes, and two for each scale."""
    count = math.prod(entry.shape)
    return count * entry.bits // 8 + (2 * count // entry.group if entry.group else 0)
