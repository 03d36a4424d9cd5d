"""Checked reads of an untrusted config.json."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

from smolship.runtime.errors import InputError, show

ABSENT: Any = object()  # what a key that is not there holds


class Fields:
    """Checked reads from an untrusted config.json: type and range first, so that nothing is sized by a lie.

    A key that is absent takes the default. Null is refused, as transformers refuses it, where it is not `nullable`;
    there it is as good as absent.

    seen   the keys that were asked for: nothing depends on the others
    notes  what a reader wants said of values that nothing depends on
    """

    def __init__(self, raw: dict[str, Any], where: Path | str):
        self.raw, self.where = raw, str(where)
        self.seen: set[str] = set()
        self.notes: list[str] = []

    def _get(self, key: str, nullable: bool = False) -> Any:
        self.seen.add(key)
        value = self.raw.get(key, ABSENT)
        return ABSENT if nullable and value is None else value

    def wrong(self, key: str, expected: str) -> InputError:
        """The refusal of what the key holds."""
        value = self._get(key)
        got = "nothing" if value is ABSENT else show(value)
        return InputError(f"config value {key!r} cannot be used", got=f"{got} in {self.where}", expected=expected)

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self._get(key, nullable=True) is not ABSENT

    def int(self, key: str, low: int, high: int, default: int | None = None, nullable: bool = False) -> int:
        value = self._get(key, nullable)
        if value is ABSENT and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low:,} to {high:,}")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None, whole: bool = True) -> float:
        """`whole`: whether transformers takes a number without a point there, too."""
        value = self._get(key)
        if value is ABSENT and default is not None:
            return default
        known = isinstance(value, float) or (whole and isinstance(value, int) and not isinstance(value, bool))
        if not known or not low <= value <= high:
            raise self.wrong(key, f"a number from {low:g} to {high:g}" + ("" if whole else ", with a point"))
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key)
        if value is ABSENT:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def choice(self, key: str, known: tuple[str, ...], default: str) -> str:
        value = self._get(key)
        if value is ABSENT:
            return default
        if not isinstance(value, str) or value not in known:
            raise self.wrong(key, "one of " + ", ".join(known))
        return value

    def ids(self, key: str, vocab: builtins.int) -> tuple[builtins.int, ...]:
        """A token id or a list of them; empty where the key is absent."""
        value = self._get(key, nullable=True)
        values = [] if value is ABSENT else value if isinstance(value, list) else [value]
        if len(values) > 64 or any(isinstance(v, bool) or not isinstance(v, int) or not 0 <= v < vocab for v in values):
            raise self.wrong(key, f"a token id below {vocab:,}, or up to 64 of them")
        return tuple(values)

    def sub(self, key: str) -> Fields:
        """An object; empty where the key is absent. What is noted there is noted here."""
        value = self._get(key, nullable=True)
        if value is not ABSENT and not isinstance(value, dict):
            raise self.wrong(key, "an object")
        found = Fields({} if value is ABSENT else value, f"{key} of {self.where}")
        found.notes = self.notes
        return found

    def only(self, key: str, *allowed: object) -> None:
        """Refuse what would change the computation in a way that is not known: all but null and these values."""
        value = self._get(key, nullable=True)
        if value is not ABSENT and not any(type(value) is type(one) and value == one for one in allowed):
            raise self.wrong(key, " or ".join(["null", *map(show, allowed)]))

    def unseen(self) -> list[str]:
        """The keys that nobody asked for."""
        return sorted(set(self.raw) - self.seen)
