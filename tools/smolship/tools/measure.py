"""Parity, bench, revealed weights and answers of targets of a bundle, with progress: what commands share."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from smolship.runtime.bench import NO_QUESTION, BenchReport, Measured, measured
from smolship.runtime.bundle import Bundle
from smolship.runtime.errors import missing_engine
from smolship.runtime.execute import Execute
from smolship.runtime.generate import Sampling, generate
from smolship.runtime.parity import ParityReport, parity
from smolship.runtime.result import Seen
from smolship.runtime.said import Expected
from smolship.runtime.timing import WARMUPS
from smolship.tools.devices.watching import Here

if TYPE_CHECKING:  # the last one needs what an export needs
    from smolship.tools.devices.opening import Place
    from smolship.tools.devices.record import Record
    from smolship.tools.onehot import Verdict

Update = Callable[[str, str, int, int], None]  # (step, what, done, total)
Elsewhere = Callable[[str], Execute]  # by target


def parity_of(
    bundle: Bundle,
    targets: Sequence[str],
    update: Update,
    *,
    quick: bool,
    threads: int,
    max_kl: float | None = None,
    elsewhere: Elsewhere | None = None,
) -> list[ParityReport]:
    """A parity report for each target, executed `elsewhere` than in this process where that is given."""

    def one(name: str) -> ParityReport:
        return parity(
            bundle,
            name,
            quick=quick,
            threads=threads,
            max_kl=max_kl,
            progress=lambda what, done, total: update(f"parity {name}", what, done, total),
            elsewhere=elsewhere and elsewhere(name),
        )

    return [one(name) for name in targets]


@dataclass(frozen=True)
class Bench:
    """What was measured of a target.

    expected  a prompt of the probes and its answer, where they hold one
    ids       the answer that was given, which is as expected; tie: the first token of it that a near-tie decided
              otherwise
    """

    measured: Measured
    report: BenchReport
    expected: Expected | None
    ids: list[int]
    tie: int | None


def measured_of(
    bundle: Bundle,
    name: str,
    update: Update,
    *,
    threads: int,
    repeats: int,
    execute: Execute,
    here: bool,
    warmups: int = WARMUPS,
    sustained: int = 0,
) -> Bench:
    """Have a target measured by `execute`. Raises GateError where it does not say what the probes expect: the speed of
    something else is no figure."""
    entry = bundle.entry(name)
    probes = bundle.probes() if bundle.has_probes else None
    expected = Expected.of(probes, name, int(entry.info.get("context", 0))) if probes else None
    found = measured(
        entry.engine,
        bundle.path / entry.folder,
        entry.info,
        threads=threads,
        repeats=repeats,
        weight_bytes_per_token=entry.bytes_per_token,
        progress=lambda what, done, total: update(f"bench {name}", what, done, total),
        execute=execute,
        here=here,
        warmups=warmups,
        sustained=sustained,
        asked=expected.asked if expected else NO_QUESTION,
    )
    ids, tie = expected.check(name, Seen.join(found.found.seen)) if expected else ([], None)
    return Bench(found, found.report, expected, ids, tie)


def recorded_of(
    bundle: Bundle,
    name: str,
    update: Update,
    *,
    threads: int,
    repeats: int,
    there: Place,
    cool_s: float = 0,
    sustained: int = 0,
) -> tuple[Bench, Record]:
    """The same of a target at a place, with the record of it. `cool_s`: how long to wait at most for a machine that is
    cool and idle; `sustained`: seconds of decoding behind the rest."""
    recorder = there.recorder(name, cool_s, partial(update, f"bench {name}"))
    emulated = bool(there.facts and there.facts.emulated)  # where times say nothing, none agree
    found = measured_of(
        bundle,
        name,
        update,
        threads=threads,
        repeats=repeats,
        execute=recorder.execute,
        here=there.here,
        warmups=0 if emulated else WARMUPS,
        sustained=sustained,
    )
    prompt = found.expected.prompt.tolist() if found.expected else []
    tie = f"token {(found.tie or 0) + 1} of its answer is another than in the probes: a near-tie"
    notes = [*there.notes, *[tie] * (found.tie is not None)]
    return found, recorder.record(bundle, found.measured, prompt, found.ids, notes)


def bench_of(
    bundle: Bundle, targets: Sequence[str], update: Update, *, threads: int, repeats: int
) -> list[BenchReport]:
    """A bench report for each target, on this machine."""

    def one(name: str) -> BenchReport:
        execute = Here(bundle.path / bundle.entry(name).folder).execute
        return measured_of(bundle, name, update, threads=threads, repeats=repeats, execute=execute, here=True).report

    return [one(name) for name in targets]


def revealed(bundle: Bundle, targets: Sequence[str], update: Update) -> list[Verdict]:
    """One-hot probes of each target's engine. Raises SetupError where what exports is not installed."""
    os.environ["TQDM_DISABLE"] = "1"  # compilers would draw a bar for each probe, and warn of their own affairs
    for name in ("torchao", "torch.utils._pytree", "coremltools"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from smolship.tools.onehot import check, reveal
    except ImportError as error:
        raise missing_engine("what lowers the probes", "export", error) from None
    check(bundle, targets)
    return [verdict for target in targets for verdict in reveal(bundle, target, partial(update, f"probe {target}"))]


@dataclass(frozen=True)
class Answer:
    """What an engine said to a prompt."""

    prompt: str
    text: str


def answer(bundle: Bundle, target: str, prompt: str, threads: int, max_tokens: int = 64) -> Answer:
    """A greedy answer through the chat template."""
    ids = bundle.tokenizer.encode(bundle.template.render([{"role": "user", "content": prompt}]), special=False)
    with bundle.session(target, threads) as session:
        stream = bundle.tokenizer.stream()
        generation = generate(session, ids, max_tokens, bundle.stop_ids, Sampling())
        return Answer(prompt, "".join([stream.push(token) for token in generation]) + stream.finish())
