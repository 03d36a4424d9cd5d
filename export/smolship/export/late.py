"""The end of a cache that is too long to be filled: a few tokens are fed behind keys and values that are not theirs.

Those of the first tokens of another text are taken, as `Session.preset` takes them. So rotary tables, masks and buffers
are looked at where they end, for the price of the tokens that are fed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smolship.export.long_text import EDGE, WAY
from smolship.export.reference import Cache, Reference
from smolship.export.stream import Flow
from smolship.runtime.session import over_and_over

LEAD_IN = 70  # tokens fed at once before those that are looked at: a whole chunk of Core ML's, and some
ULP = 2.0**-24


def late_positions(context: int) -> np.ndarray:
    """Some at each quarter of the way, and the last."""
    way = {p for i in (1, 2, 3) for p in range(context * i // 4, context * i // 4 + WAY)}
    return np.array(sorted(way | set(range(max(context - EDGE, 0), context))), np.int32)


class Late(Flow):
    """Tokens from `start` on. What lies before them in the cache is made of what `first` keeps, a flow of the same
    arithmetic that goes through each layer before this one."""

    def __init__(self, ops: Reference, ids: np.ndarray, start: int, first: Flow, part: int = 0):
        super().__init__(ops, ids, part=part)
        self.start, self.first = start, first
        self.cache = Cache(ops.config.cache(start + len(ids)))

    def layer(self, i: int) -> None:
        for rows, place in zip(self.first.kept[i], self.cache[i], strict=True):
            over_and_over(rows, place[0, : self.start].numpy())
        super().layer(i)


def late_flows(ops: Reference, ids: np.ndarray, at: np.ndarray, first: Flow, lead: int = LEAD_IN) -> list[Late]:
    """One for each stretch of the positions `at` of a text, with `lead` tokens before it."""
    starts = [max(int(run[0]) - lead, 0) for run in _runs(at)]
    return [
        Late(ops, ids[start : int(run[-1]) + 1], start, first, part=i)
        for i, (start, run) in enumerate(zip(starts, _runs(at), strict=True))
    ]


def late_logits(flows: Sequence[Late], at: np.ndarray) -> np.ndarray:
    """Logits float32 [N, V] at those positions."""
    runs = zip(flows, _runs(at), strict=True)
    return np.concatenate([logits for flow, run in runs for _, logits in flow.logits(run - flow.start)])


def _runs(at: np.ndarray) -> list[np.ndarray]:
    """Ascending positions, cut where they do not follow one another."""
    return np.split(at, np.flatnonzero(np.diff(at) != 1) + 1)


class Summing(Reference):
    """The simulation moved by rounding as a long cache has it: attention sums a term for each token in the cache, and
    where the roundings of a sum of T terms are independent, it is off by about the square root of T of them. They are
    roundings of the values, which are larger than their sum where they differ in sign."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
        mixed = super().attend(layer, q, k, v, position)
        seen = int(position) + q.shape[1]
        values = self.cache[layer][1][0, :seen].abs().mean(0)  # [G, K]
        values = values.repeat_interleave(q.shape[2] // len(values), 0).flatten()  # [H * K]
        moved = torch.rand(mixed.shape, generator=self.noise) * 2 - 1
        return self.round(mixed.float() + seen**0.5 * ULP * values * moved).to(mixed.dtype)
