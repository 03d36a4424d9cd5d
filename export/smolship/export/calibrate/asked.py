"""What is asked for, and how much each effort is."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smolship.export.calibrate.documents import Document, read_documents
from smolship.export.config import DecoderConfig
from smolship.runtime.errors import InputError, unknown

NONE, SELF = "none", "self"
DEFAULT = "default"
WINDOW = 256  # tokens of a text
JUDGED = 1 / 16  # of the windows: nothing is fitted to them, and the divergence is measured on them
WHOLE = 700_000_000  # parameters up to which a model is trained as a whole: about 6 bytes each, beside what passes
LARGEST_SEED = (1 << 32) - 1


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
    """sha256  of the text, as `digest` gives it; None: the model writes it"""

    effort: str = DEFAULT
    seed: int = 0
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.effort not in EFFORTS:
            raise unknown("effort", self.effort, EFFORTS)
        if type(self.seed) is not int or not 0 <= self.seed <= LARGEST_SEED:
            raise InputError("the seed cannot be used", got=self.seed, expected=f"0 to {LARGEST_SEED:,}")

    @property
    def text(self) -> str:
        """How the manifest calls it."""
        return SELF if self.sha256 is None else "file"

    @property
    def amount(self) -> Effort:
        return EFFORTS[self.effort]


def window(config: DecoderConfig) -> int:
    """Tokens of a window."""
    return min(WINDOW, config.longest)


def is_whole(config: DecoderConfig) -> bool:
    """Whether a model is trained as a whole."""
    return sum(map(math.prod, config.shapes().values())) <= WHOLE


def digest(documents: Sequence[Document]) -> str:
    """Of a text, as it was understood."""
    return hashlib.sha256(json.dumps(documents, sort_keys=True).encode()).hexdigest()


def ask(
    calibrate: str | Path, effort: str | None = None, seed: int | None = None
) -> tuple[Calibration | None, list[Document] | None]:
    """What is asked for by `export`'s arguments, and the documents of a text of the user's."""
    if calibrate == NONE:
        if effort is not None or seed is not None:
            what = "effort" if effort is not None else "seed"
            raise InputError(
                f"a calibration's {what}, and no calibration",
                got=f"--{what} with --calibrate {NONE}",
                todo=f"leave it out, or say on which text: --calibrate {SELF}, or --calibrate FILE",
            )
        return None, None
    documents = None if calibrate == SELF else read_documents(Path(calibrate))
    sha256 = None if documents is None else digest(documents)
    return Calibration(DEFAULT if effort is None else effort, seed or 0, sha256), documents
