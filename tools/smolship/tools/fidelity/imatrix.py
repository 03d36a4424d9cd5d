"""llama.cpp's importance matrix: the mean square of each input of each matrix, over a text.

llama.cpp's `llama-imatrix` gathers it while the model runs; its Python package has no such tool, so our decoder in fp32
does. As there, the matrices of the layers have one; the table and the head have none. The quantizer takes it in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from smolship.export.checkpoints import Checkpoint
from smolship.export.config import DecoderConfig
from smolship.export.reference import Reference
from smolship.export.stream import Flow, through
from smolship.export.weights import Source
from smolship.runtime.tensors import GGUF, parse


class Squares(Reference):
    """The primitives in fp32, and of what each matrix takes the sums of squares, and how many tokens they are of."""

    def __init__(self, config: DecoderConfig, weights: Source, context: int):
        super().__init__(config, weights, context)
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def linear(self, names: Sequence[str], x: Tensor) -> list[Tensor]:
        seen = x.reshape(-1, x.shape[-1])
        for name in names:
            total, count = self.sums.get(name, (torch.zeros(seen.shape[1], dtype=torch.float64), 0))
            self.sums[name] = total + seen.square().sum(0, dtype=torch.float64), count + len(seen)
        return super().linear(names, x)


def importance(
    checkpoint: Checkpoint, texts: Sequence[np.ndarray], progress: Callable[[float], None]
) -> dict[str, np.ndarray]:
    """llama.cpp's name of a matrix -> float32 [in]. `progress` takes how many positions more have passed."""
    ops = Squares(checkpoint.config, checkpoint, max(map(len, texts)))
    with torch.inference_mode():
        through([Flow(ops, ids) for ids in texts], progress)
    found = {}
    for name, (total, count) in ops.sums.items():
        ours = parse(name)
        found[f"{GGUF[ours.kind].format(ours.layer)}.weight"] = (total / count).float().numpy()
    return found
