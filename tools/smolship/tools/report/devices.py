"""Runs on devices, side by side: a section of the report, or a page of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from smolship.runtime.errors import clip
from smolship.tools import units
from smolship.tools.devices.record import Rate, Record
from smolship.tools.report import fields, plots

KINDS = 4  # colours of the page
COLUMNS = (
    "artifact",
    "decode,\ntokens/s",
    "prefill,\ntokens/s",
    "between tokens,\np50 / p95 / p99, ms",
    "load, first ever /\ncold / warm, ms",
    "peak memory",
    "anonymous",
    "swapped out",
    "hottest, °C",
    "threads",
)


@dataclass(frozen=True)
class Run:
    """A record as the page shows it. `kind`: its colour."""

    record: Record
    name: str
    detail: str
    kind: int
    figures: list[str]


def templates() -> Environment:
    """The report's templates, which escape every value."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"units": units, "clip": clip, "number": units.number}
    return environment


def devices_page(records: Sequence[Record]) -> str:
    """A page of the records alone, from one file or many."""
    page = templates().get_template("devices_page.html.jinja")
    return page.render(section=devices_section(records), made=datetime.now(UTC))


def devices_section(records: Sequence[Record]) -> Markup:
    """The section that compares the records; they keep their order."""
    runs = [_run(record, i, name) for i, (record, name) in enumerate(zip(records, _names(records), strict=True))]
    text = (
        templates()
        .get_template("devices.html.jinja")
        .render(runs=runs, columns=COLUMNS, plots=_plots(runs), conditions=_conditions(runs))
    )
    return Markup(text)


def device_name(record: Record) -> str:
    """The maker's name; the URI where there is none."""
    return clip(record.device.model.value or record.device.uri, 60)


def _names(records: Sequence[Record]) -> list[str]:
    """Of the runs; those of one device and target are numbered."""
    found: list[str] = []
    for record in records:
        name = f"{device_name(record)}, {clip(record.engine.target, 40)}" + (", emulated" if record.emulated else "")
        count = sum(known == name or known.startswith(f"{name} (") for known in found)
        found.append(f"{name} ({count + 1})" if count else name)
    return found


def _run(record: Record, place: int, name: str) -> Run:
    detail = [
        record.device.label,
        record.model.id,
        record.model.quantization,
        record.device.cpu or record.device.soc.value,
        record.date,
    ]
    quantiles = " /\n".join(units.number(record.between_tokens(q)) for q in (0.5, 0.95, 0.99))
    memory = record.memory
    return Run(
        record=record,
        name=name,
        detail=", ".join(clip(part, 60) for part in detail if part),
        kind=place % KINDS,
        figures=[
            units.size(record.model.bytes),
            _spread(record.decode),
            _spread(record.prefill),
            quantiles,
            " /\n".join(_load(record)),
            units.size(memory.peak.number),
            units.size(memory.anonymous.number),
            units.size(memory.swap.number),
            units.number(max((t for _, t in _hottest(record)), default=None)),
            units.number(record.threads),
        ],
    )


def _spread(rate: Rate) -> str:
    return f"{units.number(rate.median)}\n({units.number(rate.low)}–{units.number(rate.high)})"


def _load(record: Record) -> list[str]:
    loads = record.loads
    middles = [sorted(row)[len(row) // 2] if row else None for row in (loads.cold_ms, loads.warm_ms)]
    return [units.number(value) for value in (loads.first_ever.number, *middles)]


def _hottest(record: Record) -> list[tuple[float, float]]:
    """(seconds, °C of the hottest zone) of the samples that know both."""
    return [
        (sample.seconds, max(sample.temperatures.values()))
        for sample in record.samples
        if sample.seconds is not None and sample.temperatures
    ]


def _plots(runs: Sequence[Run]) -> list[tuple[str, str, Markup]]:
    """(title, hint, plot)."""
    points = [
        fields.Series(
            run.name, [(run.record.model.bytes / 1e6, run.record.decode.median)], run.kind, bool(run.record.marks)
        )
        for run in runs
    ]
    heat = [fields.Series(run.name, _hottest(run.record), run.kind) for run in runs]
    on_end = [fields.Series(run.name, [(t, v) for t, v in run.record.times.sustained], run.kind) for run in runs]
    quantiles = [
        plots.Bar(f"{run.name}, {name}", run.record.between_tokens(q), kind=run.kind)
        for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        for run in runs
    ]
    decode = [
        plots.Bar(f"{run.name}, {clip(rate.name, 40)}", rate.median, rate.low, rate.high, run.kind)
        for run in runs
        for rate in run.record.rates
        if rate.of.startswith("gaps_ms")
    ]
    return [
        ("Decode against file size", "further up and left is better", fields.scatter(points, "MB", "tokens/s")),
        ("Temperature over time", "of the hottest zone", fields.lines(heat, "s", "°C")),
        *[("Decoding on end", "tokens a second over time", fields.lines(on_end, "s", "tokens/s"))]
        * any(run.record.times.sustained for run in runs),
        ("Between tokens, ms", "shorter is better", plots.bars(quantiles)),
        ("Memory, MB", "shorter is better", plots.bars(_memory(runs))),
        ("Decode, tokens/s", "longer is better", plots.bars(decode)),
    ]


def _memory(runs: Sequence[Run]) -> list[plots.Bar]:
    kinds = ("peak", "anonymous", "file", "swap")
    found = []
    for kind in kinds:
        for run in runs:
            number = getattr(run.record.memory, kind).number
            found.append(plots.Bar(f"{run.name}, {kind}", None if number is None else number / 1e6, kind=run.kind))
    return found


def _conditions(runs: Sequence[Run]) -> list[str]:
    """What the runs share, and what each has to say, each line once."""
    records = [run.record for run in runs]
    lines = [
        f"{rate.name.partition(' ')[0].rstrip(',')}: {rate.formula}" for record in records for rate in record.rates
    ]
    lines += [f"peak memory: {record.memory.peak.source}" for record in records if record.memory.peak.value is not None]
    for run in runs:
        lines += [f"{run.name}: {note}" for note in run.record.notes]
        if run.record.loads.why:
            lines.append(f"{run.name}: no cold load: {run.record.loads.why}")
        if run.record.answer.check != "as planned":
            lines.append(f"{run.name}: its text was not checked")
    return list(dict.fromkeys(lines))
