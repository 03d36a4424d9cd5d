"""How a command failed, in the shape that --json prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Literal

from smolship.runtime.errors import SmolshipError

Kind = Literal["usage", "input", "gate", "setup", "fault", "interrupted"]
KINDS: dict[int, Kind] = {1: "gate", 2: "input", 3: "setup", 70: "fault"}  # by exit code


@dataclass(frozen=True)
class Failure:
    """What a program reads of it; `message` is the text on standard error.

    kind   usage (of the command line), input, gate, setup (the environment), fault (of ours) or interrupted
    """

    kind: Kind
    exit_code: int
    message: str
    what: str | None
    got: str | None = None
    expected: str | None = None
    todo: str | None = None

    @classmethod
    def plain(cls, kind: Kind, exit_code: int, text: str) -> Failure:
        return cls(kind, exit_code, text, text)

    @classmethod
    def of(cls, error: SmolshipError) -> Failure:
        return cls(KINDS[error.exit_code], error.exit_code, str(error), **error.parts())

    def print_json(self) -> None:
        """{"error": {…}} on standard output."""
        print(json.dumps({"error": asdict(self)}, indent=1), flush=True)


def asks_json(arguments: Sequence[str] | None) -> bool:
    """Whether a command line (None: this process's) asks for JSON, even one that cannot be parsed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return "--json" in takewhile(lambda argument: argument != "--", arguments)
