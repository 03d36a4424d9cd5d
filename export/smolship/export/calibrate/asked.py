"""What is asked for, and how much each effort is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from smolship.runtime.errors import InputError, unknown

NONE, SELF = "none", "self"
WINDOW = 256  # tokens of a text
JUDGED = 1 / 16  # of the windows: nothing is fitted to them, and the divergence is measured on them
WHOLE = 700_000_000  # parameters up to which a model is trained as a whole: about 6 bytes each, beside what passes
LARGEST_SEED = (1 << 32) - 1

Document = str | list[dict[str, Any]]  # a text, or the messages of a chat


@dataclass(frozen=True)
class Effort:
    """windows      of WINDOW tokens that are looked at
    steps        of training, where a model is trained as a whole
    layer_steps  of each layer, where it is not
    batch        windows of a step
    """

    windows: int
    steps: int
    layer_steps: int
    batch: int = 4


EFFORTS = {"quick": Effort(32, 12, 6), "default": Effort(96, 40, 12), "best": Effort(256, 200, 40)}


@dataclass(frozen=True)
class Calibration:
    """`documents` are the text; None: the model writes it."""

    effort: str = "default"
    seed: int = 0
    documents: tuple[Document, ...] | None = None

    def __post_init__(self) -> None:
        if self.effort not in EFFORTS:
            raise unknown("effort", self.effort, EFFORTS)
        if type(self.seed) is not int or not 0 <= self.seed <= LARGEST_SEED:
            raise InputError("the seed cannot be used", got=self.seed, expected=f"0 to {LARGEST_SEED:,}")

    @property
    def text(self) -> str:
        """How the manifest calls it."""
        return SELF if self.documents is None else "file"

    @property
    def sha256(self) -> str | None:
        """Of the user's text, as it was understood."""
        if self.documents is None:
            return None
        return hashlib.sha256(json.dumps(self.documents, sort_keys=True).encode()).hexdigest()

    @property
    def amount(self) -> Effort:
        return EFFORTS[self.effort]
