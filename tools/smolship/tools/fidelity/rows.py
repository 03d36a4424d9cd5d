"""What is compared: rows of `smolship.tools.peers`, made for their weights alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smolship.runtime.errors import unknown
from smolship.tools.peers.rows import EQUAL_BITS, Row

OURS, TORCHAO = "smolship.tools.fidelity.ours", "smolship.tools.fidelity.torchao8da4w"
BASE = "llama.cpp Q4_0"  # what every row's KL is divided by
IMATRIX, CALIBRATION = "imatrix", "calibrate"  # options that are True: a file takes its place
WITHIN = "target_size"  # an option that names a row: the bytes of its weights take its place


def _ours(name: str, **options: Any) -> Row:
    return Row(f"smolship {name}", OURS, 8 if options["quant"] == "int8" else 4, options)


def _llama(kind: str) -> list[Row]:
    plain = Row(f"llama.cpp {kind}", "llamacpp", 4, {"type": kind})
    return [plain, replace(plain, name=f"{plain.name} imatrix", options=plain.options | {IMATRIX: True})]


def _mixed(peer: str) -> list[Row]:
    """A budget of a peer's bytes."""
    plain = _ours(f"mixed, {peer}'s size", quant="int4", target_size=f"llama.cpp {peer}")
    return [plain, replace(plain, name=f"{plain.name}, self", options=plain.options | {"calibrate": "self"})]


ROWS = [
    *(_ours(f"int4 g{group}", quant="int4", group_size=group) for group in (32, 64, 128)),
    _ours("int4 g32, 4-bit table", quant="int4", group_size=32, embedding=4, head=4),
    _ours("int4 g32, text", quant="int4", group_size=32, calibrate=True),
    *(_ours(f"int4 g{group}, self", quant="int4", group_size=group, calibrate="self") for group in (32, 64, 128)),
    _ours("int4 g32, 4-bit table, self", quant="int4", group_size=32, embedding=4, head=4, calibrate="self"),
    _ours("int8", quant="int8"),
    *_llama("Q4_0"),
    *_llama("Q4_K_M"),
    *_llama("IQ4_XS"),
    Row("llama.cpp Q8_0", "llamacpp", 8, {"type": "Q8_0"}),
    Row("genai int4", "genai", 4, {}),
    Row("genai int4, int8 head", "genai", 4, {"extra": EQUAL_BITS}),
    Row("torchao 8da4w", TORCHAO, 4, {"table": 8, "head": 4}),  # as ExecuTorch's export_llm asks for it
    Row("torchao 8da4w, int8 head", TORCHAO, 4, {"table": 8, "head": 8}),
    *_mixed("Q4_0"),
    *_mixed("Q4_K_M"),
]


def choose(only: Sequence[str], skip: Sequence[str] = ()) -> list[Row]:
    """The rows with one of `only` in their name (all, where that is empty) and none of `skip`, the one that all are
    compared with, and those whose size others have."""
    for part in (*only, *skip):
        if not any(_has(row, [part]) for row in ROWS):
            raise unknown("row", part, [row.name for row in ROWS])
    chosen = [row for row in ROWS if (not only or _has(row, only)) and not _has(row, skip)]
    needed = {BASE, *(row.name for row in chosen), *(row.options.get(WITHIN) for row in chosen)}
    return [row for row in ROWS if row.name in needed]


def _has(row: Row, parts: Sequence[str]) -> bool:
    return any(part.lower() in row.name.lower() for part in parts)


def with_files(rows: Sequence[Row], files: dict[str, Path]) -> list[Row]:
    """The rows with the path of a file in place of each option that is True."""

    def filled(options: dict[str, Any]) -> dict[str, Any]:
        return {name: str(files[name]) if value is True else value for name, value in options.items()}

    return [replace(row, options=filled(row.options)) for row in rows]


def with_size(row: Row, sizes: Mapping[str, int | None]) -> Row:
    """The row with the bytes of the row that it names. Without them it is left as it is, and fails."""
    size = sizes.get(row.options.get(WITHIN, ""))
    return row if size is None else replace(row, options=row.options | {WITHIN: size})
