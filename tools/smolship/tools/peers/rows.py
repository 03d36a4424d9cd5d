"""What is compared: each row one artifact, by us or by a peer."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from smolship.runtime.errors import InputError, unknown
from smolship.runtime.session import Session


@dataclass(frozen=True)
class Row:
    """One artifact.

    name     as the table shows it
    peer     the module that exports and opens it
    bits     of the layers' linears: rows of the same bits are compared
    options  of that module
    base     the row of ours that its speed is compared with
    source   the row whose artifact it is made of, in place of the checkpoint
    """

    name: str
    peer: str
    bits: int
    options: dict[str, Any] = field(default_factory=dict)
    base: str = ""
    source: str = ""

    @property
    def ours(self) -> bool:
        return self.peer == "ours"

    @property
    def slug(self) -> str:
        """The name of its folder."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


class Peer(Protocol):
    """What a peer's module holds."""

    REQUIREMENTS: tuple[str, ...]  # of an environment of its own; none: it runs in ours
    VERSIONS: tuple[str, ...]  # packages whose versions name what was measured
    PACKAGES: tuple[str, ...]  # modules that are imported before memory and load are counted
    OURS: bool  # whether our exporter has a part in it
    __file__: str | None

    def export(self, source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
        """Write the artifact into `folder`. Returns `files` (their relative paths: what counts and is
        hashed), `peak_bytes` where processes of its own did the work, and `weights_digest` where it has one."""
        ...

    def open_session(self, folder: Path, options: dict[str, Any], threads: int) -> Session: ...


def peer_module(name: str) -> Peer:
    """The module of a peer; one that is not of this package is named in full."""
    return import_module(name if "." in name else f"smolship.tools.peers.{name}")


def _ours(target: str, bits: int, base: str = "") -> Row:
    return Row(f"smolship {target} int{bits}", "ours", bits, {"target": target, "quant": f"int{bits}"}, base)


EXECUTORCH, ONNX = "smolship executorch int4", "smolship onnx int4"
EQUAL_BITS = ["algo_config=rtn", "matmul_mixed_precision=last_matmul:int8"]
TUNED = ["prune_lm_head=true", "fuse_mlp_gate_up=true"]

ROWS = [
    *(_ours(target, bits) for bits in (4, 8) for target in ("executorch", "onnx")),
    # The same weights bit for bit, by llama.cpp: engine against engine. Its own Q4_0 holds the table in Q6_K where the
    # width is a multiple of 256.
    *(_ours("gguf", bits, f"smolship executorch int{bits}") for bits in (4, 8)),
    Row("llama.cpp Q4_0", "llamacpp", 4, {"type": "Q4_0"}, EXECUTORCH),
    Row("llama.cpp Q8_0", "llamacpp", 8, {"type": "Q8_0"}, "smolship executorch int8"),
    Row("genai builder int4", "genai", 4, {}, ONNX),
    Row("genai builder int4 + int8 head", "genai", 4, {"extra": EQUAL_BITS}, ONNX),
    Row("genai builder int4 + int8 head tuned", "genai", 4, {"extra": EQUAL_BITS + TUNED}, ONNX),
    Row("export_llm 8da4w", "exportllm", 4, {}, EXECUTORCH),
    Row("mobius Q4_0", "mobius", 4, {}, ONNX, source="llama.cpp Q4_0"),
    Row("transformers ONNX int4", "transformers_onnx", 4, {}, ONNX),
]


def choose(only: Sequence[str], bits: Collection[str]) -> list[Row]:
    """The rows whose name has one of `only` in it (all, where that is empty), and those that they are compared with."""
    for part in only:
        if not any(part.lower() in row.name.lower() for row in ROWS):
            raise unknown("row", part, [row.name for row in ROWS])
    found = [
        row for row in ROWS if str(row.bits) in bits and (not only or any(p.lower() in row.name.lower() for p in only))
    ]
    if not found:
        raise InputError("no row has both that name and those bits", got=f"{', '.join(only)} of {', '.join(bits)} bits")
    names = {row.name for row in found} | {row.base for row in found}
    return [row for row in ROWS if row.name in names]
