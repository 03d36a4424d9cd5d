"""Staged parity: each gap between the original and the engine has a name, and a bound with a reason.

    original fp32 -> our decoder      translation   rounding only
    original -> quantized weights     quantization  the price of the bits
    quantized -> rounded again        re-rounding   the price of lifted weights that the target cannot hold; rare
    quantized -> simulated numerics   arithmetic    the price of the engine's fp16 or int8 activations
    simulated -> engine               engine        rounding only: anything more is a bug
    engine -> engine                  prefill, chunks, rewind, edge: the same tokens by another way

All up to the simulation were measured at export and travel in the probes; the rest is measured here, without torch.

How each is judged is in judge.py.
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
from smolship.runtime.judge import Check, stored_checks, translation_checks
from smolship.runtime.live import SHORT, Live, relative

__all__ = ["Check", "ParityReport", "parity", "relative", "stored_checks", "translation_checks"]


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
        """As JSON: what is no number is null, which every reader knows."""
        return asdict(self) | {"passed": self.passed, "checks": [_finite(asdict(check)) for check in self.checks]}


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

    quick   the first 64 positions of each window, prefills of two windows and fewer lengths, some chunks of one
    max_kl  an upper bound of your own on the mean KL from the original to the engine, in nats
    """
    start = time.monotonic()
    probes = bundle.probes()
    entry = bundle.entry(target)
    stages = {"decoder", "decoder.ulp", "quantized", "quantized.noise", *(f"{target}.{n}" for n in ("ulp", "noise"))}
    if f"{target}.simulated" not in probes.sketches or not stages <= set(probes.gaps):
        raise InputError("the probes do not cover that target", got=target, expected=", ".join(probes.sketches))
    threads = threads or default_threads()
    checks = stored_checks(probes, target)
    for check in checks:
        if check.stage == "re-rounding":
            check.note = entry.rerounded()
    limit = SHORT if quick else None
    found: list[str] = []
    with bundle.session(target, threads) as session:
        engine = Live(session, probes, target, limit, progress)
        checks += engine.checks(max_kl)
        greedy = engine.greedy()
        drift = engine.drift()
        runtime, nonfinite = session.runtime, session.nonfinite
    if _engine_failed(checks):
        found.append(_found(drift))
    for arithmetic in probes.arithmetics(target):
        with bundle.session(target, threads, verify=False, arithmetic=arithmetic) as session:
            engine = Live(session, probes, f"{target}.{arithmetic}", limit, progress, f", {arithmetic}")
            stored = [check for check in stored_checks(probes, engine.target) if check.stage == "arithmetic"]
            for check in stored:
                check.what += engine.label
            more = stored + engine.checks(None)[:-1]
            if _engine_failed(more):
                found.append(f"{arithmetic}: {_found(engine.drift())}")
            checks += more
            nonfinite += [f"{where} ({arithmetic})" for where in session.nonfinite]
    if nonfinite:
        found.append("not finite: " + "; ".join(nonfinite))
    report = ParityReport(
        bundle=bundle.path.name,
        target=entry.target,
        engine=entry.engine,
        runtime=runtime,
        nonfinite=nonfinite,
        host=platform.platform(),
        threads=threads,
        weights_digest=entry.own_digest or bundle.manifest.weights_digest,
        quick=quick,
        checks=checks,
        greedy=greedy,
        drift=drift,
        found="\n".join(found),
        seconds=time.monotonic() - start,
    )
    return report


def _engine_failed(checks: list[Check]) -> bool:
    """Whether it computes otherwise throughout, so that layers can tell; else the check that failed says more."""
    named = [check for check in checks if check.what.startswith(("simulated → decode", "simulated → prefill"))]
    return any(not check.passed for check in named if "worst" not in check.what)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(x, float) and not np.isfinite(x) else x for key, x in values.items()}


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
            return (
                f"the drift begins at {before}layer {at}'s norm, k or v projection "
                f"(relative difference {row['difference']:.2g}, rounding reaches {limit / 2:.2g})"
            )
    return (
        f"no layer's keys and values drift further than rounding does: it is layer {len(drift) - 1}'s output, the "
        "last norm or the head, or too small to be placed"
    )
