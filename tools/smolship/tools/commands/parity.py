"""`smolship parity`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from smolship.runtime.bundle import default_threads, open_bundle
from smolship.runtime.errors import clip
from smolship.runtime.parity import ParityReport
from smolship.tools.commands import options
from smolship.tools.console import Screen


def parity(
    folder: options.BundleDir,
    target: options.Targets = None,
    quick: Annotated[bool, typer.Option("--quick", help="32 positions of each text, and fewer prefills.")] = False,
    threads: options.Threads = None,
    units: options.Units = None,
    max_kl: options.MaxKl = None,
    junit: options.JUnit = None,
    device: options.Device = "local",
    limit: options.Limit = None,
    force: options.Force = False,
    via: options.ViaApp = "shell",
    no_kleidiai: options.NoKleidiai = False,
    keep: Annotated[
        Path | None, typer.Option(help="A folder for the results, which `smolship judge` takes up again.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check, stage by stage, that each target says what the original said, here or on a device.

    Exit code 1 where a gate fails.

    Examples:

    smolship parity smollm2 --target onnx --quick
    smolship parity smollm2 --target onnx --device ssh://pi@raspberrypi.local
    """
    from smolship.runtime.folders import try_folder
    from smolship.tools.devices.opening import executing
    from smolship.tools.display import Steps
    from smolship.tools.measure import parity_of
    from smolship.tools.outputs import check_file

    if junit:
        check_file(junit, "the JUnit file")
    if keep:
        try_folder(keep, "the results")
    limit_s = options.limit_of(device, limit, force)
    bundle = open_bundle(folder)
    targets = options.targets_of(bundle, target)
    options.set_units(bundle, targets, units)
    options.set_kleidiai(bundle, targets, no_kleidiai)
    options.say_interpreted(bundle, targets, float32=True)
    bundle.verify()
    with (
        Steps(options.err) as steps,
        executing(
            device, bundle, targets, steps.update, keep=keep, threads=threads, limit_s=limit_s, force=force, via=via
        ) as there,
    ):
        reports = parity_of(
            bundle,
            targets,
            steps.update,
            quick=quick,
            threads=threads or there.threads or default_threads(),
            max_kl=max_kl,
            elsewhere=there.elsewhere,
        )
    show(reports, junit, as_json)


def show(reports: Sequence[ParityReport], junit: Path | None, as_json: bool) -> None:
    """The reports, where they are wanted. Raises typer.Exit(1) where a gate failed."""
    from smolship.tools.junit import write_junit
    from smolship.tools.tables import parity_table

    if junit:
        write_junit(junit, reports)
    if as_json:
        options.print_json([report.to_dict() for report in reports])
    else:
        for report in reports:
            Screen().print(parity_table(report))
            options.say_notes(clip(check.note) for check in report.checks if check.note)
            if report.found:
                Screen().print(report.found, style="red", markup=False)
    if not all(report.passed for report in reports):
        raise typer.Exit(1)
