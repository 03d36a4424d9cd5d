"""`smolship weights`."""

from __future__ import annotations

from typing import Annotated

import typer

from smolship.runtime.bundle import open_bundle
from smolship.tools.commands import options
from smolship.tools.console import Screen


def weights(
    folder: options.BundleDir,
    target: options.Targets = None,
    every: Annotated[bool, typer.Option("--all", help="A row for each tensor, not for each kind of layer.")] = False,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Also let each engine reveal the matrices of the first layer that attends.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Read the weights back out of each artifact and compare them, bit for bit, with the set that was quantized once.

    Exit code 1 where a tensor is missing, differs, or is not of the set.

    Example:  smolship weights smollm2 --target onnx,gguf
    """
    from smolship.runtime.readback.compare import compare
    from smolship.tools.comparison import findings, to_json, verdicts_table, weights_table
    from smolship.tools.display import Steps
    from smolship.tools.measure import revealed

    bundle = open_bundle(folder)
    targets = options.targets_of(bundle, target)
    with Steps(options.err) as steps:
        held = compare(bundle, targets, lambda name, done, total: steps.update(name, "", done, total))
        verdicts = revealed(bundle, targets, steps.update) if reveal else []
    wrong = findings(held, verdicts)
    if as_json:
        options.print_json(to_json(bundle, held, verdicts))
    else:
        Screen().print(weights_table(bundle, held, every))
        for line in wrong:
            Screen().print(line, style="red", markup=False, highlight=False)
        if verdicts:
            Screen().print(verdicts_table(verdicts))
    if wrong:
        raise typer.Exit(1)
