"""`smolship bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from smolship.runtime.bundle import default_threads, open_bundle
from smolship.tools.commands import options
from smolship.tools.console import Screen


def bench(
    folder: options.BundleDir,
    target: options.Targets = None,
    threads: options.Threads = None,
    units: options.Units = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Measured repeats, after a warm-up.")] = 5,
    device: options.Device = "local",
    no_kleidiai: options.NoKleidiai = False,
    as_json: options.Json = False,
) -> None:
    """Measure load, time to first token, prefill, decode and memory, each target in a fresh process.

    Examples:

    smolship bench smollm2 --threads 2
    smolship bench smollm2 --target onnx --device ssh://pi@raspberrypi.local
    """
    from smolship.tools.devices.opening import executing
    from smolship.tools.display import Steps
    from smolship.tools.measure import bench_of
    from smolship.tools.tables import bench_table

    bundle = open_bundle(folder)
    targets = options.targets_of(bundle, target)
    options.set_units(bundle, targets, units)
    options.set_kleidiai(bundle, targets, no_kleidiai)
    options.say_interpreted(bundle, targets)
    bundle.verify()
    with (
        Steps(options.err) as steps,
        executing(device, bundle, targets, steps.update, threads=threads) as (elsewhere, most),
    ):
        threads = threads or most or default_threads()
        reports = bench_of(bundle, targets, steps.update, threads=threads, repeats=repeats, elsewhere=elsewhere)
    if as_json:
        options.print_json([report.to_dict() for report in reports])
    else:
        Screen().print(bench_table(reports))
