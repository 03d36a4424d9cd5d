"""Damage done to finished artifacts, as bytes of the file: what a parity check must see."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from smolship.export.weights import Weights


def double_scales_pte(path: Path, weights: Weights, name: str) -> None:
    """Double every scale of the linear `name` inside a finished .pte. A tied head is also the embedding: both are
    changed."""
    scales = weights.tensor(name).scales.astype("<f4")
    doubled = scales * 2
    if weights.entries[name].bits == 4:  # XNNPACK keeps the scales of int4 as bf16
        scales, doubled = (scale.view("<u2")[..., 1::2] for scale in (scales, doubled))
    replace_bytes(path, np.ascontiguousarray(scales).tobytes(), np.ascontiguousarray(doubled).tobytes())


def replace_bytes(path: Path, old: bytes, new: bytes) -> None:
    """Put `new` wherever the file holds `old`, which it must."""
    assert len(old) == len(new)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        at = data.find(old)
        assert at >= 0, f"{path} does not hold those {len(old)} bytes"
        while at >= 0:
            data[at : at + len(new)] = new
            at = data.find(old, at + len(new))
