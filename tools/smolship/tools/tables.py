"""The tables that the terminal shows. Every cell is a `Text`: what a bundle says is never read as markup."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from smolship.runtime.bench import BenchReport
from smolship.runtime.errors import clip
from smolship.runtime.manifest import Manifest
from smolship.runtime.parity import Check, ParityReport
from smolship.tools.units import (
    UNAVAILABLE,
    bos_token,
    budget,
    calibration,
    chat_template,
    decimals,
    end_tokens,
    interval,
    limit,
    number,
    quantization,
    sampling,
    share,
    side_by_side,
    size,
    steps,
    target_size,
    verdict,
)

if TYPE_CHECKING:
    from smolship.export.kept.entries import Entry

STYLES = {"FAIL": "bold red", "ok": "green", "reported": "dim", UNAVAILABLE: "dim"}


def parity_table(report: ParityReport) -> Table:
    """One target's checks; a failing one is red."""
    failed = sum(not check.passed for check in report.checks)
    title = Text.assemble(
        (clip(report.target), "bold"),
        f", {report.runtime}" if report.runtime else "",
        f", {report.threads} threads{', quick' if report.quick else ''}: ",
        (f"FAIL, {failed} of {len(report.checks)} checks", "bold red") if failed else ("PASS", "bold green"),
    )
    caption = "KL in nats, mean ± 95 % interval; it must not exceed the bound, which derives from the floor."
    caption += f"\n{depth(report)}"
    table = plain_table(title, caption)
    table.add_column("check", overflow="fold", ratio=1)
    for name in ("mean KL", "top-1", "ppl ratio", "floor", "bound", ""):
        table.add_column(name, justify="right", no_wrap=name != "ppl ratio")
    for check in report.checks:
        said = verdict(check)
        what = Text(label(check))
        ratio = "none" if check.perplexity_ratio is None else decimals(check.perplexity_ratio, 3)
        figures = (
            interval(check),
            share(check.top1) if check.positions else "none",
            ratio,
            limit(check.floor),
            limit(check.bound),
        )
        table.add_row(what, *map(Text, figures), Text(said, STYLES[said]), style="" if check.passed else "red")
    return table


def depth(report: ParityReport) -> str:
    """How full the cache was where parity looked."""
    return f"Judged up to {report.depth:,} tokens in the cache, which holds {report.context:,}."


def label(check: Check) -> str:
    """The check in few words; of the worst of several, which it is, where that is wrong."""
    name = clip(check.what).removeprefix("simulated → ").removeprefix("original → ")
    text = f"engine, {name}" if check.stage == "engine" else clip(check.stage)
    if check.stage == "translation":
        text += ", ".join(["", *name.split(", ")[1:]])
    return f"{text} ({clip(check.at)})" if check.at and not check.passed else text


def bench_table(reports: Sequence[BenchReport]) -> Table:
    """Engines side by side; what one of them did not measure is "unavailable"."""
    table = plain_table(Text("Speed and memory", "bold"), "; ".join(reports[0].conditions[:1]) if reports else None)
    table.padding = (0, 2, 0, 0)
    table.add_column("")
    for report in reports:
        table.add_column(Text(clip(report.engine, 40)), justify="right")
    for label, values in side_by_side([dict(report.rows()) for report in reports]):
        table.add_row(Text(clip(label)), *(Text(clip(v), "dim" if v == UNAVAILABLE else "") for v in values))
    return table


def manifest_table(manifest: Manifest, path: Path) -> Table:
    """What a bundle holds: the model first, then a block for each target."""
    model = manifest.model
    table = plain_table(Text(clip(path), "bold"), None)
    table.add_column("", style="dim")
    table.add_column("", overflow="fold")
    table.show_header = False
    facts = {
        "model": clip(model.source),
        "revision": clip(model.revision) if model.revision else None,
        "architecture": f"{clip(model.architecture)}, {number(model.layers)} layers, "
        f"{number(model.parameters)} parameters",
        "quantization": quantization(manifest),
        "budget": budget(manifest),
        "calibrated": calibration(manifest),
        "held at 4 bits": f"{share(manifest.quantization.share_at_4_bits)} of the linear parameters",
        "context": number(manifest.context, "tokens"),
        "end tokens": "\n".join(end_tokens(manifest)) or "none: answers run until --max-tokens",
        "BOS token": bos_token(manifest),
        "sampling": sampling(manifest),
        "chat template": chat_template(manifest),
        "weights": f"{size(manifest.weights_bytes)} read for each token, digest {clip(manifest.weights_digest, 16)}",
    }
    for name, entry in manifest.targets.items():
        facts[name] = f"{clip(entry.target)}, {size(target_size(manifest, name))}"
    facts["exported in"] = "\n".join(
        f"{name}: {time}" + (f", peak memory {peak}" if peak else "") for name, time, peak in steps(manifest)
    )
    facts["made with"] = ", ".join(f"{clip(tool)} {clip(version)}" for tool, version in manifest.tools.items())
    for label, fact in facts.items():
        if fact is not None:
            table.add_row(Text(clip(label)), Text(fact))
    return table


def kept_table(root: Path, found: Sequence[Entry], total: int, limit: int) -> Table:
    """The kept steps of exports, the one that was used last first."""
    title = Text.assemble(("kept steps of exports", "bold"), f", in {clip(root)}")
    table = plain_table(title, f"{number(len(found))} steps, {size(total)} of at most {size(limit)}")
    table.padding = (0, 2, 0, 0)
    for name in ("step", "model", "asked for"):
        table.add_column(name, overflow="fold")
    for name in ("size", "took", "last used"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in found:
        record, used = entry.record, time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        what = (entry.kind, clip(record.model, 80), clip(record.words, 200))
        table.add_row(*map(Text, (*what, size(entry.size), number(record.seconds, "s"), used)))
    return table


def plain_table(title: Text, caption: str | None) -> Table:
    """A table in the one style that all of them have."""
    return Table(
        title=Text.assemble("\n", title),
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )
