"""The forms of least cost within a budget: a knapsack, by its Lagrangian.

Each unit's forms on the lower convex hull of bytes against cost are steps of falling gain a byte (Shoham and Gersho
1988, "Efficient bit allocation for an arbitrary set of quantizers"). The steps of all units are taken in that order,
as far as they fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from smolship.export.weights import Form

Option = tuple[int, float, Form]  # bytes, cost


def allocate(options: Mapping[str, Sequence[Option]], room: int) -> dict[str, Form]:
    """The form of each unit, whose bytes are `room` at most; the least ones must fit. Equal gains go by order."""
    hulls = {name: hull(found) for name, found in options.items()}
    chosen = {name: found[0] for name, found in hulls.items()}
    left = room - sum(size for size, _, _ in chosen.values())
    steps = []
    for order, (name, found) in enumerate(hulls.items()):
        for i, (before, after) in enumerate(pairwise(found)):
            gain = (before[1] - after[1]) / (after[0] - before[0])
            steps.append((-gain, order, i, name, before, after))
    for _, _, _, name, before, after in sorted(steps, key=lambda step: step[:3]):
        if chosen[name] == before and after[0] - before[0] <= left:
            chosen[name] = after
            left -= after[0] - before[0]
    return {name: form for name, (_, _, form) in chosen.items()}


def hull(options: Sequence[Option]) -> list[Option]:
    """Those on the lower convex hull, the smallest first: each larger one costs less."""
    found: list[Option] = []
    for one in sorted(options, key=lambda option: option[:2]):
        if found and one[1] >= found[-1][1]:
            continue
        while found and one[0] == found[-1][0]:
            found.pop()
        while len(found) > 1 and _slope(found[-2], found[-1]) >= _slope(found[-2], one):
            found.pop()
        found.append(one)
    return found


def _slope(a: Option, b: Option) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])
