"""Plots with two linear axes, in the way of plots.py: percentages across, pixels upwards, no viewBox."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from smolship.tools.report.plots import drawable
from smolship.tools.units import number

HEIGHT, TOP, LEFT = 200, 28, 12.0  # pixels, pixels above, percent for the axis' figures
TICKS = 5


@dataclass(frozen=True)
class Series:
    """Points (x, y) of one colour; `off`: hollow."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: int = 0
    off: bool = False


@dataclass(frozen=True)
class Axis:
    """From `low` to `high` in steps of 1, 2 or 5 of some power of ten."""

    low: float
    high: float
    step: float

    @staticmethod
    def over(values: Sequence[float], from_zero: bool) -> Axis:
        """All values that can be drawn; from 0 on, or from just below the lowest."""
        known = [v for v in values if drawable(v)] or [0.0, 1.0]
        low, high = min([0.0, *known] if from_zero else known), max(known)
        rough = (high - low or abs(high) or 1.0) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * 0.999)
        first, last = math.floor(low / step) * step, math.ceil(high / step) * step
        return Axis(first, last if last > first else first + step, step)

    def at(self, value: float) -> float:
        """The share of the way."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Each with its figure."""
        count, digits = round((self.high - self.low) / self.step), max(0, -math.floor(math.log10(self.step)))
        values = [self.low + i * self.step for i in range(count + 1)]
        return [(value, f"{value:,.{digits}f}") for value in values]


def scatter(series: Sequence[Series], x_unit: str, y_unit: str) -> Markup:
    """Single points, both axes from 0."""
    return _field(series, Axis.over(_xs(series), True), Axis.over(_ys(series), True), x_unit, y_unit, joined=False)


def lines(series: Sequence[Series], x_unit: str, y_unit: str) -> Markup:
    """A curve for each series; says so where none has a point."""
    return _field(series, Axis.over(_xs(series), True), Axis.over(_ys(series), False), x_unit, y_unit, joined=True)


def _xs(series: Sequence[Series]) -> list[float]:
    return [x for one in series for x, _ in one.points]


def _ys(series: Sequence[Series]) -> list[float]:
    return [y for one in series for _, y in one.points]


def _field(series: Sequence[Series], across: Axis, up: Axis, x_unit: str, y_unit: str, joined: bool) -> Markup:
    if not any(drawable(x) and drawable(y) for one in series for x, y in one.points):
        return Markup('<p class="soft">unavailable</p>')
    out = Markup("")
    line = Markup('<line class="grid" x1="{:.2f}%" x2="{:.2f}%" y1="{:.1f}" y2="{:.1f}"/>')
    name = Markup('<text class="{}" x="{:.2f}%" y="{:.1f}">{}</text>')
    for value, figure in up.ticks():
        y = _y(up, value)
        out += line.format(LEFT, 100, y, y) + name.format("up", 0, y + 4, figure)
    for value, figure in across.ticks():
        x = _x(across, value)
        out += line.format(x, x, TOP, TOP + HEIGHT) + name.format("", x, TOP + HEIGHT + 18, figure)
    out += name.format("up", 0, 10, y_unit) + name.format("", 96, TOP + HEIGHT + 34, x_unit)
    for one in series:
        out += _series(one, across, up, x_unit, y_unit, joined)
    svg = Markup('<svg class="profile" width="100%" height="{}">{}</svg>').format(TOP + HEIGHT + 40, out)
    key = Markup('<span class="key k{}"></span>{}{}')
    said = [key.format(one.kind, one.name, "" if one.points else ": unavailable") for one in series]
    return svg + Markup("<figcaption>{}</figcaption>").format(Markup(" ").join(said))


def _series(one: Series, across: Axis, up: Axis, x_unit: str, y_unit: str, joined: bool) -> Markup:
    out, kind = Markup(""), f"k{one.kind}{' off' if one.off else ''}"
    points = [(x, y) for x, y in one.points if drawable(x) and drawable(y)]
    line = Markup('<line class="curve {}" x1="{:.2f}%" y1="{:.1f}" x2="{:.2f}%" y2="{:.1f}"/>')
    dot = Markup('<circle class="dot {}" cx="{:.2f}%" cy="{:.1f}" r="{}"><title>{}</title></circle>')
    for i, (x, y) in enumerate(points):
        if joined and i:
            before = points[i - 1]
            out += line.format(kind, _x(across, before[0]), _y(up, before[1]), _x(across, x), _y(up, y))
    for x, y in points:
        title = f"{one.name}: {number(x)} {x_unit}, {number(y)} {y_unit}"
        out += dot.format(kind, _x(across, x), _y(up, y), 2.5 if joined else 6, title)
    return out


def _x(axis: Axis, value: float) -> float:
    return LEFT + (100 - LEFT) * axis.at(value)


def _y(axis: Axis, value: float) -> float:
    return TOP + HEIGHT * (1 - axis.at(value))
