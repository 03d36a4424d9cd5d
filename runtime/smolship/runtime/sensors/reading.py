"""A reading: a value with its unit and source, or the reason why there is none."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from smolship.runtime.errors import clip
from smolship.runtime.records import LONGEST, wrong

Value = float | int | str | bool
KEYS = ("value", "unit", "source", "why")


@dataclass(frozen=True)
class Reading:
    """
    value   None: unavailable
    unit    such as "°C", "kHz", "bytes"; empty for texts and truths
    source  the file or the command
    why     the reason where there is no value; empty otherwise
    """

    value: Value | None
    unit: str
    source: str
    why: str = ""

    @property
    def number(self) -> float | None:
        """The value where it is a number."""
        good = isinstance(self.value, (int, float)) and not isinstance(self.value, bool)
        return float(self.value) if good else None  # type: ignore[arg-type]

    @property
    def text(self) -> str | None:
        """The value where it is a text."""
        return self.value if isinstance(self.value, str) else None

    def __str__(self) -> str:
        if self.value is None:
            return f"unavailable ({self.why})"
        return f"{self.value} {self.unit}".rstrip()

    @staticmethod
    def from_json(raw: Any, file: str, at: str) -> Reading:
        """The reading whose fields were written. Raises InputError where it is none."""
        where = f"{file}: {at}"
        if not isinstance(raw, dict) or set(raw) != set(KEYS) or any(type(raw[key]) is not str for key in KEYS[1:]):
            raise wrong(where, raw, "a reading: value, unit, source, why")
        value = raw["value"]
        if (type(value) is float and not math.isfinite(value)) or (type(value) is int and abs(value) > LONGEST):
            raise wrong(where, value, "a number that can be one")
        if type(value) not in (int, float, str, bool, type(None)) or (value is None) != bool(raw["why"]):
            raise wrong(where, raw, "a value, or none and a reason")
        return Reading(value, raw["unit"], raw["source"], raw["why"])


def unavailable(unit: str, source: str, why: str) -> Reading:
    """A reading that cannot be had."""
    return Reading(None, unit, source, clip(why, 200) or "no reason was given")


def whole(text: str) -> int | None:
    """The whole number that a text is; None where it is none, or longer than any file of the system has."""
    text = text.strip()
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,19}", text) else None
