"""Plots for the report: HTML rows with a strip of inline SVG each.

Places along a strip are percentages and heights are pixels, with no viewBox: a plot fills any width, from a phone to a
printed page, while text and marks keep their size. Labels are HTML, so they wrap. Colours are CSS classes of the page.
Text goes through `Markup.format`, which escapes it. NaN and None are never drawn: the row's text says what they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeGuard

from markupsafe import Markup

from smolship.tools.units import number

STRIP = 24  # pixels, height of a row's strip; its middle is where the marks lie
GAP = 6  # pixels between two strips, half of it: grid lines reach over it
PROFILE = 200  # pixels, height of a `profile`
TICKS = 6  # decades named on an axis, about


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis from 10^low to 10^high."""

    low: int
    high: int

    @staticmethod
    def over(values: Iterable[float | None]) -> LogAxis:
        """The decades that hold every positive finite value."""
        logs = [math.log10(v) for v in values if drawable(v) and v > 0]
        if not logs:
            return LogAxis(-1, 0)
        low = math.floor(min(logs))
        return LogAxis(low, max(math.ceil(max(logs)), low + 1))

    def at(self, value: float) -> float:
        """Percent of the way; values off the axis, 0 among them (drawn hollow), lie on its ends."""
        if value <= 0:
            return 0.0
        return min(max((math.log10(value) - self.low) / (self.high - self.low), 0.0), 1.0) * 100

    def decades(self) -> list[tuple[float, int, bool]]:
        """(percent, power of ten, whether to name it)."""
        step = -(-(self.high - self.low) // TICKS)
        return [(self.at(10.0**p), p, (p - self.low) % step == 0) for p in range(self.low, self.high + 1)]


@dataclass(frozen=True)
class Mark:
    """One row of `dots`."""

    label: str
    text: str  # the figures, for those who read
    value: float
    low: float  # its interval
    high: float
    floor: float | None
    bound: float | None
    failed: bool


def dots(rows: Sequence[Mark]) -> Markup:
    """Each row's value with its interval, its floor and its bound, on one logarithmic axis."""
    axis = LogAxis.over(v for r in rows for v in (r.value, r.floor, r.bound, r.high))
    out = _join(_row(r.label, r.text, _grid(axis) + _marks(r, axis), r.failed) for r in rows)
    names = _join(
        Markup('<text x="{:.2f}%" y="12">10<tspan dy="-5">{}</tspan></text>').format(x, power)
        for x, power, named in axis.decades()
        if named
    )
    return _plot(out + _row("", "", names))


def _marks(row: Mark, axis: LogAxis) -> Markup:
    y, kind = STRIP // 2, "bad" if row.failed else "good"
    out = Markup("")
    if drawable(row.bound):
        out += Markup('<rect class="room" width="{:.2f}%" y="{}" height="8"/>').format(axis.at(row.bound), y - 4)
        out += _tick("bound", axis.at(row.bound), 9, f"bound {number(row.bound)}")
    if drawable(row.floor):
        out += _tick("floor", axis.at(row.floor), 7, f"floor {number(row.floor)}")
    if drawable(row.low) and drawable(row.high):
        whisker = Markup('<line class="whisker {0}" x1="{1:.2f}%" x2="{2:.2f}%" y1="{3}" y2="{3}"/>')
        out += whisker.format(kind, axis.at(row.low), axis.at(row.high), y)
    if drawable(row.value):
        dot = Markup('<circle class="dot {}{}" cx="{:.2f}%" cy="{}" r="5"><title>{}</title></circle>')
        out += dot.format(kind, "" if row.value > 0 else " off", axis.at(row.value), y, row.text)
    return out


def _tick(kind: str, x: float, reach: int, title: str) -> Markup:
    tick = Markup('<line class="{0}" x1="{1:.2f}%" x2="{1:.2f}%" y1="{2}" y2="{3}"><title>{4}</title></line>')
    return tick.format(kind, x, STRIP // 2 - reach, STRIP // 2 + reach, title)


def _grid(axis: LogAxis) -> Markup:
    line = Markup('<line class="grid" x1="{0:.2f}%" x2="{0:.2f}%" y1="{1}" y2="{2}"/>')
    return _join(line.format(x, -GAP, STRIP + GAP) for x, _, _ in axis.decades())


@dataclass(frozen=True)
class Bar:
    """One bar of `bars`, with the spread of its repeats."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    kind: int = 0  # which engine: its colour


def bars(rows: Sequence[Bar]) -> Markup:
    """Horizontal bars from 0."""
    most = max((v for r in rows for v in (r.value, r.high) if drawable(v)), default=0.0) or 1.0
    return _plot(_join(_row(r.label, number(r.value), _bar(r, most)) for r in rows))


def _bar(row: Bar, most: float) -> Markup:
    y = STRIP // 2
    out = Markup('<rect class="empty" width="100%" y="{}" height="12" rx="2"/>').format(y - 6)
    if drawable(row.value):
        bar = Markup('<rect class="bar k{}" width="{:.2f}%" y="{}" height="12" rx="2"/>')
        out += bar.format(row.kind % 4, 100 * row.value / most, y - 6)
    if drawable(row.low) and drawable(row.high):
        whisker = Markup('<line class="spread" x1="{0:.2f}%" x2="{1:.2f}%" y1="{2}" y2="{2}"/>')
        out += whisker.format(100 * row.low / most, 100 * row.high / most, y)
    return out


def profile(rows: Sequence[tuple[int, float, float]], names: tuple[str, str]) -> Markup:
    """Two curves over the layers, rows of (layer, value, floor), on a logarithmic axis that runs upwards."""
    axis = LogAxis.over(v for _, *pair in rows for v in pair)
    left = 8.0  # percent, for the axis's names
    xs = [left + (100 - left) * (i + 0.5) / len(rows) for i in range(len(rows))]
    out = Markup("")
    for percent, power, named in axis.decades():
        y = _up(percent)
        out += Markup('<line class="grid" x1="{0}%" x2="100%" y1="{1:.1f}" y2="{1:.1f}"/>').format(left, y)
        if named:
            out += Markup('<text class="up" x="0" y="{:.1f}">10<tspan dy="-5">{}</tspan></text>').format(y + 5, power)
    for column, kind in ((2, "floor"), (1, "good")):
        places = [
            (x, _up(axis.at(row[column]))) if drawable(row[column]) else None for x, row in zip(xs, rows, strict=True)
        ]
        titles = [f"layer {row[0]}, {names[column - 1]} {number(row[column])}" for row in rows]
        out += _curve(places, titles, kind)
    every = -(-len(rows) // 10)
    for i in range(0, len(rows), every):
        out += Markup('<text x="{:.2f}%" y="{}">{}</text>').format(xs[i], PROFILE + 24, rows[i][0])
    return Markup('<svg class="profile" width="100%" height="{}">{}</svg>').format(PROFILE + 32, out)


def _curve(places: Sequence[tuple[float, float] | None], titles: Sequence[str], kind: str) -> Markup:
    """A line through the places, broken where one is missing."""
    out = Markup("")
    line = Markup('<line class="curve {}" x1="{:.2f}%" y1="{:.1f}" x2="{:.2f}%" y2="{:.1f}"/>')
    for a, b in pairwise(places):
        if a and b:
            out += line.format(kind, *a, *b)
    dot = Markup('<circle class="dot {}" cx="{:.2f}%" cy="{:.1f}" r="3.5"><title>{}</title></circle>')
    return out + _join(dot.format(kind, *p, title) for p, title in zip(places, titles, strict=True) if p)


def _up(percent: float) -> float:
    return 8 + PROFILE * (1 - percent / 100)


def _row(label: str, text: str, strip: Markup, failed: bool = False) -> Markup:
    row = Markup(
        '<div class="row{}"><span class="label">{}</span><svg width="100%" height="{}">{}</svg>'
        '<span class="figure">{}</span></div>'
    )
    return row.format(" bad" if failed else "", label, STRIP, strip, text)


def _plot(rows: Markup) -> Markup:
    return Markup('<div class="plot">{}</div>').format(rows)


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def drawable(value: float | None) -> TypeGuard[float]:
    """Whether it is a number that has a place on an axis."""
    return value is not None and math.isfinite(value)
