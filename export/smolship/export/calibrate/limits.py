"""How much is held at once."""

from __future__ import annotations

MOST = 8  # threads: each holds arrays of its own
CACHED = 1_500_000_000  # bytes of keys and values, while texts are written
CACHED_ALONE = 3_700_000_000  # of these, where weights are read again for each token
LOGITS = 1 << 22  # numbers of logits
PASSING = 1_000_000_000  # bytes of the widest activations that pass through a layer
