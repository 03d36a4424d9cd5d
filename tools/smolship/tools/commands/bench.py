"""`smolship bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from smolship.runtime.bundle import default_threads, open_bundle
from smolship.runtime.errors import InputError, SetupError, clip
from smolship.tools.commands import options
from smolship.tools.console import Screen
from smolship.tools.devices.recording import Format

if TYPE_CHECKING:
    from smolship.runtime.bundle import Bundle
    from smolship.tools.devices.opening import Place

COOL_S = 120.0  # that a device may take to cool down, where nothing else is said
GATES = "Gates (exit code 1 where one fails; 3, not judged, where the run is marked)"


def bench(
    folder: options.BundleDir,
    target: options.Targets = None,
    threads: options.Threads = None,
    units: options.Units = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Measured repeats, after a warm-up.")] = 5,
    device: options.Device = "local",
    limit: options.Limit = None,
    force: options.Force = False,
    via: Annotated[
        Literal["shell", "app", "llama-bench"],
        typer.Option(
            help="On a phone: from adb's shell, or by the demo app (android_demo), if installed. On any device: GGUF "
            "by llama.cpp's own llama-bench, if it is there: times alone, and no answer is checked."
        ),
    ] = "shell",
    no_kleidiai: options.NoKleidiai = False,
    record: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Leave a record of each target there, TARGET.json, for `smolship report`."),
    ] = None,
    record_format: Annotated[
        Format, typer.Option(help="The record's words: our own schema's, or another benchmark's.")
    ] = "smolship",
    cool: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Before it is timed, wait so long at most (90s, 10m, 1h) until the machine is cool and idle. "
            "It does not count toward --limit. Default: 2m on a device, no wait here and under an emulator.",
        ),
    ] = None,
    sustained: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Behind the rest, decode for so long: what heat makes of the speed."),
    ] = None,
    min_decode: Annotated[
        float | None, typer.Option(min=0, help="At least so many tokens/s of decoding.", rich_help_panel=GATES)
    ] = None,
    max_ttft: Annotated[
        float | None, typer.Option(min=0, help="At most so many ms to the first token.", rich_help_panel=GATES)
    ] = None,
    max_memory: Annotated[
        float | None, typer.Option(min=0, help="At most so many MB at the peak.", rich_help_panel=GATES)
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Measure load, time to first token, prefill, decode and memory, each target in a fresh process.

    While it is timed, the sensors are read once a second: what speaks against its figures (a clock that is capped,
    heat, a battery saver) is said. A target that does not give the answer which its probes expect is not measured.

    Examples:

    smolship bench smollm2 --threads 2
    smolship bench smollm2 --target onnx --device ssh://pi@raspberrypi.local --record pi5
    smolship bench smollm2 --target executorch --sustained 10m
    """
    from smolship.runtime.folders import try_folder
    from smolship.tools.bench_gates import Gates, failures
    from smolship.tools.devices.opening import executing
    from smolship.tools.devices.recording import write_record
    from smolship.tools.display import Steps
    from smolship.tools.measure import recorded_of
    from smolship.tools.tables import bench_table

    if record:
        try_folder(record, "the records")
    elif record_format != "smolship":
        raise InputError("--record-format is for --record", got=record_format, expected="--record DIR beside it")
    limit_s = options.limit_of(device, limit, force)
    gates = Gates(min_decode, max_ttft, max_memory)
    cool_s = None if cool is None else options.duration(cool, "--cool")
    sustained_s = 0 if sustained is None else options.duration(sustained, "--sustained")
    bundle = open_bundle(folder)
    targets = options.targets_of(bundle, target)
    options.set_units(bundle, targets, units)
    options.set_kleidiai(bundle, targets, no_kleidiai)
    options.say_interpreted(bundle, targets)
    bundle.verify()
    if via == "llama-bench":
        only = gates.asked or sustained_s or cool_s or (record and record_format != "llama-bench") or no_kleidiai
        if only or len(targets) != 1:
            raise InputError(
                "llama-bench tells times alone, of one target",
                got=f"targets {', '.join(targets)}" if len(targets) != 1 else "an option that needs more",
                expected="--target gguf; no --cool, --sustained or gates; records by --record-format llama-bench",
            )
        _by_llama_bench(device, bundle, targets[0], threads, repeats, limit_s, record, as_json)
        return
    with (
        Steps(options.err) as steps,
        executing(
            device, bundle, targets, steps.update, threads=threads, limit_s=limit_s, force=force, via=via
        ) as there,
    ):
        threads = threads or there.threads or default_threads()
        found = [
            recorded_of(
                bundle,
                name,
                steps.update,
                threads=threads,
                repeats=repeats,
                there=there,
                cool_s=default_wait(there) if cool_s is None else cool_s,
                sustained=sustained_s,
            )
            for name in targets
        ]
    for name, (_, made) in zip(targets, found, strict=True):
        if record:
            write_record(record / f"{name}.json", made, record_format)
        options.say_notes(f"{name}: {said}" for said in (*made.marks, *made.notes))
    if as_json:
        options.print_json([one.report.to_dict() | {"marks": made.marks, "notes": made.notes} for one, made in found])
    else:
        Screen().print(bench_table([one.report for one, _ in found]))
    marked = [name for name, (_, made) in zip(targets, found, strict=True) if made.marks]
    if gates.asked and marked:
        raise SetupError(
            f"the gates are not judged: {', '.join(marked)} ran under conditions that speak against the figures",
            got="; ".join(dict.fromkeys(mark for _, made in found for mark in made.marks)),
            todo="run it again on a machine that is cool and idle",
        )
    if failed := [line for name, (one, _) in zip(targets, found, strict=True) for line in failures(name, one, gates)]:
        options.err.print("\n".join(failed), style="bold red", markup=False, highlight=False)
        raise typer.Exit(1)


def default_wait(there: Place) -> float:
    """Seconds to wait at most until a place is cool and idle. An emulated device has no heat of its own, what runs
    beside it is its host's, and its figures are marked whatever it waits for."""
    return COOL_S if there.facts and not there.facts.emulated else 0


def _by_llama_bench(
    device: str,
    bundle: Bundle,
    target: str,
    threads: int | None,
    repeats: int,
    limit_s: int | None,
    record: Path | None,
    as_json: bool,
) -> None:
    from rich.text import Text

    from smolship.tools.devices import llama_bench
    from smolship.tools.display import Steps
    from smolship.tools.outputs import write_file
    from smolship.tools.tables import plain_table

    with Steps(options.err) as steps:
        found = llama_bench.measured(
            device, bundle, target, steps.update, threads=threads, repeats=repeats, limit_s=limit_s
        )
    if record:
        write_file(record / f"{target}.json", json.dumps(found.raw, indent=1).encode(), "the rows")
    options.say_notes(f"{target}: {said}" for said in found.notes)
    if as_json:
        options.print_json([{"target": target, "rows": found.raw, "notes": found.notes}])
        return
    table = plain_table(Text("Speed"), "medians, and lowest to highest, of whole repetitions")
    table.add_column("")
    table.add_column(target, justify="right")
    for label, value in found.rows():
        table.add_row(Text(clip(label)), Text(clip(value)))
    Screen().print(table)
