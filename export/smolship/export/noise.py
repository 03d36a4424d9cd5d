"""Weights with noise in place of rounding: what rounding is priced against."""

from __future__ import annotations

import math
import zlib

import numpy as np

from smolship.export.weights import Source, Weights


class Noisy:
    """A source of the checkpoint's values, each moved by uniform noise as wide as the step of the grid that holds it
    (int4, int8 or fp16): what rounding would cost if it were no better and no worse than noise. Values that the grid
    holds exactly stay as they are. Each number has noise of its own, in whatever pieces a tensor is read.
    """

    def __init__(self, checkpoint: Source, weights: Weights):
        self.checkpoint, self.weights = checkpoint, weights

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        values = self.checkpoint.read(name, start, stop)
        bits = np.random.PCG64(zlib.crc32(name.encode()))
        bits.advance(start * math.prod(values.shape[1:]))
        if self.weights.quantized(name):
            q = self.weights.tensor(name, start, stop)
            held, step = q.dequantize(), np.repeat(q.scales, q.group, axis=1)
        else:
            held = self.weights.values(name, start, stop)
            step = np.spacing(np.abs(held).astype(np.float16)).astype(np.float32)
        noise = np.random.Generator(bits).uniform(-0.5, 0.5, values.shape).astype(np.float32)
        return np.where(held == values, values, values + noise * step)
