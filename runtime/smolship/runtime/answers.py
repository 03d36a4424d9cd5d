"""The judgement of one session's answers: its gaps from the simulation and from the original, and from itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from smolship.runtime.asking import Asked, Look
from smolship.runtime.digits import WHAT, digits_check
from smolship.runtime.errors import InputError
from smolship.runtime.judge import Check, Rounding, judge, same, unmeasured
from smolship.runtime.probes import LEAD, Gap, Probes
from smolship.runtime.result import Result, Seen

# (looks that are judged together, looks whose worst group is judged, the check's name, that of the groups)
STAGES = (
    ("windows", "decode", "simulated → decode", "worst positions"),
    ("prefill", "prefill", "simulated → prefill", "worst length"),
    ("chunks", "chunks", "simulated → chunks", "worst size"),
    ("last", "end", "simulated → cache's end", "worst positions"),
)
PRESET = ", preset"  # the cache was not filled by the text before (Session.preset)


@dataclass(frozen=True)
class Continuation:
    """A greedy continuation of a chat prompt: the first token that differs from the original's, with how far that one
    lay behind, and from the simulation's. None: no token differs. Not judged: a near-tie may fall either way."""

    tokens: int
    original: int | None
    logit_gap: float | None
    simulation: int | None
    ids: list[int]


@dataclass(frozen=True)
class Drift:
    """Relative rms difference of a layer's state from the simulation's, and what rounding makes of it."""

    layer: int
    difference: float
    floor: float


class Answers:
    """What one session answered to what parity asked."""

    def __init__(self, probes: Probes, asked: Asked, result: Result):
        self.probes, self.name, self.result = probes, asked.name, result
        self.looks: dict[str, list[Look]] = {}
        for look in asked.looks:
            self.looks.setdefault(look.stage, []).append(look)

    def checks(self, max_kl: float | None) -> list[Check]:
        """All that is judged; last the whole way from the original."""
        rounding = Rounding("engine", self.probes.gaps[f"{self.name}.ulp"], self.probes.gaps[f"{self.name}.noise"].kl)
        checks = []
        for whole, parts, what, worst in STAGES:
            judged = rounding
            if whole in self.looks:
                if whole == "last":
                    what += PRESET if LEAD in self.probes.arrays else ""
                    judged = replace(rounding, late=self.probes.gaps.get(f"{self.name}.edge.ulp"))
                checks.append(judged.mean(what, [gap for gaps in self._groups(whole).values() for gap in gaps]))
                checks.append(judged.worst(f"{what}, {worst}", self._groups(parts)))
            if whole == "prefill":
                checks.append(rounding.worst(f"{what} → decode, worst length", self._groups("after")))
            if whole == "chunks":
                checks += self._itself()
        if "last" not in self.looks:
            why = f"the export did not simulate a cache of {self.result.traits.capacity:,} tokens to its end"
            if LEAD in self.probes.arrays:
                why = "the engine does not let its cache be preset, and to fill it would take too long"
            checks.append(unmeasured("engine", STAGES[-1][2], why))
        return [*checks, self._digits(rounding), self._total(max_kl)]

    def _digits(self, rounding: Rounding) -> Check:
        if "digits" not in self.looks:
            why = "the export has no digits that are repeated, or its context does not hold them"
            return unmeasured("engine", WHAT, why)
        (look,) = self.looks["digits"]
        return digits_check(self.probes, self.name, self._seen(look), self._gap(look), rounding)

    @property
    def depth(self) -> int:
        """The most tokens that the cache held at a position that is judged."""
        if "last" in self.looks:
            return len(self.probes.arrays["edge.ids"])
        return max(look.rows.stop for look in self.looks["windows"])

    def _total(self, max_kl: float | None) -> Check:
        original = Gap.join(self._groups("original")[""])
        if not len(original.kl):
            return unmeasured("total", "original → engine", "the original is not finite")
        total = judge("total", "original → engine", original, None, max_kl)
        simulated = self.probes.sketches[f"{self.name}.simulated"]
        if not np.isfinite(total.kl) and not np.isfinite(simulated.lse).all():
            total.note = "the simulation is not finite either"
        return total

    def _itself(self) -> list[Check]:
        """Each of the engines gives the same bits each time, whatever the threads (ExecuTorch 1.5, ONNX Runtime 1.32,
        llama.cpp, the interpreter: measured on tiny models and on SmolLM2), so not one may differ."""
        look = self.looks["cold"][0]
        ids = self.probes.sketches[look.reference].ids[look.row :]
        cold, again, rewound = (self._seen(self.looks[stage][0]) for stage in ("cold", "again", "rewound"))
        ids = ids[: len(cold.lse)]
        for seen in (cold, again, rewound):
            seen.at = seen.at[:, : ids.shape[1]]
        lost = "the engine is no function of its tokens, or keeps something when it is rewound to the start"
        stays = "something stays of the tokens that were taken back"
        return [
            same("engine", "cold → cold again", cold, again, ids, lost),
            same("engine", "cold → rewound", again, rewound, ids, stays),
        ]

    def _seen(self, look: Look) -> Seen:
        return Seen.join([self.result.seen[call] for call in look.calls])[look.rows]

    def _groups(self, stage: str) -> dict[str, list[Gap]]:
        found: dict[str, list[Gap]] = {}
        for look in self.looks[stage]:
            found.setdefault(look.group, []).append(self._gap(look))
        return found

    def _gap(self, look: Look) -> Gap:
        """From the reference to what was seen, where the reference is a number: the engine answers for its own NaNs
        alone."""
        seen, sketch = self._seen(look), self.probes.sketches[look.reference]
        wanted = sketch[look.row : look.row + len(seen.lse)]
        at = seen.at[:, look.column : look.column + wanted.ids.shape[1]]
        # The token that came next was asked for last, where there is one.
        picked = np.where(np.isnan(wanted.nll), np.nan, seen.at[:, -1].astype(np.float64))
        keep = np.isfinite(wanted.lse)
        return Gap.of(wanted[keep], seen.lse[keep], at[keep], seen.best[keep], picked[keep])

    def greedy(self) -> list[Continuation]:
        found = []
        for look in self.looks.get("greedy", []):
            seen = self._seen(look)
            ids = seen.best.tolist()
            original = _first_difference(ids, self.probes.arrays[f"greedy.original.{look.group}"])
            said = self.probes.arrays.get(f"greedy.{self.name}.{look.group}")  # not of every arithmetic
            simulated = None if said is None else _first_difference(ids, said)
            behind = None if original is None else float(seen.peak[original] - seen.at[original, 0])
            found.append(Continuation(len(ids), original, behind, simulated, ids))
        return found

    def drift(self) -> list[Drift]:
        """Layer by layer; none where the engine does not show its cache."""
        if not self.result.cache:
            return []
        states, floors = self.probes.states(self.name), self.probes.arrays[f"drift.{self.name}.floor"]
        for state, cache in zip(states, self.result.cache, strict=True):
            if state.shape != cache.shape:
                raise InputError(
                    "the result's cache is not of this model's shape", got=cache.shape, expected=state.shape
                )
        layers = zip(states, self.result.cache, floors, strict=True)
        return [Drift(i, relative(state, cache), float(floor)) for i, (state, cache, floor) in enumerate(layers)]


def relative(reference: np.ndarray, other: np.ndarray) -> float:
    """Root mean square of the difference over that of the reference."""
    scale = float(np.sqrt(np.square(reference, dtype=np.float64).mean()))
    return float(np.sqrt(np.square(other - reference, dtype=np.float64).mean())) / max(scale, 1e-30)


def _first_difference(a: list[int], b: np.ndarray) -> int | None:
    """Index of the first element that differs, None where the shorter is a prefix of the longer."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
