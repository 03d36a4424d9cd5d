"""`python -P -m smolship.tools.fidelity MODEL`: the command."""

from __future__ import annotations

import json
import platform
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from smolship.runtime.bundle import default_threads
from smolship.runtime.errors import InputError
from smolship.tools.console import Screen, begin, run_command
from smolship.tools.display import Steps
from smolship.tools.fidelity.rows import BASE, choose
from smolship.tools.fidelity.texts import SOURCE
from smolship.tools.outputs import check_file, write_file

err = Screen(stderr=True)


def main(
    model: Annotated[
        Path | None, typer.Argument(help="A checkpoint: a folder with config.json and safetensors.")
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="Instead: a model of 4 million parameters, trained here in fp32.")
    ] = False,
    only: Annotated[
        str, typer.Option(help=f"Rows with one of these in their name, separated by commas; {BASE} always.")
    ] = "",
    skip: Annotated[str, typer.Option(help="Rows with one of these in their name are left out.")] = "",
    tokens: Annotated[int, typer.Option(min=256, max=1 << 20, help="Tokens that are judged.")] = 4096,
    longest: Annotated[int, typer.Option(min=32, max=2048, help="Tokens of one document.")] = 256,
    page: Annotated[Path | None, typer.Option(help="Write the plot as an HTML page here.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Default: all processors.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="The longest that making one row may take.")] = 60,
    cache: Annotated[Path, typer.Option(help="Keeps rows and judgements.")] = Path(".cache/fidelity"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and no more there.")] = False,
) -> None:
    """Size against fidelity: our weights beside llama.cpp's, onnxruntime-genai's and torchao's.

    Each row's weights are read out of its finished file and put into one decoder in fp32, so that weights alone are
    compared: no engine's arithmetic has a part in it. The text is Python's documentation, which comes with Python;
    what is judged on was neither trained nor calibrated on here. Rows and judgements are kept in the cache: an
    interrupted run goes on. A row that cannot be made says why.

    Models that were stored at 4 bits once favour what rounds them back onto a grid near theirs; --small was never.
    """
    if (model is None) == (not small):
        raise InputError(
            "a checkpoint or --small is needed, and not both",
            got=f"{model or 'no checkpoint'}, {'' if small else 'no '}--small",
            expected="one of them",
        )
    rows = choose(*([part for part in names.split(",") if part] for names in (only, skip)))
    if page:
        check_file(page, "the page")
    with Steps(err) as steps:
        import torch

        from smolship.tools.fidelity.frontier import Frontier
        from smolship.tools.fidelity.train import small_model

        torch.set_num_threads(threads or default_threads())
        model = model or small_model(cache, partial(steps.update, "train"))
        frontier = Frontier(
            model,
            cache,
            tokens=tokens,
            longest=longest,
            threads=threads or default_threads(),
            limit_s=60 * minutes,
            update=steps.update,
        )
        points = frontier.run(rows)
    show(frontier, points, page, as_json)


def show(frontier: Any, points: Any, page: Path | None, as_json: bool) -> None:
    """The table or JSON, and the page."""
    from smolship.tools.fidelity.plot import render
    from smolship.tools.fidelity.table import facts, frontier_table

    told = {
        "model": frontier.lab.model.name,
        "digest": frontier.lab.digest,
        "text": SOURCE,
        "python": platform.python_version(),
        "tokens": frontier.tokens,
        "documents": len(frontier.texts),
        "rows": facts(points),
    }
    title = f"{told['model']}: {told['tokens']:,} tokens of {told['documents']} documents of Python's documentation"
    if page:
        write_file(page, render(title, points).encode(), "the page")
    if as_json:
        print(json.dumps(told, indent=1))
        return
    screen = Screen()
    if not screen.is_terminal:
        screen.width = 140
    screen.print(frontier_table(points, title))
    for point in points:
        if point.failed:
            screen.print(f"\n{point.row.name}: {point.failed}", style="yellow", markup=False, highlight=False)


def run(arguments: list[str] | None = None) -> int:
    """The exit code of the command line `arguments`."""
    return run_command(main, arguments, err)


if __name__ == "__main__":
    begin()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run())
