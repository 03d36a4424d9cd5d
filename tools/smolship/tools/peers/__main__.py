"""`python -P -m smolship.tools.peers MODEL`: the command."""

from __future__ import annotations

import json
import platform
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from smolship.runtime.bundle import default_threads
from smolship.runtime.errors import InputError
from smolship.runtime.memory import cpu_model
from smolship.tools.console import Screen, begin, run_command
from smolship.tools.display import Steps
from smolship.tools.peers.lab import Found, Lab
from smolship.tools.peers.rows import choose
from smolship.tools.peers.table import facts, tables

err = Screen(stderr=True)


def main(
    model: Annotated[
        Path | None, typer.Argument(help="A checkpoint: a folder with config.json and safetensors.")
    ] = None,
    shape: Annotated[str | None, typer.Option(help="Instead: random weights of this shape. Speed only.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, max=512, help="Layers of the shape. Default: its own.")] = None,
    only: Annotated[str, typer.Option(help="Rows with one of these in their name, separated by commas.")] = "",
    bits: Annotated[str, typer.Option(help="Of the layers' linears, separated by commas.")] = "4,8",
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Times that every row is measured.")] = 7,
    tokens: Annotated[int, typer.Option(min=0, help="Positions of text that KL is measured on; 0: none.")] = 2048,
    context: Annotated[int, typer.Option(min=8, help="Tokens that each cache holds.")] = 2048,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Default: all processors.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="The longest that one export may take.")] = 30,
    cache: Annotated[Path, typer.Option(help="Keeps exports, results, environments.")] = Path(".cache/peers"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and no more there.")] = False,
) -> None:
    """Bench our artifacts beside what other projects make of the same model.

    Exports and judgements are kept in the cache: an interrupted run continues. A peer that cannot be installed or fails
    is a row that says why.
    """
    threads = threads or default_threads()
    if (model is None) == (shape is None):
        raise InputError("a checkpoint or --shape is needed, and not both", got=[model, shape])
    rows = choose([part for part in only.split(",") if part], bits.split(","))
    with Steps(err) as steps:
        if shape:
            from smolship.tools.peers.shapes import make_shape

            steps.update("random weights", shape, 0, 1)
            model, tokens = make_shape(shape, layers, cache / "shapes"), 0
        assert model
        lab = Lab(
            model, cache, context=context, threads=threads, tokens=tokens, limit_s=60 * minutes, update=steps.update
        )
        every = lab.run(rows, rounds)
    told = {
        "model": model.name,
        "digest": lab.digest,
        "random_weights": bool(shape),
        "threads": threads,
        "rounds": rounds,
        "context": lab.context,
        "cpu": cpu_model(),
        "system": platform.platform(),
        "llama_cpp": next((f.opened.runtime for f in every if f.row.peer == "llamacpp" and f.opened), None),
        "rows": facts(every),
    }
    if as_json:
        print(json.dumps(told, indent=1))
    else:
        show(told, every)


def show(told: dict[str, Any], every: list[Found]) -> None:
    screen = Screen()
    if not screen.is_terminal:
        screen.width = 150
    screen.print(
        f"{told['model']}{', random weights' if told['random_weights'] else ''}, {told['threads']} threads, "
        f"{told['cpu']}, {told['system']}",
        markup=False,
        highlight=False,
    )
    screen.print(f"llama.cpp: {told['llama_cpp'] or 'unavailable'}", markup=False, highlight=False)
    for table in tables(told["rows"], told["rounds"]):
        screen.print(table)
    versions = {f"{name} {version}" for row in told["rows"] for name, version in (row["versions"] or {}).items()}
    screen.print("\n" + ", ".join(sorted(versions)), style="dim", markup=False, highlight=False)
    for found in every:
        if found.failed:
            screen.print(f"\n{found.row.name}: {found.failed}", style="yellow", markup=False, highlight=False)


def run(arguments: list[str] | None = None) -> int:
    """The exit code of the command line `arguments`."""
    return run_command(main, arguments, err)


if __name__ == "__main__":
    begin()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run())
