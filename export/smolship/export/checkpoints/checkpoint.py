"""A checkpoint that was opened and checked, whatever it was opened from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from smolship.export.config import DecoderConfig
from smolship.export.quantize import QuantTensor
from smolship.export.slots import Rows


@dataclass
class Checkpoint:
    """A checked checkpoint. Tensors are read lazily, by our names, in rows (`read`).

    raw     its config.json
    config  what that says, in our terms
    slots   our tensor name -> where it lies
    files   the tokenizer's and other side files, by name
    path    the folder or GGUF file
    ends    a GGUF file's end tokens, by the keys that name them; None for a folder (see facts.py)
    weights of a folder: the files that hold them, by name; the index, where there is one, comes first
    tokenizer  the folder that the tokenizer was taken from, where it is another
    """

    raw: dict[str, Any]
    config: DecoderConfig
    slots: Mapping[str, Rows]
    files: dict[str, bytes]
    path: Path
    revision: str | None = None
    notes: list[str] = field(default_factory=list)
    ends: dict[str, int] | None = None
    weights: tuple[str, ...] = ()
    tokenizer: Path | None = None

    @property
    def places(self) -> dict[str, str]:
        """What another process opens it by."""
        return {"model": str(self.path)} | ({"tokenizer": str(self.tokenizer)} if self.tokenizer else {})

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start…stop of a tensor as float32."""
        return self.slots[name].read(start, stop).astype(np.float32, copy=False)

    def grid(self, name: str) -> tuple[int, int] | None:
        """(bits, group) of a matrix that is quantized already, on a grid that we hold."""
        return self.slots[name].grid

    def lift(self, name: str, start: int = 0, stop: int | None = None) -> QuantTensor:
        """Rows of a matrix that has a `grid`, as they are quantized."""
        return self.slots[name].lift(start, stop)
