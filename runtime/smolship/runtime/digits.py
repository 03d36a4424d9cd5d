"""Whether an engine says long numbers again as they were: at each digit its first choice is held against that of the
simulation, where that one is surer than rounding can move it.
"""

from __future__ import annotations

import numpy as np

from smolship.runtime.judge import CHAOS_ONE, CHAOTIC_FLOOR, ROUNDING, Check, Rounding, unmeasured
from smolship.runtime.probes import Gap, Probes, Sketch
from smolship.runtime.result import Seen

IDS, AT = "digits.ids", "digits.at"
WHAT = "simulated → digits"
RESOLVED = 1e-4  # of a difference of float32 logits
SHOWN = 3  # wrong digits that are named


def sketch_name(name: str) -> str:
    """What the simulation of a target says from the first digit of the repeat to its last."""
    return f"{name}.digits"


def moved_name(name: str) -> str:
    """How far rounding moves its lead at each digit."""
    return f"digits.{name}.moved"


def has_digits(probes: Probes, name: str) -> bool:
    return IDS in probes.arrays and sketch_name(name) in probes.sketches


def surest(moved: np.ndarray, ulp: Gap, noise: Gap) -> float:
    """The lead, in logits, that no rounding of an engine turns over: that of the floors as judge.py has them, where KL
    grows with the square of an amplitude.

    moved  by how much an ulp moves the leads of the digits themselves, [P]
    """
    most = float(moved.max())
    if ulp.kl.mean() > CHAOTIC_FLOOR:
        # In a short text no rounding may tip over in the floor's two runs, and one may in the engine.
        return CHAOS_ONE**0.5 * max(most, float(ulp.max_abs.mean())) + RESOLVED
    # Below chaos an activation that tips over in the engine alone may cost as much as noise does.
    return max(ROUNDING**0.5 * most, float(noise.max_abs.max(initial=0.0))) + RESOLVED


def digits_check(probes: Probes, name: str, seen: Seen, gap: Gap, rounding: Rounding) -> Check:
    """Judge what an engine said from the first digit of the repeat to its last. `gap` is that from the simulation."""
    sketch, at = probes.sketches[sketch_name(name)], probes.arrays[AT]
    rows, following = at - at[0], probes.arrays[IDS][at + 1]
    first, lead = _choices(sketch[rows])
    limit = surest(probes.arrays[moved_name(name)], probes.gaps[f"{name}.ulp"], probes.gaps[f"{name}.noise"])
    if not np.isfinite(sketch.lse).all() or not np.isfinite(limit):
        return unmeasured("engine", WHAT, "the simulation is not finite at the digits")
    sure = lead > limit
    itself = f"the model itself repeats {int((first == following).sum())} of {len(at)}"
    if not sure.any():
        why = f"of none of the {len(at)} digits that are to be repeated the simulation is surer than rounding moves it"
        return unmeasured("engine", WHAT, f"{why}; {itself}")
    check = rounding.worst(WHAT, {"": [gap[rows]]})  # of neighbours in one text: they go astray together
    check.at = f"{int(sure.sum())} of {len(at)} digits judged, {itself}"
    wrong = np.flatnonzero(sure & (seen.best[rows] != first))
    if len(wrong):
        which = ", ".join(f"token {seen.best[rows[i]]} for {first[i]} at {at[i] + 1}" for i in wrong[:SHOWN])
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        check.passed = False
        check.note = f"{len(wrong)} of {int(sure.sum())} digits are wrong that are sure: {which}{more}"
    return check


def _choices(sketch: Sketch) -> tuple[np.ndarray, np.ndarray]:
    """The first choice's token [P], and its lead over the second in logits [P]."""
    order = np.argsort(sketch.logits, axis=1)
    rows = np.arange(len(order))
    top, next_ = order[:, -1], order[:, -2] if order.shape[1] > 1 else order[:, -1]
    return sketch.ids[rows, top], (sketch.logits[rows, top] - sketch.logits[rows, next_]).astype(np.float64)
