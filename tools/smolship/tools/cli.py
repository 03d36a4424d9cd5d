"""The `smolship` command.

Exit codes: 0 done, 1 a gate failed, 2 bad input, 3 the environment falls short, 70 a fault of smolship, 130
interrupted, 143 terminated.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated, NoReturn

import typer

from smolship.tools.commands import (
    bench,
    cache,
    chat,
    devices,
    export,
    generate,
    inspect,
    judge,
    parity,
    report,
    weights,
)
from smolship.tools.commands.options import Command, err
from smolship.tools.console import begin, exit_code
from smolship.tools.failures import asks_json

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="From a checkpoint to a device: small language models, quantized once, the same weights exported to "
    "[bold]ExecuTorch[/bold], [bold]ONNX[/bold], [bold]Core ML[/bold] and [bold]GGUF[/bold], and each proven to say "
    "what the original says.\n\n"
    "A first run:\n\n"
    "smolship export HuggingFaceTB/SmolLM2-135M-Instruct -o smollm2\n"
    "smolship parity smollm2\n"
    "smolship chat smollm2\n\n"
    "Exit codes: 0 done, 1 a gate failed, 2 bad input, 3 the environment falls short, 70 a fault of smolship, "
    "130 interrupted.",
)
ENDINGS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ends in SystemExit."""
    begin()
    for ending in ENDINGS:
        if signal.getsignal(ending) is not signal.SIG_IGN:  # nohup wants it ignored
            signal.signal(ending, _terminated)
    sys.exit(run(arguments))


def _terminated(signum: int, frame: object) -> NoReturn:
    """Leave as from Ctrl-C, so that what is half-made is put away; another signal does not disturb that."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    raise SystemExit(128 + signum)


def run(arguments: list[str] | None = None) -> int:
    """The exit code of the command line `arguments` (sys.argv without them). No traceback for a bad input."""
    return exit_code(lambda: int(app(arguments, standalone_mode=False) or 0), err, asks_json(arguments))


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"smolship {version('smolship')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


for command in (  # in the order of use
    export.export,
    inspect.inspect,
    weights.weights,
    parity.parity,
    judge.judge,
    bench.bench,
    generate.generate,
    chat.chat,
    report.report,
    devices.devices,
    cache.cache,
):
    app.command(cls=Command)(command)


if __name__ == "__main__":
    main()
