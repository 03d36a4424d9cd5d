"""Decoders as data, for tests: changed ones, and random weights for any."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from smolship.export.config import DecoderConfig, with_mixers
from smolship.export.rotary import Rotary


def with_rotary(
    config: DecoderConfig, change: Callable[[Rotary], Rotary | None], absent: Rotary | None = None
) -> DecoderConfig:
    """The config with each rotary embedding changed; layers that have none get `absent`."""
    rotaries = [mixer.rotary for mixer in config.attentions]
    return with_mixers(config, rotary=[change(rotary) if rotary else absent for rotary in rotaries])


class RandomSource:
    """Float weights for any config: matrices of size 0.08, gains near 1, biases and kernels of size 0.5."""

    def __init__(self, config: DecoderConfig, seed: int = 7):
        draw = np.random.default_rng(seed).standard_normal
        self.tensors = {name: draw(shape, np.float32) for name, shape in config.shapes().items()}
        for name, values in self.tensors.items():
            size = 0.1 if name.endswith("norm") else 0.5 if name.endswith(("bias", "conv")) else 0.08
            values *= np.float32(size)
            values += np.float32(name.endswith("norm"))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.tensors[name][start:stop]
