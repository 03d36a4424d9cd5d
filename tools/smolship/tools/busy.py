"""Does a command of ours collapse beside another one?

    python -P -m smolship.tools.busy [BUNDLE]

Runs the export of a toy, and parity and `generate` of each engine (on BUNDLE, or the toy's), alone and two at once. Two
that share the processors fairly take twice as long as one at most; where threads wait for one another in a loop it is
ten times. Exit code 1 where two take more than --limit times as long.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import SetupError
from smolship.runtime.process import environment, python
from smolship.tools.console import Screen, begin, exit_code
from smolship.tools.failures import asks_json
from smolship.tools.peers.shapes import make_shape
from smolship.tools.tables import plain_table

LIMIT = 3.0  # 2 is fair; the rest is for what else runs here
TARGETS = "executorch,onnx,gguf"  # Core ML's interpreter is numpy, whose threads are its own


@dataclass(frozen=True)
class Timing:
    """Seconds of the clock until the last of them was done, and of all processors, medians of the rounds."""

    name: str
    alone_s: float
    together_s: float
    alone_cpu_s: float
    together_cpu_s: float

    @property
    def ratio(self) -> float:
        return self.together_s / self.alone_s


def measure(name: str, commands: Sequence[Sequence[str]], rounds: int = 1) -> Timing:
    """Run the first of two `commands` by itself, then both at once, `rounds` times."""
    alone, together = [], []
    for _ in range(rounds):
        alone.append(_run(commands[:1]))
        together.append(_run(commands))
    (alone_s, alone_cpu), (together_s, together_cpu) = (
        map(statistics.median, zip(*r, strict=True)) for r in (alone, together)
    )
    return Timing(name, alone_s, together_s, alone_cpu, together_cpu)


def _run(commands: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Seconds until all are done, and of the processors. Raises SetupError where one fails."""
    start, cpu = time.monotonic(), 0.0
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        # As a user starts them: how their threads wait is for them to say.
        children = [
            subprocess.Popen(command, stdout=log, stderr=log, env=environment(active=True)) for command in commands
        ]
        try:
            for child in children:
                _, status, used = os.wait4(child.pid, 0)
                child.returncode = os.waitstatus_to_exitcode(status)
                cpu += used.ru_utime + used.ru_stime
        finally:
            for child in children:
                if child.returncode is None:
                    child.kill()
                    child.wait()
        if failed := [child for child in children if child.returncode]:
            log.seek(0)
            raise SetupError(
                "a command failed",
                got=f"exit code {failed[0].returncode} of {failed[0].args!r}",
                todo="see the end of what it printed below\n" + log.read()[-2000:],
            )
    return time.monotonic() - start, cpu


def commands_of(work: Path, bundle: Path | None) -> list[tuple[str, list[list[str]]]]:
    """(name, two command lines that may run at once). The export comes first: the others may want what it makes."""

    def smolship(*arguments: str) -> list[str]:
        return python("smolship.tools.cli", *arguments)

    toy = make_shape("toy", None, work)
    made = [work / "one", work / "two"]
    found = [
        (
            "export",
            [
                smolship(
                    "export", str(toy), "-o", str(out), "--to", TARGETS, "--context", "128", "--probe-tokens", "256"
                )
                for out in made
            ],
        )
    ]
    targets = open_bundle(bundle).manifest.targets if bundle else TARGETS.split(",")
    shown = str(bundle or made[0])
    for name in targets:
        parity = smolship("parity", shown, "--quick", "-t", name)
        generate = smolship(
            "generate",
            shown,
            "def main",
            "--raw",
            "-t",
            name,
            "--max-tokens",
            "64",
            "--temperature",
            "1",
            "--seed",
            "1",
        )
        found += [(f"parity {name}", [parity] * 2), (f"generate {name}", [generate] * 2)]
    return found


def table_of(timings: Sequence[Timing], limit: float) -> Table:
    table = plain_table(Text("Alone, and two at once, in seconds"), f"Ratios above {limit:g} fail.")
    for name in ("command", "alone", "two at once", "ratio", "processors, alone", "of two"):
        table.add_column(name, justify="left" if name == "command" else "right")
    for t in timings:
        numbers = t.alone_s, t.together_s, t.ratio, t.alone_cpu_s, t.together_cpu_s
        table.add_row(t.name, *(f"{n:.2f}" for n in numbers), style="red" if t.ratio > limit else None)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="for parity and generate")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"the largest ratio that passes ({LIMIT:g})")
    parser.add_argument("--rounds", type=int, choices=range(1, 100), default=1, metavar="N", help="1 to 99; medians")
    parser.add_argument("--json", action="store_true", help="print JSON")
    begin()

    def command() -> int:
        options = parser.parse_args(arguments)
        with tempfile.TemporaryDirectory() as work:
            timings = [measure(*what, options.rounds) for what in commands_of(Path(work), options.bundle)]
        if options.json:
            print(json.dumps([asdict(t) | {"ratio": t.ratio} for t in timings], indent=1))
        else:
            Screen().print(table_of(timings, options.limit))
        return int(any(t.ratio > options.limit for t in timings))

    return exit_code(command, Screen(stderr=True), asks_json(arguments))


if __name__ == "__main__":
    sys.exit(main())
