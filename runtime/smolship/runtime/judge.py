"""Checks: one measured gap each, and the bound that it is judged by.

Where only rounding may differ, the bound is a multiple of the **noise floor**: the divergence between two runs of the
very same computation, one of them moved by one unit in the last place at every primitive. It is not a guessed number:
fp32 has a floor of about 1e-10, int8 activations one of about 1e-2, because a rounding that tips over one activation
moves everything after it.

A mean over many positions hides what is wrong at few of them, so the worst few that belong together (a length of
prefill, a stretch of positions) are judged too, by what chance makes of the worst.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smolship.runtime.errors import clip
from smolship.runtime.probes import Gap, Probes, Sketch, mean_and_error
from smolship.runtime.result import Seen

# Engine against simulation, and our decoder against the original, differ in the order of their sums and in how exp and
# rsqrt are computed; the floor moves each primitive's output by up to one ulp. A sum of K terms in another order moves
# by a few ulp (Higham and Mary 2019: about sqrt(K) times less than the worst case; blocked sums less again). Below
# chaos KL grows with the square of that amplitude: five times the floor's amplitude are a factor of 25.
ROUNDING = 25.0
# Where the floor is chaotic (int8 activations), amplitude no longer matters: any perturbation, however small, ends at
# the same divergence, so engine and floor are two draws of one distribution, and their means agree.
CHAOTIC_FLOOR = 1e-5  # nats; fp32 floors lie below 1e-8 and int8 floors above 1e-3
CHAOS = 1.5
# Their extremes agree less: over positions KL is close to lognormal, with a deviation of .7 in the logarithm. The worst
# of 2,048 positions of SmolLM2 in three sound engines was 1.9 to 2.3 times that of the 1,024 of their floors. A run of
# parity looks at some hundred positions one by one: four times that worst is met in one run of a thousand. (A cache's
# last slot that is wrong costs a hundred times the mean.)
CHAOS_ONE = 4.0
# Between the two lies a regime of rare events: on few tokens, or in a tiny model, no rounding of an activation may tip
# over in the floor's two runs, and one may in the engine. Whether it does is chance, its cost is not: at most what
# noise of that step costs such a token. As many tokens as this may be hit beyond what the floor shows.
FLIPS = 10
# Quantization and arithmetic are compared with uniform random noise of the same step width in place of rounding:
# rounding to the nearest of a grid has that variance (step² / 12) and cannot do twice its harm unless it is biased.
PRICE = 2.0
TINY = 1e-11  # nats: what float32 logits themselves resolve
SIGMAS = 4.0  # sampling error allowed on each mean


@dataclass
class Check:
    """One measured gap. KL in nats, a lower bound (see probes.py); `error` is the standard error of the mean."""

    stage: str
    what: str
    positions: int  # 0: it was not measured, and the note says why
    kl: float
    error: float
    p99: float
    max: float
    top1: float  # share of positions
    cosine: float  # lowest
    max_abs: float  # largest difference of a log-probability
    perplexity_ratio: float | None
    floor: float | None  # mean KL of what the bound derives from
    bound: float | None  # the mean KL must not exceed it; None where the gap is reported, not judged
    passed: bool
    note: str = ""
    at: str = ""  # where that is, when it is the worst of several
    exact: bool = (
        False  # judged by equality: of `positions` texts `top1` are equal, and the other figures are no numbers
    )


def rounding_bound(floor: np.ndarray, samples: int, flip: float = 0.0) -> float:
    """The mean KL over `samples` positions that rounding alone explains, given the floor's per-position KL and what one
    activation that is rounded the other way may cost."""
    mean, error = mean_and_error(floor)
    multiple = CHAOS if mean > CHAOTIC_FLOOR else ROUNDING
    # The floor's own mean is uncertain, and so is a mean over few positions.
    spread = np.hypot(error if error == error else 0.0, float(np.std(floor)) / np.sqrt(samples))
    return float(multiple * mean + SIGMAS * spread + FLIPS * flip / samples) + TINY


def worst_bound(floor: np.ndarray, texts: int, run: int, noise: np.ndarray) -> float:
    """The mean KL that rounding alone explains over `run` neighbours in each of `texts` texts, where these are the
    worst of many. In one text one of them is as bad as a single position can be and the others as the floor's worst
    neighbours; the other texts are as the mean may be. `noise` is the per-position KL of noise in place of the rounding
    of activations."""
    chaotic = floor.mean() > CHAOTIC_FLOOR
    multiple, one = (CHAOS, CHAOS_ONE) if chaotic else (ROUNDING, ROUNDING)
    run = min(run, len(floor))
    sums = np.concatenate([[0.0], floor.cumsum()])
    neighbours = (sums[run:] - sums[:-run]).max() / run
    worst = (one * floor.max() + (run - 1) * multiple * neighbours) / run
    # A chaotic floor has its flips. Below chaos one flip in an early token is seen by all that follow.
    flips = 0.0 if chaotic or not len(noise) else noise.max() * min(FLIPS / (texts * run), 1)
    return float((worst + (texts - 1) * multiple * floor.mean()) / texts + flips) + TINY


def judge(stage: str, what: str, gap: Gap, floor: Gap | None, bound: float | None, note: str = "") -> Check:
    """A `Check` of a gap. A NaN anywhere fails it."""
    kl, error = mean_and_error(gap.kl) if np.isfinite(gap.kl).all() else (float("nan"), float("nan"))
    nll, _ = mean_and_error(gap.nll)
    finite = bool(np.isfinite(kl))
    return Check(
        stage=stage,
        what=what,
        positions=len(gap.kl),
        kl=kl,
        error=error,
        p99=float(np.quantile(gap.kl, 0.99)),
        max=float(gap.kl.max()),
        top1=float(gap.top1.mean()),
        cosine=float(gap.cosine.min()),
        max_abs=float(gap.max_abs.max()),
        perplexity_ratio=float(np.exp(nll)) if np.isfinite(nll) else None,
        floor=None if floor is None else float(floor.kl.mean()),
        bound=bound,
        passed=finite and (bound is None or kl <= bound),
        note=note,
    )


def unmeasured(stage: str, what: str, why: str) -> Check:
    """A check that could not be made: it is shown, and not judged."""
    return _without_kl(stage, what, f"not measured: {why}")


def equality(stage: str, what: str, texts: int, equal: int, passed: bool, note: str = "", at: str = "") -> Check:
    """A check of `texts`, of which so many are equal; `at` is the first that is not."""
    check = _without_kl(stage, what, note)
    check.positions, check.top1, check.passed, check.at, check.exact = texts, equal / texts, passed, at, True
    return check


def _without_kl(stage: str, what: str, note: str) -> Check:
    nan = float("nan")
    return Check(
        stage=stage,
        what=what,
        positions=0,
        kl=nan,
        error=nan,
        p99=nan,
        max=nan,
        top1=nan,
        cosine=nan,
        max_abs=nan,
        perplexity_ratio=None,
        floor=None,
        bound=None,
        passed=True,
        note=note,
    )


@dataclass
class Rounding:
    """Judges gaps that only rounding may explain.

    floor  the per-position divergence of two runs that differ by an ulp
    noise  and of one with noise in place of the rounding of activations
    late   that of two runs at the end of a long cache, where it is judged: attention's sums are longer there
    """

    stage: str
    floor: Gap
    noise: np.ndarray
    late: Gap | None = None

    def __post_init__(self) -> None:
        self.floor = self.floor[np.isfinite(self.floor.kl)]
        self.noise = self.noise[np.isfinite(self.noise)]
        if self.late is not None:
            late = self.late[np.isfinite(self.late.kl)]
            self.floor = max(self.floor, late, key=lambda gap: float(gap.kl.mean()) if len(gap.kl) else 0.0)

    def mean(self, what: str, gaps: list[Gap]) -> Check:
        """All positions together."""
        if why := self._lacks(gaps):
            return unmeasured(self.stage, what, why)
        gap = Gap.join(gaps)
        flip = float(self.noise.mean()) if len(self.noise) else 0.0
        return judge(self.stage, what, gap, self.floor, rounding_bound(self.floor.kl, len(gap.kl), flip))

    def worst(self, what: str, groups: Mapping[str, list[Gap]]) -> Check:
        """The group that lies furthest above its bound, or nearest below."""
        if why := self._lacks([gap for gaps in groups.values() for gap in gaps]):
            return unmeasured(self.stage, what, why)
        checks = []
        for at, gaps in groups.items():
            if found := [len(gap.kl) for gap in gaps if len(gap.kl)]:
                bound = worst_bound(self.floor.kl, len(found), min(found), self.noise)
                checks.append(judge(self.stage, what, Gap.join(gaps), self.floor, bound))
                checks[-1].at = at
        return max(checks, key=lambda c: c.kl / (c.bound or TINY) if np.isfinite(c.kl) else np.inf)

    def _lacks(self, gaps: list[Gap]) -> str:
        if not len(self.floor.kl):
            return "the simulation moved by an ulp is not finite, so there is no floor"
        return "" if any(len(gap.kl) for gap in gaps) else "the simulation is not finite at any of these positions"


def same(stage: str, what: str, first: Seen, again: Seen, ids: np.ndarray, note: str) -> Check:
    """One computation that was done twice, whose logits must not differ in a bit; `note` says what it means where they
    do. The KL is that over the tokens `ids` [N, K], whose logits were kept."""
    nothing = np.full(len(ids), np.nan)
    differ = sum(a != b for a, b in zip(first.digests, again.digests, strict=True))
    gap = Gap.of(Sketch(first.lse, ids, first.at, nothing), again.lse, again.at, again.best, nothing)
    if not differ:  # neither the 1e-17 that the formula's own rounding leaves, nor a NaN, which is judged elsewhere
        ones = np.ones(len(ids))
        gap = Gap(0 * ones, ones > 0, ones, 0 * ones, nothing)
    check = judge(stage, what, gap, None, 0.0)
    if differ:
        check.passed, check.note = False, f"{differ:,} of {len(ids):,} positions differ; {note}"
    return check


def translation_checks(probes: Probes) -> list[Check]:
    """From the original to our decoder: what an export can judge as soon as it has its probes."""
    what, near, ulp = "original → our decoder", probes.gaps["decoder"], probes.gaps["decoder.ulp"]
    rounding = Rounding("translation", ulp, np.empty(0))
    # Nothing tips over in fp32, so not a single position may lie far out.
    single = _each(near, [f"probed position {i:,}" for i in range(len(near.kl))])
    checks = [rounding.mean(what, [near])]
    if "decoder.far" in probes.gaps:
        far, at = probes.gaps["decoder.far"], probes.arrays["far.at"]
        checks.append(rounding.mean(f"{what}, far positions", [far]))
        checks[-1].at = f"up to {int(at[-1]):,}"
        single |= _each(far, [f"far position {i:,}" for i in at])
    checks.append(rounding.worst(f"{what}, worst position", single))
    for check in checks:
        if not check.passed and not np.isfinite(check.kl):
            check.note = _not_finite(probes, "decoder", "our decoder")
    return checks


def stored_checks(probes: Probes, target: str) -> list[Check]:
    """The stages that were measured at export."""
    gaps, ulp = probes.gaps, probes.gaps["decoder.ulp"].kl
    ulp = ulp[np.isfinite(ulp)]
    checks = translation_checks(probes)
    for stage, what, name, noise in (
        ("quantization", "original → quantized", "quantized", "quantized.noise"),
        ("re-rounding", "quantized → rounded again", f"{target}.rerounded", f"{target}.rerounded.noise"),
        ("arithmetic", "quantized → simulated", f"{target}.simulated", f"{target}.noise"),
    ):
        if name not in gaps:
            continue  # the target holds the weights as they are
        mean, error = mean_and_error(gaps[noise].kl)
        # Where nothing is rounded at all (fp16 weights, fp32 activations) both are 0 but for float noise.
        floor = rounding_bound(ulp, len(ulp)) if len(ulp) else TINY
        bound = PRICE * (mean + SIGMAS * (error if error == error else 0.0)) + floor
        checks.append(judge(stage, what, gaps[name], gaps[noise], bound))
        if not np.isfinite(checks[-1].kl):
            checks[-1].note = _not_finite(probes, name, "the simulation" if stage == "arithmetic" else "our decoder")
    moved = gaps[f"{target}.ulp"].kl
    if checks[-1].passed and not np.isfinite(moved).all():
        where, bad = _where(probes, f"{target}.ulp"), int((~np.isfinite(moved)).sum())
        checks[-1].passed = False
        checks[-1].note = (
            f"the simulation moved by an ulp is not finite at {bad:,} of {len(moved):,} positions, so the engine has "
            f"no sound floor{where}"
        )
    return checks


def _not_finite(probes: Probes, name: str, whose: str) -> str:
    """Whose infinity or NaN it is that a stored gap shows."""
    lse, kl = probes.sketches["original"].lse, probes.gaps[name].kl
    if not np.isfinite(lse).all():
        return f"the original itself is not finite at {(~np.isfinite(lse)).sum():,} of {len(lse):,} positions"
    bad = int((~np.isfinite(kl)).sum())
    at = f" at {bad:,} of {len(kl):,} positions" if bad else ""
    return f"{whose} is not finite{at}{_where(probes, name)}"


def _where(probes: Probes, name: str) -> str:
    """Of the operator that made the first infinity or NaN, where the export found it."""
    found = probes.facts.get("nonfinite")
    where = found.get(name) if isinstance(found, dict) else None
    return f", first in {clip(where, 80)}" if where else ""


def _each(gap: Gap, names: Sequence[str]) -> dict[str, list[Gap]]:
    """Every position by itself."""
    return {name: [gap[i : i + 1]] for i, name in enumerate(names)}
