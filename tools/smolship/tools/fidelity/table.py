"""What a person sees of a comparison, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from smolship.tools.fidelity.bootstrap import Interval
from smolship.tools.fidelity.frontier import Point, best
from smolship.tools.fidelity.rows import BASE
from smolship.tools.tables import plain_table
from smolship.tools.units import UNAVAILABLE, number, share, size


def facts(points: Sequence[Point]) -> list[dict[str, Any]]:
    """A row of JSON for each row."""
    nearest = best(points)
    return [
        {
            "row": point.row.name,
            "failed": point.failed,
            "stored_bytes": point.stored_bytes,
            "file_bytes": point.file_bytes,
            "bits_per_weight": point.bits_per_weight,
            "export_seconds": point.export_seconds,
            "kl": point.kl and asdict(point.kl),
            "top1": point.top1,
            "ratio": point.ratio and asdict(point.ratio),
            "frontier": point.row.name in nearest,
        }
        for point in points
    ]


def frontier_table(points: Sequence[Point], title: str) -> Table:
    """By size, the smallest first."""
    caption = (
        "KL to the original in fp32, nats a token, mean and 95 % interval over documents; "
        f"the ratio to {BASE} is paired by document.\n* on the frontier: no row that is no larger is nearer."
    )
    table, nearest = plain_table(Text(title, "bold"), caption), best(points)
    table.padding = (0, 2, 0, 0)
    for name in ("row", "", "weights", "bits each", "KL", "top-1", "of Q4_0's KL"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    table.columns[0].justify = "left"
    for point in sorted(points, key=lambda point: point.stored_bytes or 0):
        on = point.row.name in nearest
        cells = [
            Text(point.row.name),
            "*" if on else "",
            size(point.stored_bytes),
            number(point.bits_per_weight),
            interval(point.kl),
            share(point.top1) if point.top1 is not None else UNAVAILABLE,
            interval(point.ratio),
        ]
        table.add_row(*cells, style="dim" if point.failed else "bold" if on else "")
    return table


def interval(of: Interval | None) -> str:
    """A value with the ends of its interval."""
    return f"{number(of.value)} ({number(of.low)}–{number(of.high)})" if of else UNAVAILABLE
