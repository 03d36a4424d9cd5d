"""The budget, as it is asked for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from smolship.runtime.errors import InputError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z]*)", re.ASCII)
WINDOWS = 12  # of text that sensitivities are measured on


@dataclass(frozen=True)
class Budget:
    """bpw  bits a parameter, or
    size    bytes of all weights
    group, embedding, head  what the user fixed besides; None: they are chosen
    """

    bpw: float | None = None
    size: int | None = None
    group: int | None = None
    embedding: int | None = None
    head: int | None = None

    def __post_init__(self) -> None:
        if (self.bpw is None) == (self.size is None):
            raise InputError(
                "a budget is bits a parameter or bytes",
                got="both" if self.size is not None else "neither",
                todo="give one of --target-bpw and --target-size",
            )
        if self.bpw is not None and not (math.isfinite(self.bpw) and 0 < self.bpw <= 32):
            raise InputError("--target-bpw cannot be used", got=self.bpw, expected="bits a parameter, such as 5.0")
        if self.size is not None and self.size < 1:
            raise InputError("--target-size cannot be used", got=self.size, expected="bytes, such as 90MB")

    def bytes(self, parameters: int) -> int:
        """Of weights, at most."""
        return self.size if self.size is not None else int((self.bpw or 0) * parameters / 8)


def parse_size(given: str | int) -> int:
    """Bytes: a number, or one with KB, MB, GB (of 1,000) or KiB, MiB, GiB (of 1,024)."""
    if isinstance(given, int):
        return given
    found = SIZE.fullmatch(given.strip())
    factor = UNITS.get(found[2].upper()) if found else None
    if found is None or factor is None:
        raise InputError("--target-size cannot be used", got=given[:40], expected="bytes, such as 90MB or 1.2GB")
    return int(float(found[1]) * factor)


def ask_budget(
    bpw: float | None,
    size: str | int | None,
    quant: str,
    group: int | None = None,
    embedding: int | None = None,
    head: int | None = None,
) -> Budget | None:
    """What is asked for by `export`'s arguments; None where it is no budget."""
    if bpw is None and size is None:
        return None
    if quant != "int4":
        raise InputError(
            "a budget mixes int4 and int8",
            got=f"--quant {quant} with --target-{'bpw' if size is None else 'size'}",
            todo="leave out one of the two",
        )
    return Budget(bpw, None if size is None else parse_size(size), group, embedding, head)
