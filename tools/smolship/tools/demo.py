"""`make demo`: the whole job on a real model. Fetch, export, weights read back and revealed, parity, latency, one
answer of each engine, report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from smolship.runtime.bundle import Bundle, default_threads, open_bundle
from smolship.runtime.parity import ParityReport
from smolship.runtime.readback.compare import compare
from smolship.tools.console import Screen, begin, exit_code
from smolship.tools.demo_model import make_demo_model
from smolship.tools.display import Steps
from smolship.tools.measure import answer, bench_of, parity_of
from smolship.tools.report import write_report
from smolship.tools.tables import bench_table, manifest_table, parity_table
from smolship.tools.weights import findings, revealed, verdicts_table, weights_table

PROMPT = "What is the capital of France? Answer in one sentence."


def full_report(
    bundle: Bundle,
    out: Path,
    *,
    quick: bool = False,
    reveal: bool = False,
    threads: int | None = None,
    console: Console | None = None,
) -> bool:
    """Weights, parity, bench and an answer of each engine of the bundle: tables in the terminal, and the page `out`.
    `reveal` also asks the engines for their matrices, for which smolship[export] is needed.

    Returns whether every gate passed.
    """
    threads = threads or default_threads()
    console = console or Screen(stderr=True)
    screen = Screen()
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
    screen.print(manifest_table(bundle.manifest, bundle.path))
    screen.print(weights_table(bundle, held, every=False))
    if verdicts:
        screen.print(verdicts_table(verdicts))
    for report in reports:
        screen.print(parity_table(report))
    if benches:
        screen.print(bench_table(benches))
    answers = {name: answer(bundle, name, PROMPT, threads) for name in targets}
    for name, said in answers.items():
        screen.print(f"\n[bold]{name}[/] > {PROMPT}")
        screen.print(said["text"], markup=False, highlight=False)
    differing = findings(held, verdicts)
    write_report(out, bundle.manifest, reports, benches, answers, held, differing)
    passed = all(report.passed for report in reports) and not differing
    screen.print(f"\n{'[green]every gate passed[/]' if passed else '[bold red]a gate failed[/]'}; report: {out}")
    return passed


def main() -> int:
    begin()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(".cache/SmolLM2-135M-Instruct"))
    parser.add_argument("--bundle", type=Path, default=Path("build/demo"))
    parser.add_argument("--to", default="executorch,onnx,coreml,gguf")
    parser.add_argument("--quant", default="int4")
    options = parser.parse_args()
    console = Screen(stderr=True)

    def command() -> int:
        make_demo_model(options.model)
        from smolship.export import export

        with Steps(console) as steps:
            export(options.model, options.bundle, to=options.to.split(","), quant=options.quant, progress=steps.update)
        return 0 if full_report(open_bundle(options.bundle), options.bundle.parent / "report.html", reveal=True) else 1

    return exit_code(command, console)


if __name__ == "__main__":
    sys.exit(main())
