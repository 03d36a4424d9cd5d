"""The tensors of a source that are held for a while, and a quantized set in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smolship.export.freed import trim
from smolship.export.quantize import MAX_SCALE, MIN_SCALE, QuantTensor, round_bf16
from smolship.export.reference import fill
from smolship.export.weights import Source, Weights


class Held:
    """float32 tensors of a source, read when they are asked for first, until they are let go of."""

    def __init__(self, source: Source, shapes: Mapping[str, tuple[int, ...]], device: torch.device):
        self.source, self.shapes, self.device = source, shapes, device
        self.tensors: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str) -> Tensor:
        with self._lock:
            if name not in self.tensors:
                whole = np.empty(self.shapes[name], np.float32)
                fill(whole, lambda start, stop: self.source.read(name, start, stop))
                self.tensors[name] = torch.from_numpy(whole).to(self.device)
            return self.tensors[name]

    def forget(self, prefix: str) -> None:
        """Let go of those whose names begin so."""
        for name in [name for name in self.tensors if name.startswith(prefix)]:
            trim(self.tensors.pop(name).numel())


def on_grid(scales: np.ndarray) -> np.ndarray:
    """The nearest portable scales."""
    return np.clip(round_bf16(scales), np.float32(MIN_SCALE), np.float32(MAX_SCALE))


class Calibrated:
    """A quantized set of which some tensors are replaced: a `GridSource` of the whole.

    matrices  with the codes and scales that take the place of the set's
    vectors   gains, float32
    """

    def __init__(self, base: Weights):
        self.base = base
        self.matrices: dict[str, QuantTensor] = {}
        self.vectors: dict[str, np.ndarray] = {}

    def spill(self, names: Iterable[str], folder: Path) -> None:
        """Codes of these matrices go to files: of a large model they are as large as all that is held besides."""
        for name in names:
            if name in self.matrices:
                path = folder / f"{name}.npy"
                np.save(path, self.matrices[name].codes)
                self.matrices[name] = replace(self.matrices[name], codes=np.load(path, mmap_mode="r"))

    def grid(self, name: str) -> tuple[int, int] | None:
        entry = self.base.entries[name]
        return (entry.bits, entry.group) if entry.bits < 16 else None

    def lift(self, name: str, start: int = 0, stop: int | None = None) -> QuantTensor:
        if name not in self.matrices:
            return self.base.tensor(name, start, stop)
        q = self.matrices[name]
        return replace(q, codes=q.codes[start:stop], scales=q.scales[start:stop])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Values, as every source has them."""
        if name in self.vectors:
            return self.vectors[name][start:stop]
        return self.lift(name, start, stop).dequantize() if name in self.matrices else self.base.read(name, start, stop)
