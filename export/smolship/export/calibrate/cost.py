"""How much work each part of a calibration is, in multiplications of large products, for its progress and forecast."""

from __future__ import annotations

import math
from dataclasses import dataclass

from smolship.export.calibrate.asked import Effort
from smolship.export.calibrate.limits import CACHED, CACHED_ALONE
from smolship.export.config import DecoderConfig

# How much slower than large products the rest makes each part: by the times of SmolLM2 on two processors.
WRITE, PASS, TRAIN = 3.9, 1.5, 2.1
ROUNDED = 3e4  # multiplications, in whose time a weight is rounded


@dataclass(frozen=True)
class Work:
    """Multiplications of each part."""

    write: float
    layers: float
    train: float

    @property
    def total(self) -> float:
        return self.write + self.layers + self.train


def work_of(config: DecoderConfig, effort: Effort, length: int, writes: bool, whole: bool) -> Work:
    """`writes`: the model writes the text. `whole`: it is trained whole."""
    linears = {name: shape for name, shape in config.linears().items() if name.startswith("layers.")}
    linear, head = sum(map(math.prod, linears.values())), config.vocab * config.hidden
    tokens, step = effort.windows * length, effort.batch * length
    squares = sum(
        width**2 for name, (_, width) in linears.items() if name.rsplit(".", 1)[1] in ("q", "o", "up", "down")
    )
    layers = PASS * tokens * (2 * linear + squares / 2) + ROUNDED * linear
    if not whole:
        layers += TRAIN * step * effort.layer_steps * 3 * linear + PASS * tokens * linear
    train = TRAIN * step * effort.steps * 3 * (linear + head) if whole else 0.0
    return Work(WRITE * tokens * (linear + head) if writes else 0.0, layers, train)


def texts_at_once(config: DecoderConfig, length: int, count: int, keep: bool) -> int:
    """As many as keys and values allow, in rounds of about as many."""
    each = sum(4 * math.prod(shape) for spec in config.cache(length) for shape in spec.shapes)
    rounds = -(-count // max(1, (CACHED if keep else CACHED_ALONE) // each))
    return -(-count // rounds)
