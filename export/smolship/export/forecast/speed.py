"""How fast this machine is, in a moment: what times are forecast from. Other work at that moment shows in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

REPEATS, SECONDS = 3, 0.06  # at least, of each part: another process's turn on a core is shorter than the second
MOST = 100


@dataclass(frozen=True)
class Speed:
    """python   steps of a loop a second
    quantize  numbers searched for int4 scales a second
    convert   bytes read and written a second by numpy, as a target's data is made
    multiply  floating-point operations a second of a matrix product, as probes compute it
    """

    python: float
    quantize: float
    convert: float
    multiply: float


def measure_speed(clock: Callable[[], float] = time.perf_counter) -> Speed:
    """About half a second, of which each part counts its best time."""
    import torch

    from smolship.export.quantize import quantize
    from smolship.export.reference import product

    random = np.random.default_rng(0)
    rows = random.standard_normal((256, 1024), np.float32)
    block = np.ones(1 << 22, np.float32)
    a, b = torch.ones(256, 1024), torch.ones(1024, 1024)

    def loop() -> None:
        total = 0
        for i in range(200_000):
            total += i & 7

    def convert() -> None:
        block.astype(np.float16)

    return Speed(
        200_000 / _best(loop, clock),
        rows.size / _best(lambda: quantize(rows, 4, 32), clock),
        6 * block.size / _best(convert, clock),
        2 * 256 * 1024 * 1024 / _best(lambda: product(a, b), clock),
    )


def _best(work: Callable[[], object], clock: Callable[[], float]) -> float:
    times: list[float] = []
    while len(times) < REPEATS or (sum(times) < SECONDS and len(times) < MOST):
        start = clock()
        work()
        times.append(clock() - start)
    return max(min(times), 1e-9)
