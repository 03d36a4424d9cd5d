"""`smolship report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smolship.runtime.bundle import open_bundle
from smolship.tools.commands import options


def report(
    folder: options.BundleDir,
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("report.html"),
    quick: Annotated[bool, typer.Option("--quick", help="Quick parity and three repeats.")] = False,
    threads: options.Threads = None,
) -> None:
    """Weights, parity, bench and one answer of every target, as one HTML page.

    Exit code 1 where a gate fails.

    Example:  smolship report smollm2 -o smollm2.html
    """
    from smolship.tools.outputs import check_file
    from smolship.tools.report.results import full_report

    check_file(out, "the report")
    if not full_report(open_bundle(folder), out, quick=quick, threads=threads, console=options.err):
        raise typer.Exit(1)
