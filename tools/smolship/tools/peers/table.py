"""What a person sees of a comparison, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from smolship.runtime.errors import clip
from smolship.tools.peers.lab import Found
from smolship.tools.units import UNAVAILABLE, Z95, number, share, size


def facts(every: Sequence[Found]) -> list[dict[str, Any]]:
    """A row of JSON for each row: what was measured, or why it was not."""
    ours = [found for found in every if found.row.ours and found.rounds]
    rows = []
    for found in every:
        row, record, opened = found.row, found.record, found.opened
        rows.append(
            {
                "row": row.name,
                "ours": row.ours,
                "bits": row.bits,
                "failed": found.failed,
                "hash": record and record.hash,
                "weights_digest": record and record.weights_digest,
                "versions": record and record.versions,
                "files": record and record.files,
                "file_bytes": record and record.bytes,
                "export_seconds": record and record.seconds,
                "export_peak_bytes": record and record.peak_bytes,
                "load_ms": opened and opened.load_ms,
                "runtime": opened and opened.runtime,
                "anonymous_bytes": _added(found.memory or {}),
                "memory": found.memory,
                "prefill_tokens_per_s": {n: vars(s) for n, s in found.speeds("prefill").items()},
                "decode_tokens_per_s": {n: vars(s) for n, s in found.speeds("decode").items()},
                "fidelity": found.fidelity,
                "base": row.base or None,
                "ours_over_this": {
                    one.row.name: found.ratio(one)
                    for one in ours
                    if one is not found and one.row.bits == row.bits and found.rounds
                },
            }
        )
    return rows


def _added(memory: dict[str, Any]) -> int | None:
    """Anonymous bytes that opening and running the artifact added to its process."""
    sides = [memory.get(side, {}).get("anonymous_bytes") for side in ("now", "before")]
    return None if None in sides else sides[0] - sides[1]


def tables(rows: Sequence[dict[str, Any]], rounds: int) -> list[Table]:
    """Speed, cost and fidelity of `facts`."""
    return [_speed(rows, rounds), _cost(rows)]


def _speed(rows: Sequence[dict[str, Any]], rounds: int) -> Table:
    phases = [(phase, n) for phase in ("prefill", "decode") for n in _sizes(rows, phase)]
    heads = ["row", *(f"{phase} {n}" for phase, n in phases), "ours:", *(f"× {p} {n}" for p, n in phases[::2])]
    table = _table(
        f"Tokens a second, medians of {rounds} rounds over all rows in turn; ours: how many times as fast", heads
    )
    table.caption = "Prompts of random tokens, the same for all. Caches: fp16 in llama.cpp, fp32 in all others."
    for row in rows:
        if row["failed"]:
            table.add_row(row["row"], *[UNAVAILABLE] * len(phases), style="dim")
            continue
        speeds = [row[f"{phase}_tokens_per_s"].get(n) for phase, n in phases]
        ratio = row["ours_over_this"].get(row["base"])
        times = [number(ratio[phase].get(n)) if ratio else "" for phase, n in phases[::2]]
        base = clip(row["base"].removeprefix("smolship "), 20) if ratio else ""
        table.add_row(Text(row["row"]), *(number(s and s["median"]) for s in speeds), base, *times)
    return table


def _cost(rows: Sequence[dict[str, Any]]) -> Table:
    heads = ["row", "sha256", "files", "anonymous", "export", "peak", "KL to fp32 original", "top-1", "ppl ratio"]
    table = _table("Cost and fidelity of the same files", heads)
    table.caption = (
        "anonymous: added by opening and running, cache included. KL: nats, mean ± 95 % interval, a lower bound."
    )
    for row in rows:
        if row["failed"]:
            table.add_row(Text(row["row"]), Text(row["hash"][:8] if row["hash"] else UNAVAILABLE), style="dim")
            continue
        said = row["fidelity"] or {}
        kl = f"{number(said['kl'])} ± {number(Z95 * said['error'], digits=2)}" if said else UNAVAILABLE
        table.add_row(
            Text(row["row"]),
            row["hash"][:8],
            size(row["file_bytes"]),
            size(row["anonymous_bytes"]),
            number(row["export_seconds"], "s"),
            size(row["export_peak_bytes"]),
            kl,
            share(said.get("top1")),
            number(said.get("perplexity_ratio")),
        )
    return table


def _sizes(rows: Sequence[dict[str, Any]], phase: str) -> list[str]:
    return sorted({n for row in rows for n in row[f"{phase}_tokens_per_s"]}, key=int)


def _table(title: str, heads: Sequence[str]) -> Table:
    table = Table(
        title=Text(f"\n{title}", "bold"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for i, head in enumerate(heads):
        table.add_column(head, justify="right" if i else "left")
    return table
