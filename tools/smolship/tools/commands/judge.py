"""`smolship judge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smolship.runtime.bundle import open_bundle
from smolship.tools.commands import options


def judge(
    folder: options.BundleDir,
    results: Annotated[list[Path], typer.Argument(metavar="RESULT", help="Results of parity, of one target.")],
    max_kl: options.MaxKl = None,
    junit: options.JUnit = None,
    no_kleidiai: options.NoKleidiai = False,
    as_json: options.Json = False,
) -> None:
    """Judge what a device answered, from the files that `smolship parity --device … --keep DIR` left.

    One result for each arithmetic that the probes hold, the engine's own first. Exit code 1 where a gate fails.

    Example:  smolship judge smollm2 results/onnx.json
    """
    from smolship.runtime.parity import judge_result
    from smolship.runtime.result import Result
    from smolship.tools.commands.parity import show
    from smolship.tools.outputs import check_file

    if junit:
        check_file(junit, "the JUnit file")
    bundle, found = open_bundle(folder), [result for _, result in options.load_each(Result.load, results)]
    options.set_kleidiai(bundle, [result.target for result in found], no_kleidiai)
    show([judge_result(bundle, found, max_kl)], junit, as_json)
