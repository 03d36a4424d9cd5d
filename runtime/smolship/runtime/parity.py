"""Staged parity: each gap between the original and the engine has a name, and a bound with a reason.

    original fp32 -> our decoder      translation   rounding only
    original -> quantized weights     quantization  the price of the bits
    quantized -> rounded again        re-rounding   the price of lifted weights that the target cannot hold; rare
    quantized -> simulated numerics   arithmetic    the price of the engine's fp16 or int8 activations
    simulated -> engine               engine        rounding only: anything more is a bug
    engine -> engine                  prefill, chunks, rewind, edge: the same tokens by another way
    text -> ids -> text               tokenizer: the engine's own, where it has one, against the model's; equality

All up to the simulation were measured at export and travel in the probes; the rest is measured here, without torch.

How each is judged is in judge.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from smolship.runtime.answers import Answers, Continuation, Drift, relative
from smolship.runtime.bundle import Bundle, default_threads
from smolship.runtime.case import Case, case_of
from smolship.runtime.engines import ON_BITS, SIMULATED, simulation
from smolship.runtime.errors import InputError, SetupError, clip
from smolship.runtime.execute import Execute, Progress, execute, nothing
from smolship.runtime.judge import Check, stored_checks
from smolship.runtime.plan import PARITY, QUICK, Plan
from smolship.runtime.result import Result
from smolship.runtime.session import Traits
from smolship.runtime.tokenizing import tokenizer_check

__all__ = ["Check", "ParityReport", "judge_result", "parity", "relative"]


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
    greedy: list[Continuation] = field(default_factory=list)
    drift: list[Drift] = field(default_factory=list)
    found: str = ""  # where the drift begins, when the engine's gate failed
    runtime: str = ""  # what ran, where the engine's name stands for more than one: "Core ML" or "interpreter"
    nonfinite: list[str] = field(default_factory=list)  # infinities and NaNs on the way, each with its operator
    seconds: float = 0.0
    depth: int = 0  # tokens in the cache at the deepest position that was judged
    context: int = 0  # tokens that the cache holds

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks) and not self.nonfinite

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what is no number is null, which every reader knows."""
        said = asdict(self)
        rows = {name: [_finite(row) for row in said[name]] for name in ("checks", "greedy", "drift")}
        return said | {"passed": self.passed} | rows


def parity(
    bundle: Bundle,
    target: str,
    *,
    quick: bool = False,
    threads: int | None = None,
    max_kl: float | None = None,
    progress: Progress = nothing,
    elsewhere: Execute | None = None,
) -> ParityReport:
    """Measure every stage of one target.

    quick      the first 32 positions of each window, prefills of two windows and fewer lengths, some chunks of one
    max_kl     an upper bound of your own on the mean KL from the original to the engine, in nats
    elsewhere  executes plans on another machine, in place of this process
    """
    start = time.monotonic()
    case = case_of(bundle, target)
    plans = [case.plan(arithmetic, threads or default_threads(), quick) for arithmetic in case.arithmetics]
    report = _judged(case, [_executed(case, plan, progress, elsewhere) for plan in plans], max_kl)
    report.seconds = time.monotonic() - start
    return report


def judge_result(bundle: Bundle, results: Sequence[Result], max_kl: float | None = None) -> ParityReport:
    """The report of what executing the plans of one target gave, wherever and whenever that was: a result for each
    arithmetic that the probes hold, the engine's own first."""
    kinds = list(dict.fromkeys((result.target, result.purpose, result.threads) for result in results))
    if len(kinds) != 1:
        raise InputError("results of one target, purpose and number of threads are needed", got=kinds or "none")
    return _judged(case_of(bundle, results[0].target), results, max_kl)


def _executed(case: Case, plan: Plan, progress: Progress, elsewhere: Execute | None) -> Result:
    """The result of all that parity asks: what that is, depends on the session's traits."""
    if elsewhere:
        traits = elsewhere(plan, progress).traits
        _comparable(case, traits)
        return elsewhere(case.asked(plan, traits).plan, progress)
    with case.opened(plan) as session:
        _comparable(case, session.traits)
        return execute(case.asked(plan, session.traits).plan, session, case.artifact, progress)


def _judged(case: Case, results: Sequence[Result], max_kl: float | None) -> ParityReport:
    if (got := [result.arithmetic for result in results]) != case.arithmetics:
        raise InputError(
            "a result is missing, or there are too many", got=f"arithmetic {got}", expected=case.arithmetics
        )
    first = results[0]
    report = ParityReport(
        bundle=case.bundle.path.name,
        target=case.entry.target,
        engine=case.entry.engine,
        runtime=clip(first.traits.runtime, 80),
        host=clip(first.system),
        threads=first.threads,
        weights_digest=case.weights_digest,
        quick=first.purpose == QUICK,
        checks=[],
        seconds=sum(result.seconds for result in results),
    )
    for result in results:
        if result.artifact != case.artifact or result.purpose not in (PARITY, QUICK):
            raise InputError(
                "the result is none of parity, or of another artifact",
                got=f"{result.purpose}, {result.artifact}",
                expected=case.artifact,
                todo="execute the plan on the artifact of this bundle",
            )
        _comparable(case, result.traits)
        plan = case.plan(result.arithmetic, result.threads, result.purpose == QUICK)
        asked = case.asked(plan, result.traits)
        result.answers(asked.plan)
        with np.errstate(all="ignore"):  # what is not finite fails its checks
            _add(report, case, Answers(case.probes, asked, result), max_kl)
    if report.nonfinite:
        report.found = "\n".join(filter(None, (report.found, "not finite: " + "; ".join(report.nonfinite))))
    return report


def _comparable(case: Case, traits: Traits) -> None:
    """Raise SetupError where the engine computes otherwise than what the probes simulate: there is no floor for it."""
    computed, simulated = traits.computes, SIMULATED.get(case.entry.engine)
    if not simulated or computed in (None, simulated):
        return
    held, name = case.bits, simulation(case.entry.engine, computed)
    if not held & ON_BITS.get(name, {4, 8}) or name in case.probes.arithmetics(case.name):
        return
    cures = ["export the bundle again with --arm, which takes the kept steps"] * bool(name)
    if "kleidiai" in str(computed).lower():
        cures.append("run it again with --no-kleidiai, which computes as the probes do")
    raise SetupError(
        f"the probes have no floor for how {case.name} computes on that processor: neither passed nor failed",
        got=computed,
        expected=simulated,
        todo="; or ".join(cures) or None,
    )


def _add(report: ParityReport, case: Case, answers: Answers, max_kl: float | None) -> None:
    """Judge what one session answered. Of a further arithmetic, what an export measured is judged as far as it is that
    one's own, and the whole way from the original is not judged again."""
    arithmetic = answers.result.arithmetic
    stored, drift = stored_checks(case.probes, answers.name), answers.drift()
    checks = answers.checks(None if arithmetic else max_kl)
    found = [_found(drift)] if _engine_failed(checks) else []
    nonfinite = [clip(where) for where in answers.result.nonfinite]
    for check in stored:
        if check.stage == "re-rounding":
            check.note = case.entry.rerounded()
    if arithmetic:
        checks = [check for check in stored if check.stage == "arithmetic"] + checks[:-1]
        for check in checks:
            check.what += f", {arithmetic}"
        found = [f"{arithmetic}: {one}" for one in found]
        nonfinite = [f"{where} ({arithmetic})" for where in nonfinite]
    else:
        checks = [*stored, *checks[:-1], tokenizer_check(case, answers.result), checks[-1]]
        report.greedy, report.drift = answers.greedy(), drift
        report.depth, report.context = answers.depth, answers.result.traits.capacity
    report.checks += checks
    report.nonfinite += nonfinite
    report.found = "\n".join(filter(None, (report.found, *found)))


def _engine_failed(checks: list[Check]) -> bool:
    """Whether it computes otherwise throughout, so that layers can tell; else the check that failed says more."""
    named = [check for check in checks if check.what.startswith(("simulated → decode", "simulated → prefill"))]
    return any(not check.passed for check in named if "worst" not in check.what)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(x, float) and not np.isfinite(x) else x for key, x in values.items()}


def _found(drift: list[Drift]) -> str:
    """Name the layer where the engine leaves the simulation. The state of layer i sees layer i's own projections and
    all of layer i - 1, so the culprit lies between them.

    Where the first rounding tips over differs from run to run, but not how far roundings carry in the end: that is the
    largest floor of all layers.
    """
    if not drift:
        return "the engine does not show its cache, so the layer cannot be named"
    limit = 2 * max((row.floor for row in drift if np.isfinite(row.floor)), default=0.0)
    for row in drift:
        if np.isfinite(row.floor) and not row.difference <= limit:  # a NaN is not
            at = row.layer
            before = f"layer {at - 1}'s output matrix or MLP, or " if at else "the embedding, or "
            return (
                f"the drift begins at {before}layer {at}'s norm, k or v projection, or convolution's first matrix "
                f"(relative difference {row.difference:.2g}, rounding reaches {limit / 2:.2g})"
            )
    return (
        f"no layer's state drifts further than rounding does: it is layer {len(drift) - 1}'s output, the "
        "last norm or the head, or too small to be placed"
    )
