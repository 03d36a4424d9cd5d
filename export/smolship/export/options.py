"""What an export is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from smolship.export.bits.asked import Budget
from smolship.export.calibrate.asked import Calibration
from smolship.export.quantize import GROUPS
from smolship.export.weights import SCHEMES, Bits, Scheme
from smolship.runtime.errors import InputError, unknown


@dataclass(frozen=True)
class Options:
    """See `export`, whose arguments these are."""

    model: str
    revision: str | None
    targets: tuple[str, ...]
    quant: str
    scheme: Scheme
    context: int
    probe_tokens: int
    probe_text: str | None
    arm: bool = False
    tokenizer: str | None = None
    calibration: Calibration | None = None
    budget: Budget | None = None

    def __post_init__(self) -> None:
        if self.probe_text is not None and not self.probe_tokens:
            raise InputError(
                "a text for probes, and no probes",
                got="--probe-text with --probe-tokens 0",
                todo="leave out one of the two",
            )
        if self.arm and (not self.probe_tokens or "onnx" not in self.targets):
            raise InputError(
                "floors on Arm are of the ONNX target's probes",
                got="--arm without " + ("probes" if not self.probe_tokens else "the target onnx"),
                todo="leave out --arm",
            )
        if self.calibration is not None and self.scheme.linear == 16:
            raise InputError(
                "nothing to calibrate: the layers' linears are not quantized",
                got="--calibrate with --quant none",
                todo="leave out one of the two",
            )


def scheme_of(quant: str, group: int | None, embedding: Bits | None, head: Bits | None) -> Scheme:
    """The scheme of that name, with the group and bits that were asked for instead of its own."""
    if quant not in SCHEMES:
        raise unknown("quantization", quant, SCHEMES)
    group = 32 if group is None else group
    if group not in GROUPS:
        raise InputError("unknown group size", got=group, expected=f"one of {GROUPS}")
    for bits in (embedding, head):
        if bits not in (None, 4, 8, 16):
            raise InputError("unknown number of bits", got=bits, expected="4, 8 or 16")
    base = SCHEMES[quant]
    return replace(base, group=group, embedding=embedding or base.embedding, head=head or base.head)


def source_name(model: str) -> str:
    """A Hub id, or the name of a folder or file, whatever path leads there (`.`, `..`); in UTF-8, as JSON wants it."""
    path = os.path.abspath(model)  # noqa: PTH100 - Path.resolve would give the name behind a link
    return os.fsencode(Path(path).name or path).decode(errors="replace") if Path(model).exists() else model
