"""The report's page: weights, parity, speed and what was exported, in one HTML file without network or script.

What it shows comes from a bundle, so nothing of it is trusted: the template escapes every value, and the page's own
content policy forbids scripts and anything from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from smolship.runtime.bench import BenchReport, Spread
from smolship.runtime.errors import clip
from smolship.runtime.manifest import Manifest
from smolship.runtime.parity import Check, ParityReport
from smolship.runtime.readback.compare import EQUAL
from smolship.tools import units
from smolship.tools.comparison import collapsed, rows
from smolship.tools.outputs import write_file
from smolship.tools.report import plots
from smolship.tools.report.devices import devices_section, templates
from smolship.tools.report.results import Results

TEMPLATE = "report.html.jinja"


def write_report(path: Path, results: Results) -> None:
    """Write the page to `path`; an older one there is replaced when the new one is complete."""
    # A lone surrogate can come out of a JSON escape, and has no UTF-8.
    write_file(Path(path), render(results).encode("utf-8", errors="replace"), "the report")


def render(results: Results) -> str:
    """The page as text."""
    environment = templates()
    environment.globals |= {"dot_plot": dot_plot, "drift_plot": drift_plot}
    checks = [check for report in results.parity for check in report.checks]
    return environment.get_template(TEMPLATE).render(
        manifest=results.manifest,
        parity=results.parity,
        bench=results.bench,
        answers=results.answers,
        devices=devices_section(results.devices) if results.devices else "",
        made=datetime.now(UTC),
        checks=checks,
        held=results.held,
        tensors=collapsed(rows(results.held)),
        differing=results.differing,
        equal=EQUAL,
        failed=[check for check in checks if not check.passed],
        glance=glance(results.manifest, results.parity, results.bench),
        speed_plots=speed_plots(results.bench),
        speed_rows=units.side_by_side([dict(report.rows()) for report in results.bench]),
    )


def glance(
    manifest: Manifest, parity: Sequence[ParityReport], bench: Sequence[BenchReport]
) -> list[tuple[str, bool | None, list[str]]]:
    """(target, whether its gates passed, figures) for the table at the top; the columns are the template's."""
    rows = []
    for name, entry in manifest.targets.items():
        report = next((r for r in parity if r.target == entry.target), None)
        total = next((c for c in report.checks if c.stage == "total"), None) if report else None
        speed = next((b for b in bench if (b.engine, b.file) == (entry.engine, entry.info["file"])), None)
        rows.append(
            (
                entry.target,
                report.passed if report else None,
                [
                    units.number(total and total.kl),
                    units.share(total and total.top1),
                    units.number(speed and _fastest(speed.prefill_tokens_per_s)),
                    units.number(speed and _fastest(speed.decode_tokens_per_s)),
                    units.size(speed and speed.memory.anonymous_bytes),
                    units.size(units.target_size(manifest, name)),
                ],
            )
        )
    return rows


def _fastest(speeds: Mapping[int, Spread]) -> float | None:
    return max((s.median for s in speeds.values()), default=None)


def dot_plot(report: ParityReport) -> Markup:
    """The checks of a target where people would rather look than read."""
    return plots.dots([_mark(check) for check in report.checks if check.positions and not check.exact])


def _mark(check: Check) -> plots.Mark:
    half = units.Z95 * check.error
    return plots.Mark(
        label=f"{clip(check.stage)}: {clip(check.what)}",
        text=units.number(check.kl),
        value=check.kl,
        low=check.kl - half,
        high=check.kl + half,
        floor=check.floor,
        bound=check.bound,
        failed=not check.passed,
    )


def drift_plot(report: ParityReport) -> Markup:
    """How far each layer's keys and values are from the simulation's, and the floor of that."""
    rows = [(row.layer, row.difference, row.floor) for row in report.drift]
    return plots.profile(rows, ("difference", "floor"))


def speed_plots(bench: Sequence[BenchReport]) -> list[tuple[str, str, Markup]]:
    """(title, hint, plot) for what compares engines best; each engine keeps its colour."""
    memory = {"anonymous": "anonymous_bytes", "file-backed": "file_backed_bytes"}
    quantiles = {q: f"inter_token_{q}_ms" for q in ("p50", "p95", "p99")}
    plotted = {
        ("Prefill, tokens/s", "longer is better"): _spreads(bench, "prefill_tokens_per_s", "{} tokens"),
        ("Decode, tokens/s", "longer is better"): _spreads(bench, "decode_tokens_per_s", "after {} tokens"),
        ("Between tokens, ms", "shorter is better"): _singles(
            bench, {q: [getattr(b, field) for b in bench] for q, field in quantiles.items()}
        ),
        ("Memory, MB", "shorter is better"): _singles(
            bench, {kind: [_mega(getattr(b.memory, field)) for b in bench] for kind, field in memory.items()}
        ),
    }
    return [(title, hint, plots.bars(rows)) for (title, hint), rows in plotted.items()]


def _spreads(bench: Sequence[BenchReport], field: str, label: str) -> list[plots.Bar]:
    """Bars of a dict of `Spread`, grouped by its keys so that engines stand side by side."""
    keys = sorted({key for report in bench for key in getattr(report, field)})
    found = [(key, kind, report, getattr(report, field).get(key)) for key in keys for kind, report in enumerate(bench)]
    return [
        plots.Bar(
            f"{clip(report.engine, 40)}, {label.format(f'{key:,}')}",
            spread and spread.median,
            spread and spread.low,
            spread and spread.high,
            kind,
        )
        for key, kind, report, spread in found
    ]


def _singles(bench: Sequence[BenchReport], values: Mapping[str, Sequence[float | None]]) -> list[plots.Bar]:
    return [
        plots.Bar(f"{clip(report.engine, 40)}, {name}", value, kind=kind)
        for name, row in values.items()
        for kind, (report, value) in enumerate(zip(bench, row, strict=True))
    ]


def _mega(count: int | None) -> float | None:
    return None if count is None else count / 1e6
