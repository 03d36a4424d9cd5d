"""`smolship devices`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from smolship.runtime.errors import InputError
from smolship.tools.commands import options
from smolship.tools.console import Screen


def devices(
    action: Annotated[
        Literal["list", "setup", "clean"],
        typer.Argument(help="list: show what is reachable. setup: send numpy and the engines. clean: remove all."),
    ] = "list",
    uri: Annotated[
        str | None, typer.Argument(metavar="[URI]", help="One device: ssh://\\[user@]host[:port] or adb://\\[serial].")
    ] = None,
    target: Annotated[str, typer.Option("--target", "-t", help="setup: the engines to send, by target.")] = "onnx",
    wheelhouse: Annotated[
        Path | None, typer.Option(help="setup: a folder with wheels for the device; without it pip fetches them.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show boards and phones, and prepare a board.

    A board needs Python 3.11 or newer for ONNX and GGUF. Nothing is installed there: wheels are unpacked into a folder
    of smolship's own. For GGUF, llama.cpp is compiled here once. What ExecuTorch needs is sent with its first run.

    Examples:

    smolship devices
    smolship devices list ssh://pi@raspberrypi.local
    smolship devices setup ssh://pi@raspberrypi.local --target onnx,gguf
    smolship parity smollm2 --target onnx --device ssh://pi@raspberrypi.local
    """
    from smolship.tools.devices.uri import parse

    if uri is None and action != "list":
        raise InputError(f"{action} needs a device", got="none", expected=f"smolship devices {action} ssh://pi@host")
    if wheelhouse is not None and action != "setup":
        raise InputError("--wheelhouse is for setup", got=f"--wheelhouse {wheelhouse}")
    address = parse(uri) if uri else None
    if address is not None and address.scheme == "local" and action != "list":
        raise InputError(f"{action} is for other machines", got=uri, expected="ssh:// or adb://")
    from smolship.tools.devices import showing

    if action == "list":
        found = showing.reachable() if address is None else [showing.described(address)]
        if as_json:
            options.print_json(found)
        else:
            Screen().print(showing.table(found))
        return
    assert address is not None
    if action == "setup":
        from smolship.tools.display import Steps

        with Steps(options.err) as steps:
            said = showing.set_up(address, options.names(target), wheelhouse, steps.update)
    else:
        said = showing.cleaned(address)
    if as_json:
        options.print_json(said)
    else:
        Screen().print(said["said"], markup=False, highlight=False, soft_wrap=True)
