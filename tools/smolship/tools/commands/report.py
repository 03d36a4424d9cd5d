"""`smolship report`."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated

import typer

from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import InputError
from smolship.runtime.files import look
from smolship.tools.commands import options


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="[DIR] [RECORD]...", help="A bundle, records that `bench --record` left, or both."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("report.html"),
    quick: Annotated[bool, typer.Option("--quick", help="Quick parity and three repeats.")] = False,
    threads: options.Threads = None,
) -> None:
    """Weights, parity, bench and one answer of every target, as one HTML page; runs on devices side by side.

    A bundle is measured on this machine; records are shown beside it, or alone. Exit code 1 where a gate fails.

    Examples:

    smolship report smollm2 -o smollm2.html
    smolship report pi5/*.json pi4/*.json -o boards.html
    """
    from smolship.tools.devices.record import Record
    from smolship.tools.outputs import check_file, write_file
    from smolship.tools.report.devices import devices_page
    from smolship.tools.report.results import full_report

    check_file(out, "the report")
    looked = [(path, look(path, "a bundle or a record")) for path in paths]
    bundles = [path for path, info in looked if info and stat.S_ISDIR(info.st_mode)]
    files = [path for path in paths if path not in bundles]
    if len(bundles) > 1:
        raise InputError("a report is about one bundle", got=", ".join(map(str, bundles)), expected="one, and records")
    records: list[Record] = []
    for path, record in options.load_each(Record.load, files):
        if record in records:
            options.say_notes([f"{path} is the record of a run that another file has, too: it is shown once"])
        else:
            records.append(record)
    if bundles:
        if not full_report(
            open_bundle(bundles[0]), out, quick=quick, threads=threads, console=options.err, devices=records
        ):
            raise typer.Exit(1)
        return
    if quick or threads:
        raise InputError("--quick and --threads are for a bundle", got="records alone", todo="leave them out")
    write_file(out, devices_page(records).encode(), "the report")
    options.err.print(f"report: {out}", markup=False, highlight=False)
