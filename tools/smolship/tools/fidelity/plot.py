"""The comparison as a page: size to the right, KL upwards, each row a dot with its interval.

As in the report's plots, places are percentages across and pixels upwards, and colours are CSS classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import smolship.tools.report
from smolship.tools.fidelity.bootstrap import Interval
from smolship.tools.fidelity.frontier import Point, best
from smolship.tools.fidelity.table import interval
from smolship.tools.report.plots import LogAxis
from smolship.tools.units import number, share, size

HEIGHT, LEFT, RIGHT = 420, 7.0, 97.0  # pixels; percent, where dots may lie
KINDS = ("smolship", "llama.cpp", "genai", "torchao")  # makers, in the order of the page's colours


def render(title: str, points: Sequence[Point]) -> str:
    """The page."""
    folders = [str(Path(__file__).parent), str(Path(smolship.tools.report.__file__).parent)]
    environment = Environment(loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined)
    environment.globals |= {"number": number, "size": size, "share": share, "interval": interval}
    judged = sorted((p for p in points if p.kl), key=lambda p: p.stored_bytes or 0)
    return environment.get_template("page.html.jinja").render(
        title=title,
        plot=plot(judged),
        kinds=KINDS,
        points=judged,
        failed=[p for p in points if p.failed],
        nearest=best(judged),
        made=datetime.now(UTC),
    )


def plot(points: Sequence[Point]) -> Markup:
    """The dots, and a line along those that none of no larger size is nearer than."""
    if not points:
        return Markup("")
    axis = LogAxis.over(v for p in points if p.kl for v in (p.kl.low, p.kl.high, p.kl.value))
    sizes = [p.bits_per_weight or 0.0 for p in points]
    low, high = min(sizes), max(sizes)
    out = _grid(axis)
    places = {p.row.name: (_across(p.bits_per_weight or 0.0, low, high), p) for p in points}
    line = Markup('<line class="curve good" x1="{:.2f}%" y1="{:.1f}" x2="{:.2f}%" y2="{:.1f}"/>')
    nearest = best(points)
    on = [(x, _up(axis, p.kl.value)) for name, (x, p) in places.items() if name in nearest and p.kl]
    for (x1, y1), (x2, y2) in pairwise(sorted(on)):
        out += line.format(x1, y1, x2, y2)
    for x, point in places.values():
        assert point.kl
        out += _dot(x, axis, point, point.kl)
    for percent, text in ((LEFT, number(low)), (RIGHT, number(high))):
        out += Markup('<text x="{:.1f}%" y="{}">{}</text>').format(percent, HEIGHT + 26, text)
    return Markup('<svg width="100%" height="{}" role="img">{}</svg>').format(HEIGHT + 36, out)


def _dot(x: float, axis: LogAxis, point: Point, kl: Interval) -> Markup:
    kind = next((i for i, maker in enumerate(KINDS) if point.row.name.startswith(maker)), 0)
    whisker = Markup('<line class="spread" x1="{0:.2f}%" x2="{0:.2f}%" y1="{1:.1f}" y2="{2:.1f}"/>')
    dot = Markup('<circle class="dot k{}" cx="{:.2f}%" cy="{:.1f}" r="5"><title>{}</title></circle>')
    told = f"{point.row.name}: {number(point.bits_per_weight)} bits each, KL {interval(kl)}"
    out = whisker.format(x, _up(axis, kl.low), _up(axis, kl.high))
    return out + dot.format(kind, x, _up(axis, kl.value), told)


def _grid(axis: LogAxis) -> Markup:
    out = Markup("")
    for percent, power, _ in axis.decades():
        y = HEIGHT * (1 - percent / 100) + 8
        out += Markup('<line class="grid" x1="5%" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>').format(y)
        out += Markup('<text class="up" x="0" y="{:.1f}">10<tspan dy="-5">{}</tspan></text>').format(y + 5, power)
    return out


def _across(value: float, low: float, high: float) -> float:
    return LEFT + (RIGHT - LEFT) * (value - low) / (high - low) if high > low else (LEFT + RIGHT) / 2


def _up(axis: LogAxis, value: float) -> float:
    return 8 + HEIGHT * (1 - axis.at(value) / 100)
