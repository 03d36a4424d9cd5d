"""Errors that a user reads: what is wrong, what was got, what was expected, what to do about it."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 120, 120
LABELS = {"got": "  got:      ", "expected": "  expected: ", "todo": "  to do:    "}


class SmolshipError(Exception):
    """Base of every error that smolship raises on purpose. `exit_code` is what the command returns."""

    exit_code = 2

    def __init__(self, what: str, *, got: object = None, expected: object = None, todo: str | None = None):
        parts = [what]
        if got is not None:
            parts.append(LABELS["got"] + clip(got))
        if expected is not None:
            parts.append(LABELS["expected"] + clip(expected))
        if todo is not None:
            parts.append(LABELS["todo"] + todo)
        super().__init__("\n".join(parts))

    def parts(self) -> dict[str, str | None]:
        """what, got, expected and todo: read from the text, which is all that a child process hands on."""
        found: dict[str, list[str]] = {"what": [], **{part: [] for part in LABELS}}
        part = "what"
        for line in str(self).split("\n"):
            starts = (name for name, label in LABELS.items() if line.startswith(label) and part != "todo")
            part = next(starts, part)
            found[part].append(line.removeprefix(LABELS.get(part, "")))
        return {name: "\n".join(lines) if lines else None for name, lines in found.items()}


class InputError(SmolshipError):
    """The user's input (checkpoint, bundle, prompt, option) cannot be used. Exit code 2."""


class GateError(SmolshipError):
    """What was made does not pass a gate. Exit code 1."""

    exit_code = 1


class SetupError(SmolshipError):
    """The environment falls short: an engine is not installed, the disk is full. Exit code 3."""

    exit_code = 3


class Fault(SmolshipError):
    """A fault of smolship itself: what nobody foresaw. Exit code 70, as sysexits.h has it."""

    exit_code = 70


def clip(value: object, limit: int = 400) -> str:
    """`value` as one printable line of at most `limit` characters: it may come from an untrusted file."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def show(value: object) -> str:
    """`repr` of a value from an untrusted file, cut where it is long or deep (plain repr can overflow the stack)."""
    return _SHORT.repr(value)


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a registry; it lists the names that are."""
    return InputError(f"unknown {kind}", got=name, expected="one of " + ", ".join(sorted(known)))


def missing_engine(package: str, extra: str, error: ImportError) -> SetupError:
    """The error for an engine whose package cannot be imported."""
    return SetupError(f"{package} cannot be imported", got=error, todo=f"pip install 'smolship[{extra}]'")
