"""What the digest of a set of weights is: one definition, shared by what writes weights and what reads them back.

Codes are hashed one a byte and scales as little-endian fp16, whatever a file packs them into, so that any artifact can
be compared. Rows may come in pieces of any size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Entry:
    """One tensor of a set, as weights.json lists it."""

    shape: tuple[int, ...]
    bits: int
    group: int
    origin: str  # "quantized", "calibrated", "lifted" from a GGUF file, "re-rounded" for a target, or "rounded" (fp16)
    sha256: str = ""


class TensorHash:
    """SHA-256 of one tensor: its name, shape, bits and group, then all codes (or fp16 values), then all scales."""

    def __init__(self, name: str, entry: Entry):
        head = f"{name} {list(entry.shape)} {entry.bits} {entry.group}\n".encode()
        self.codes, self.scales = hashlib.sha256(head), hashlib.sha256()

    def update(self, values: np.ndarray, scales: np.ndarray | None = None) -> None:
        """The next rows: int8 codes with their scales, or values that fp16 holds."""
        if scales is None:
            self.codes.update(np.ascontiguousarray(values.astype("<f2", copy=False)).data)
        else:
            assert values.dtype == np.int8
            self.codes.update(np.ascontiguousarray(values).data)
            self.scales.update(np.ascontiguousarray(scales.astype("<f2", copy=False)).data)

    def hexdigest(self) -> str:
        return hashlib.sha256(self.codes.digest() + self.scales.digest()).hexdigest()


def digest(hashes: Iterable[str]) -> str:
    """The digest that names a whole set, from its tensors' in their order."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, hashes))).hexdigest()
