"""Parity or bench of a bundle's Core ML package, executed by the iOS demo and judged here. A person carries the files:
plans to the phone, results back.

    python ios_demo/by_hand.py parity BUNDLE FOLDER      exit code 1 where a gate fails
    python ios_demo/by_hand.py bench BUNDLE FOLDER

Each plan is written to FOLDER, and its result is waited for there. FOLDER may be one that the phone sees, as iCloud
Drive's.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from smolship.runtime import open_bundle
from smolship.runtime.bench import BenchReport, measured
from smolship.runtime.bundle import Bundle
from smolship.runtime.child import Progress
from smolship.runtime.errors import InputError, SmolshipError
from smolship.runtime.execute import in_child
from smolship.runtime.parity import ParityReport, parity
from smolship.runtime.plan import Plan
from smolship.runtime.records import to_json
from smolship.runtime.result import Result
from smolship.tools.console import Screen
from smolship.tools.tables import bench_table, parity_table

TARGET = "coreml"
WAIT_S = 1.0  # between two looks for a result


class ByHand:
    """Executes plans by way of files in a folder. Those of another arithmetic than Core ML's own are the
    interpreter's, and run here."""

    def __init__(self, artifact: Path, folder: Path):
        self.artifact, self.folder, self.count = artifact, folder, 0

    def __call__(self, plan: Plan, progress: Progress) -> Result:
        """Write the plan, and wait for its result."""
        if plan.arithmetic:
            return in_child(plan, self.artifact, progress=progress)
        self.count += 1
        asked = self.folder / f"{self.count}-{plan.purpose.replace(' ', '-')}.json"
        answer = asked.with_name(f"{asked.stem}-result.json")
        if answer.exists():
            raise InputError("a result of an earlier run lies there", got=answer, todo="take an empty folder")
        asked.write_bytes(to_json(plan))
        print(f"run {asked} in the app (Benchmark, Choose a plan), and bring {answer.name} to {self.folder}")
        while not answer.exists():
            time.sleep(WAIT_S)
        result = Result.load(answer)
        result.answers(plan)
        return result


def executor(bundle: Bundle, folder: Path) -> ByHand:
    """For the bundle's package. Its files are held against the manifest first."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle.verify(f"{bundle.entry(TARGET).folder}/")
    return ByHand(bundle.path / bundle.entry(TARGET).folder, folder)


def by_hand_parity(path: Path, folder: Path) -> ParityReport:
    """The report of `smolship parity`."""
    bundle = open_bundle(path)
    return parity(bundle, TARGET, threads=1, elsewhere=executor(bundle, folder))


def by_hand_bench(path: Path, folder: Path, repeats: int = 5) -> BenchReport:
    """The report of `smolship bench`."""
    bundle = open_bundle(path)
    entry, execute = bundle.entry(TARGET), executor(bundle, folder)
    return measured(
        entry.engine,
        execute.artifact,
        entry.info,
        threads=1,
        execute=execute,
        here=False,
        weight_bytes_per_token=entry.bytes_per_token,
        repeats=repeats,
    ).report


def main() -> int:
    """Of the command line."""
    if len(sys.argv) != 4 or sys.argv[1] not in ("parity", "bench"):
        print(__doc__, file=sys.stderr)
        return 2
    path, folder = map(Path, sys.argv[2:])
    try:
        if sys.argv[1] == "bench":
            Screen().print(bench_table([by_hand_bench(path, folder)]))
            return 0
        report = by_hand_parity(path, folder)
    except SmolshipError as error:
        print(error, file=sys.stderr)
        return 2
    Screen().print(parity_table(report))
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
