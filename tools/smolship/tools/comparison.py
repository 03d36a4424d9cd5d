"""Which tensor is equal in which target, as rows for tables and pages, as tables, and as JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from smolship.runtime.bundle import Bundle
from smolship.runtime.errors import clip
from smolship.runtime.readback.compare import EQUAL, MISSING, Comparison
from smolship.runtime.readback.hashing import Entry
from smolship.tools.tables import plain_table

if TYPE_CHECKING:  # it needs what an export needs
    from smolship.tools.onehot import Verdict

LAYER = re.compile(r"layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Row:
    """One tensor: what the set says of it, and what each target holds."""

    name: str
    facts: tuple[str, ...]  # shape, form, origin
    cells: tuple[str, ...]  # by target


def weights_table(bundle: Bundle, held: Sequence[Comparison], every: bool) -> Table:
    """A row a tensor; neighbouring layers that agree are one row, unless `every` is asked for."""
    wrong = sum(len(one.wrong) for one in held)
    total = len(dict.fromkeys(name for one in held for name in one.entries))
    title = Text.assemble(
        (clip(bundle.path.name), "bold"),
        f", weights {clip(bundle.manifest.weights_digest, 16)}, {total:,} tensors: ",
        (f"{wrong:,} DIFFER", "bold red") if wrong else ("EQUAL", "bold green"),
    )
    table = plain_table(title, "Form: bits of a code / inputs that share a scale.")
    for name in ("tensor", "shape", "form", "origin", *(clip(one.target, 20) for one in held)):
        table.add_column(Text(name), no_wrap=name != "origin")
    for row in rows(held) if every else collapsed(rows(held)):
        cells = (Text("✓", "green") if cell == EQUAL else Text("✗" if cell else "", "bold red") for cell in row.cells)
        table.add_row(Text(clip(row.name)), *(Text(clip(fact)) for fact in row.facts), *cells)
    return table


def rows(held: Sequence[Comparison]) -> list[Row]:
    """Every tensor that any target holds or should hold, in the order of the set."""
    found = []
    for name in dict.fromkeys(name for one in held for name in (*one.entries, *one.found)):
        entries = [one.entries[name] for one in held if name in one.entries]
        facts = (
            "×".join(map(str, entries[0].shape)) if entries else "",
            *(" / ".join(dict.fromkeys(facts)) for facts in ((form(e) for e in entries), (e.origin for e in entries))),
        )
        found.append(Row(name, facts, tuple(one.found.get(name, "") for one in held)))
    return found


def form(entry: Entry) -> str:
    """Bits, and how many inputs share a scale."""
    return "fp16" if entry.bits == 16 else f"int{entry.bits}/{entry.group}"


def collapsed(every: Sequence[Row]) -> list[Row]:
    """Tensors of one kind in layers that follow one another and agree in all else, as one row."""
    result: list[Row] = []
    open_rows: dict[str, tuple[int, int, int]] = {}  # kind -> where its row is, its first layer, its last
    for row in every:
        match = LAYER.fullmatch(row.name)
        if match is None:
            result.append(row)
            continue
        layer, kind = int(match[1]), match[2]
        at, first, last = open_rows.get(kind, (-1, 0, -2))
        if layer == last + 1 and (result[at].facts, result[at].cells) == (row.facts, row.cells):
            result[at] = Row(f"layers.{first}–{layer}.{kind}", row.facts, row.cells)
            open_rows[kind] = at, first, layer
        else:
            open_rows[kind] = len(result), layer, layer
            result.append(row)
    return result


def findings(held: Sequence[Comparison], verdicts: Sequence[Verdict] = ()) -> list[str]:
    """A line for each tensor that is not as it should be, with its target: in a file, or as an engine revealed it."""
    stored = [
        f"{one.target}: {name} is {what}" if what == MISSING else f"{one.target}: {name}: {what}"
        for one in held
        for name, what in one.wrong.items()
    ]
    return [*stored, *(f"{v.target}: the engine reveals another {v.name}" for v in verdicts if not v.equal)]


def to_json(bundle: Bundle, held: Sequence[Comparison], verdicts: Sequence[Verdict] = ()) -> dict[str, Any]:
    """The same for programs."""
    probes: dict[str, dict[str, float | None]] = {}
    for verdict in verdicts:
        probes.setdefault(verdict.target, {})[verdict.name] = verdict.worst if math.isfinite(verdict.worst) else None
    return {
        "digest": bundle.manifest.weights_digest,
        "equal": not any(one.wrong for one in held),
        "revealed": probes,
        "targets": {one.target: {"tensors": len(one.entries), "wrong": one.wrong} for one in held},
        "tensors": {
            name: {"shape": list(e.shape), "bits": e.bits, "group": e.group, "origin": e.origin}
            for one in reversed(held)
            for name, e in one.entries.items()
        },
    }


def verdicts_table(verdicts: Sequence[Verdict]) -> Table:
    """What each engine revealed of its matrices."""
    failed = sum(not verdict.equal for verdict in verdicts)
    title = Text.assemble("One-hot probes: ", (f"{failed:,} DIFFER", "bold red") if failed else ("EQUAL", "bold green"))
    table = plain_table(title, "Largest difference from codes × scales, in tolerances of the engine's arithmetic.")
    table.padding = (0, 1, 0, 0)
    names = list(dict.fromkeys(verdict.name for verdict in verdicts))
    targets = list(dict.fromkeys(verdict.target for verdict in verdicts))
    worst = {(verdict.name, verdict.target): verdict for verdict in verdicts}
    for name in ("matrix", *targets):
        table.add_column(Text(name), no_wrap=True)
    for name in names:
        cells = (worst[name, target] for target in targets)
        table.add_row(Text(name), *(Text(f"{v.worst:.3f}", "" if v.equal else "bold red") for v in cells))
    return table
