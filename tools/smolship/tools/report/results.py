"""All that a report holds: weights, parity, bench and an answer of each target of a bundle."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from smolship.runtime.bench import BenchReport
from smolship.runtime.bundle import Bundle, default_threads
from smolship.runtime.manifest import Manifest
from smolship.runtime.parity import ParityReport
from smolship.runtime.readback.compare import Comparison, compare
from smolship.tools.comparison import findings, verdicts_table, weights_table
from smolship.tools.console import Screen
from smolship.tools.devices.record import Record
from smolship.tools.display import Steps
from smolship.tools.measure import Answer, answer, bench_of, parity_of, revealed
from smolship.tools.tables import bench_table, manifest_table, parity_table

if TYPE_CHECKING:  # it needs what an export needs
    from smolship.tools.onehot import Verdict

PROMPT = "What is the capital of France? Answer in one sentence."


@dataclass(frozen=True)
class Results:
    """What was found out about a bundle.

    answers   target -> what its engine said
    held      what weights each target holds
    verdicts  what its engine revealed of them
    devices   runs on devices
    """

    manifest: Manifest
    parity: Sequence[ParityReport] = ()
    bench: Sequence[BenchReport] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    held: Sequence[Comparison] = ()
    verdicts: Sequence[Verdict] = ()
    devices: Sequence[Record] = ()

    @property
    def differing(self) -> list[str]:
        """A line for each tensor that is wrong."""
        return findings(self.held, self.verdicts)

    @property
    def passed(self) -> bool:
        return all(report.passed for report in self.parity) and not self.differing


def full_report(
    bundle: Bundle,
    out: Path,
    *,
    quick: bool = False,
    reveal: bool = False,
    threads: int | None = None,
    console: Console | None = None,
    devices: Sequence[Record] = (),
) -> bool:
    """Measure the bundle, show the tables in the terminal, and write the page `out`. `reveal` also asks the engines for
    their matrices, for which smolship[export] is needed. `devices`: runs on devices, to be shown beside it.

    Returns whether every gate passed.
    """
    from smolship.tools.report.page import write_report

    results = collect(bundle, quick, reveal, threads or default_threads(), console or Screen(stderr=True))
    results = replace(results, devices=devices)
    screen = Screen()
    show(results, bundle, screen)
    write_report(out, results)
    verdict = "[green]every gate passed[/]" if results.passed else "[bold red]a gate failed[/]"
    screen.print(f"\n{verdict}; report: {escape(str(out))}")
    return results.passed


def collect(bundle: Bundle, quick: bool, reveal: bool, threads: int, console: Console) -> Results:
    """Measure every target of the bundle, with progress on `console`."""
    targets = list(bundle.manifest.targets)
    # An interpreter takes minutes for what an engine does in seconds, and its speed says nothing.
    fast = [name for name in targets if sys.platform == "darwin" or bundle.entry(name).engine != "coreml"]
    with Steps(console) as steps:
        held = compare(bundle, targets, lambda name, done, total: steps.update("weights", name, done, total))
        verdicts = revealed(bundle, targets, steps.update) if reveal else []
        reports: list[ParityReport] = []
        for name in targets:
            reports += parity_of(bundle, [name], steps.update, quick=quick or name not in fast, threads=threads)
        benches = bench_of(bundle, fast, steps.update, threads=threads, repeats=3 if quick else 5)
    answers = {name: answer(bundle, name, PROMPT, threads) for name in targets}
    return Results(bundle.manifest, reports, benches, answers, held, verdicts)


def show(results: Results, bundle: Bundle, screen: Console) -> None:
    """The tables and the answers."""
    screen.print(manifest_table(results.manifest, bundle.path))
    screen.print(weights_table(bundle, results.held, every=False))
    if results.verdicts:
        screen.print(verdicts_table(results.verdicts))
    for report in results.parity:
        screen.print(parity_table(report))
    if results.bench:
        screen.print(bench_table(results.bench))
    for name, said in results.answers.items():
        screen.print(f"\n[bold]{escape(name)}[/] > {said.prompt}")
        screen.print(said.text, markup=False, highlight=False)
