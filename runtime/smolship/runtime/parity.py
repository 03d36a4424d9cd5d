"""Staged parity: each gap between the original and the engine has a name, and a bound with a reason.

    original fp32 -> our decoder      translation   rounding only
    original -> quantized weights     quantization  the price of the bits
    quantized -> rounded again        re-rounding   the price of lifted weights that the target cannot hold; rare
    quantized -> simulated numerics   arithmetic    the price of the engine's fp16 or int8 activations
    simulated -> engine               engine        rounding only: anything more is a bug
    engine -> engine                  prefill, chunks, rewind, edge: the same tokens by another way

All up to the simulation were measured at export and travel in the probes; the rest is measured here, without torch.

Where only rounding may differ, the bound is a multiple of the **noise floor**: the divergence between two runs of the
very same computation, one of them moved by one unit in the last place at every primitive. It is not a guessed number:
fp32 has a floor of about 1e-10, int8 activations one of about 1e-2, because a rounding that tips over one activation
moves everything after it.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from smolship.runtime.bundle import Bundle, default_threads
from smolship.runtime.errors import InputError
from smolship.runtime.probes import Gap, Probes, Sketch, Window, mean_and_error
from smolship.runtime.session import Session

# Engine against simulation, and our decoder against the original, differ in the order of their sums and in how exp and
# rsqrt are computed; the floor moves each primitive's output by up to one ulp. A sum of K terms in another order moves
# by a few ulp (Higham and Mary 2019: about sqrt(K) times less than the worst case; blocked sums less again). Below
# chaos KL grows with the square of that amplitude: five times the floor's amplitude are a factor of 25.
ROUNDING = 25.0
# Where the floor is chaotic (int8 activations), amplitude no longer matters: any perturbation, however small, ends at
# the same divergence, so engine and floor are two draws of one distribution, and their means agree.
CHAOTIC_FLOOR = 1e-5  # nats; fp32 floors lie below 1e-8 and int8 floors above 1e-3
CHAOS = 1.5
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
    positions: int
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


@dataclass
class ParityReport:
    """All checks of one target."""

    bundle: str
    target: str
    engine: str
    weights_digest: str
    host: str
    threads: int
    quick: bool
    checks: list[Check]
    greedy: list[dict[str, Any]] = field(default_factory=list)
    drift: list[dict[str, Any]] = field(default_factory=list)
    found: str = ""  # where the drift begins, when the engine's gate failed
    runtime: str = ""  # what ran, where the engine's name stands for more than one: "Core ML" or "interpreter"
    nonfinite: list[str] = field(default_factory=list)  # infinities and NaNs on the way, each with its operator
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks) and not self.nonfinite

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


def rounding_bound(floor: np.ndarray, samples: int, flip: float = 0.0) -> float:
    """The mean KL over `samples` positions that rounding alone explains, given the floor's per-position KL and what one
    activation that is rounded the other way may cost."""
    mean, error = mean_and_error(floor)
    multiple = CHAOS if mean > CHAOTIC_FLOOR else ROUNDING
    # The floor's own mean is uncertain, and so is a mean over few positions.
    spread = np.hypot(error if error == error else 0.0, float(np.std(floor)) / np.sqrt(samples))
    return float(multiple * mean + SIGMAS * spread + FLIPS * flip / samples) + TINY


def judge(stage: str, what: str, gap: Gap, floor: Gap | None, bound: float | None, note: str = "") -> Check:
    """A `Check` of a gap. A NaN anywhere fails it."""
    kl, error = mean_and_error(gap.kl) if np.isfinite(gap.kl).all() else (float("nan"), float("nan"))
    nll, _ = mean_and_error(gap.nll)
    finite = bool(np.isfinite(kl))
    return Check(
        stage=stage, what=what, positions=len(gap.kl), kl=kl, error=error,
        p99=float(np.quantile(gap.kl, 0.99)), max=float(gap.kl.max()), top1=float(gap.top1.mean()),
        cosine=float(gap.cosine.min()), max_abs=float(gap.max_abs.max()),
        perplexity_ratio=float(np.exp(nll)) if np.isfinite(nll) else None,
        floor=None if floor is None else float(floor.kl.mean()),
        bound=bound, passed=finite and (bound is None or kl <= bound), note=note,
    )  # fmt: skip


def stored_checks(probes: Probes, target: str) -> list[Check]:
    """The stages that were measured at export."""
    gaps = probes.gaps
    checks = []
    decoder, ulp = gaps["decoder"], gaps["decoder.ulp"]
    bound = rounding_bound(ulp.kl, len(decoder.kl))
    checks.append(judge("translation", "original → our decoder", decoder, ulp, bound))
    for stage, what, name, noise in (
        ("quantization", "original → quantized", "quantized", "quantized.noise"),
        ("re-rounding", "quantized → rounded again", f"{target}.rerounded", f"{target}.rerounded.noise"),
        ("arithmetic", "quantized → simulated", f"{target}.simulated", f"{target}.noise"),
    ):
        if name not in gaps:
            continue  # the target holds the weights as they are
        mean, error = mean_and_error(gaps[noise].kl)
        # Where nothing is rounded at all (fp16 weights, fp32 activations) both are 0 but for float noise.
        bound = PRICE * (mean + SIGMAS * (error if error == error else 0.0)) + rounding_bound(ulp.kl, len(ulp.kl))
        checks.append(judge(stage, what, gaps[name], gaps[noise], bound))
    return checks


def parity(
    bundle: Bundle,
    target: str,
    *,
    quick: bool = False,
    threads: int | None = None,
    max_kl: float | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> ParityReport:
    """Measure every stage of one target on this machine.

    quick   the first 64 positions of each window, and of the first window alone the prefills and some chunks
    max_kl  an upper bound of your own on the mean KL from the original to the engine, in nats
    """
    start = time.monotonic()
    probes = bundle.probes()
    entry = bundle.entry(target)
    if f"{target}.simulated" not in probes.sketches:
        raise InputError("the probes do not cover that target", got=target, expected=", ".join(probes.sketches))
    threads = threads or default_threads()
    checks = stored_checks(probes, target)
    for check in checks:
        check.note = entry.rerounded() if check.stage == "re-rounding" else ""
    limit = 64 if quick else None
    found: list[str] = []
    with bundle.session(target, threads) as session:
        engine = _Engine(session, probes, target, limit, progress)
        checks += engine.checks(max_kl)
        greedy = engine.greedy()
        drift = engine.drift()
        runtime, nonfinite = session.runtime, session.nonfinite
    if _engine_failed(checks):
        found.append(_found(drift))
    for arithmetic in probes.arithmetics(target):
        with bundle.session(target, threads, verify=False, arithmetic=arithmetic) as session:
            engine = _Engine(session, probes, f"{target}.{arithmetic}", limit, progress, f", {arithmetic}")
            more = engine.checks(None)[:-1]
            if _engine_failed(more):
                found.append(f"{arithmetic}: {_found(engine.drift())}")
            checks += more
            nonfinite += [f"{where} ({arithmetic})" for where in session.nonfinite]
    if nonfinite:
        found.append("not finite: " + "; ".join(nonfinite))
    report = ParityReport(
        bundle=bundle.path.name, target=entry.target, engine=entry.engine, runtime=runtime, nonfinite=nonfinite,
        host=platform.platform(), threads=threads, weights_digest=entry.own_digest or bundle.manifest.weights_digest,
        quick=quick, checks=checks, greedy=greedy, drift=drift,
        found="\n".join(found), seconds=time.monotonic() - start,
    )  # fmt: skip
    return report


def _engine_failed(checks: list[Check]) -> bool:
    return any(not check.passed for check in checks if check.stage == "engine")


class _Engine:
    """The live stages of one session."""

    def __init__(self, session: Session, probes: Probes, target: str, limit: int | None, progress: Callable,
                 label: str = ""):  # fmt: skip
        self.session, self.probes, self.progress = session, probes, progress
        self.target, self.limit, self.label = target, limit, label
        self.simulated = probes.sketches[f"{target}.simulated"]
        self.floor = probes.gaps[f"{target}.ulp"]
        self.flip = float(probes.gaps[f"{target}.noise"].kl.mean())

    def checks(self, max_kl: float | None) -> list[Check]:
        live, original = [], []
        windows = list(enumerate(self.probes.windows))
        for done, (i, window) in enumerate(windows):
            self.progress("token by token", done, len(windows))
            rows, logits = self._step(i, window)
            following = window.following[: len(logits)]
            live.append(Gap.between(self.simulated[rows], logits, following))
            original.append(Gap.between(self.probes.sketches["original"][rows], logits, following))
        total = judge("total", "original → engine", Gap.join(original), None, max_kl)
        checks = [
            self._rounding("simulated → decode", live),
            self._rounding("simulated → prefill", self._prefills(windows[: 1 if self.limit else None])),
            self._rounding("simulated → chunks", self._chunks(windows[: 1 if self.limit else None])),
            self._rounding("cold → rewound", [self._rewind(windows[0][1])]),
        ]
        if "edge.ids" in self.probes.arrays:
            checks.append(self._rounding("simulated → cache's end", self._edge()))
        return [*checks, total]

    def _rounding(self, what: str, gaps: list[Gap]) -> Check:
        gap = Gap.join(gaps)
        bound = rounding_bound(self.floor.kl, len(gap.kl), self.flip)
        return judge("engine", what + self.label, gap, self.floor, bound)

    def _step(self, index: int, window: Window) -> tuple[slice, np.ndarray]:
        """Logits of a window token by token, and the rows of the probes that they belong to."""
        count = min(self.limit or len(window.ids), len(window.ids))
        self.session.rewind(0)
        start = self.probes.rows(index).start
        return slice(start, start + count), self.session.forward(window.ids[:count], logits="all")

    def _last(self, index: int, window: Window, length: int, chunk: int | None = None) -> Gap:
        """Prefill `length` tokens of a window, whole or in chunks; the last logits against the simulation."""
        self.session.rewind(0)
        for start in range(0, length, chunk or length):
            logits = self.session.forward(window.ids[start : min(start + (chunk or length), length)])
        row = self.probes.rows(index).start + length - 1
        return Gap.between(self.simulated[row : row + 1], logits, window.following[length - 1 : length])

    def _prefills(self, windows: list[tuple[int, Window]]) -> list[Gap]:
        gaps = []
        for i, window in windows:
            self.progress("prefill", i, len(windows))
            longest = min(len(window.ids), 4 * self.limit if self.limit else len(window.ids))
            lengths = sorted({n for n in (1, 2, 3, 7, 16, 31, 64, 100, 128, 255, 511, longest) if n <= longest})
            gaps += [self._last(i, window, n) for n in lengths]
        return gaps

    def _chunks(self, windows: list[tuple[int, Window]]) -> list[Gap]:
        every = ((3, 19), (5, 61), (7, 90), (16, 48), (32, 150), (63, 200), (100, 250))  # (chunk, length)
        shapes = every[:: 3 if self.limit else 1]
        return [self._last(i, w, min(len(w.ids), length), chunk) for i, w in windows for chunk, length in shapes]

    def _rewind(self, window: Window) -> Gap:
        """Feed, rewind to the middle, feed something else, rewind, go on: equal to a run that never turned back."""
        count = min(len(window.ids), self.session.capacity, 96)
        half, tail = count // 2, window.ids[count // 2 : count]
        self.session.rewind(0)
        self.session.forward(window.ids[:half])
        cold = self.session.forward(tail, logits="all")
        self.session.rewind(half)
        self.session.forward(tail[::-1].copy())
        self.session.rewind(half)
        warm = self.session.forward(tail, logits="all")
        nothing = np.full(len(tail), -1)
        return Gap.between(Sketch.of(cold, nothing), warm, nothing)

    def _edge(self) -> list[Gap]:
        """Prefill up to the last few positions of the cache, then token by token to its end."""
        ids, expected = self.probes.arrays["edge.ids"], self.probes.sketches[f"{self.target}.edge"]
        count = len(expected.lse)
        self.progress("the cache's end", 0, 1)
        self.session.rewind(0)
        self.session.forward(ids[:-count])
        return [Gap.between(expected, self.session.forward(ids[-count:], logits="all"), np.full(count, -1))]

    def greedy(self) -> list[dict[str, Any]]:
        """Greedy continuations of chat prompts: the first token that differs from the original's, and from the
        simulation's. Not judged: a near-tie may fall either way."""
        found = []
        for i in range(sum(name.startswith("greedy.prompt.") for name in self.probes.arrays)):
            prompt = self.probes.arrays[f"greedy.prompt.{i}"]
            original = self.probes.arrays[f"greedy.original.{i}"]
            self.session.rewind(0)
            logits = self.session.forward(prompt)
            ids, gap = [], None
            for wanted in original:
                best = int(logits[0].argmax())
                if gap is None and best != wanted:
                    gap = float(logits[0, best] - logits[0, wanted])
                ids.append(best)
                if self.session.position == self.session.capacity:
                    break
                logits = self.session.forward([best])
            simulated = self.probes.arrays[f"greedy.{self.target}.{i}"]
            found.append({"tokens": len(ids), "original": _first_difference(ids, original), "logit_gap": gap,
                          "simulation": _first_difference(ids, simulated), "ids": ids})  # fmt: skip
        return found

    def drift(self) -> list[dict[str, Any]]:
        """Relative rms difference of each layer's keys and values from the simulation's, and the floor's own."""
        keys = self.probes.arrays.get(f"drift.{self.target}.keys")
        if keys is None:
            return []
        values = self.probes.arrays[f"drift.{self.target}.values"]  # [layers, n, kv_heads, head_dim]
        floor = self.probes.arrays[f"drift.{self.target}.floor"]
        self.session.rewind(0)
        self.session.forward(self.probes.windows[0].ids[: keys.shape[1]])
        rows = []
        for layer in range(len(keys)):
            cache = self.session.cache(layer)
            if cache is None:
                return []
            both = relative(np.stack([keys[layer], values[layer]]), np.stack(cache))
            rows.append({"layer": layer, "difference": both, "floor": float(floor[layer])})
        return rows


def relative(reference: np.ndarray, other: np.ndarray) -> float:
    """Root mean square of the difference over that of the reference."""
    scale = float(np.sqrt(np.square(reference, dtype=np.float64).mean()))
    return float(np.sqrt(np.square(other - reference, dtype=np.float64).mean())) / max(scale, 1e-30)


def _first_difference(a: list[int], b: np.ndarray) -> int | None:
    """Index of the first element that differs, None where the shorter is a prefix of the longer."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)


def _found(drift: list[dict[str, Any]]) -> str:
    """Name the layer where the engine leaves the simulation. Keys and values of layer i see layer i's own projections
    and all of layer i - 1, so the culprit lies between them.

    Where the first rounding tips over differs from run to run, but not how far roundings carry in the end: that is the
    largest floor of all layers.
    """
    if not drift:
        return "the engine does not show its cache, so the layer cannot be named"
    limit = 2 * max(row["floor"] for row in drift)
    for row in drift:
        if row["difference"] > limit:
            at = row["layer"]
            before = f"layer {at - 1}'s attention output or MLP, or " if at else "the embedding, or "
            return (f"the drift begins at {before}layer {at}'s norm, k or v projection "
                    f"(relative difference {row['difference']:.2g}, rounding reaches {limit / 2:.2g})")  # fmt: skip
    return (f"no layer's keys and values drift further than rounding does: it is layer {len(drift) - 1}'s output, the "
            "last norm or the head, or too small to be placed")  # fmt: skip
