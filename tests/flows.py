"""One text through all layers of our decoder."""

from __future__ import annotations

import numpy as np
import torch

from smolship.export.reference import Reference
from smolship.export.stream import Flow, through


def logits_at(ops: Reference, ids: np.ndarray, at: np.ndarray | None = None) -> np.ndarray:
    """Logits float32 [n, V] at positions `at`, or at all."""
    with torch.inference_mode():
        flow = Flow(ops, ids)
        through([flow], lambda positions: None)
        return np.concatenate([rows for _, rows in flow.logits(np.arange(len(ids)) if at is None else at)])
