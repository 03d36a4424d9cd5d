"""A forecast on the terminal, or as JSON."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.table import Table
from rich.text import Text

from smolship.export.forecast.asking import must_fit
from smolship.export.forecast.record import Forecast, Need, TargetForecast
from smolship.runtime.errors import clip
from smolship.tools.commands import options
from smolship.tools.console import Screen
from smolship.tools.tables import plain_table
from smolship.tools.units import number, size


def show_forecast(found: Forecast, model: str, as_json: bool) -> None:
    """Show it. Where a device was named that cannot hold it, the command ends with 1: raises GateError, or Exit after
    the JSON, which says it."""
    if as_json:
        options.print_json(forecast_json(found))
        if found.fits is False:
            raise typer.Exit(1)
        return
    screen = Screen()
    screen.print(targets_table(found, model))
    screen.print(steps_table(found))
    options.say_notes(found.notes)
    must_fit(found)


def forecast_json(found: Forecast) -> dict[str, object]:
    return asdict(found) | {"fits": found.fits, "seconds": found.seconds, "peak_bytes": found.peak_bytes}


def targets_table(found: Forecast, model: str) -> Table:
    """Each target: what lies on the disk, and what is in memory once it runs."""
    title = Text.assemble((clip(model, 40), "bold"), f": forecast, {found.quant}, {found.context:,} tokens")
    where = found.device or "this machine"
    caption = f"memory on {where}, the cache full; anonymous: an app is ended for it; mapped: files, read again"
    table = plain_table(title, caption)
    table.padding = (0, 2, 0, 0)
    table.add_column("")
    for name in ("artifact", "its cache", "anonymous", "mapped", *([found.device] if found.device else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for name, target in found.targets.items():
        memory: TargetForecast | Need | None = target.tightest if found.device else target
        resident = (memory.anonymous_bytes, memory.mapped_bytes) if memory else (None, None)
        figures = (target.artifact_bytes, target.cache_bytes, *resident)
        verdict = [_verdict(target)] if found.device else []
        table.add_row(Text(name), *(Text(size(figure)) for figure in figures), *verdict)
    return table


def _verdict(target: TargetForecast) -> Text:
    if not target.needs:
        return Text("not judged", "dim")
    if over := target.over_bytes:
        return Text(f"{size(over)} over", "bold red")
    return Text("fits", "green")


def steps_table(found: Forecast) -> Table:
    """Each step of the export, and what the disk must hold."""
    caption = f"bundle {size(found.bundle_bytes)}; {size(found.disk_bytes)} of disk while it is made"
    table = plain_table(Text("Export", "bold"), caption + "; times are rough")
    table.padding = (0, 2, 0, 0)
    table.add_column("")
    for name in ("time", "peak memory"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = {name: (step.seconds, step.peak_bytes) for name, step in found.steps.items()}
    rows["in all, one after the other"] = found.seconds, found.peak_bytes
    for name, (seconds, peak) in rows.items():
        table.add_row(Text(name), Text("about " + _time(seconds)), Text(size(peak)))
    return table


def _time(seconds: float) -> str:
    return number(seconds, "s", 2) if seconds < 100 else number(seconds / 60, "min", 2)
