"""A text in which long numbers, a date and a phone number are said twice: an engine must say them again as they were.

Wrong digits are what accelerators are most often seen to get wrong without a word. A mean over a text hides them: few
of its tokens are digits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smolship.export.reference import Reference
from smolship.export.stream import Flow
from smolship.runtime.digits import AT, IDS, moved_name, sketch_name
from smolship.runtime.probes import Probes, Sketch
from smolship.runtime.tokenizer import Tokenizer

LINE = "number 8301947265, date 2031-11-27, phone +49 170 5526094\n"
PART = 900  # of the noise: windows have their numbers


def repeated_digits(tokenizer: Tokenizer, context: int) -> dict[str, np.ndarray]:
    """The text's tokens, int32 [T], and the positions whose next token holds digits of the repeat, int32 [P]. Empty
    where the context does not hold the text, or its digits are not to be found in tokens."""
    ids, before = tokenizer.encode(LINE + LINE), sum(c.isdigit() for c in LINE)
    at, digits = [], 0
    for i, token in enumerate(ids):
        found = sum(c.isdigit() for c in tokenizer.decode([token]))
        if found and digits >= before and i:
            at.append(i - 1)
        digits += found
    if not at or digits != 2 * before or len(ids) > context:
        return {}
    return {IDS: np.array(ids, np.int32), AT: np.array(at, np.int32)}


def digit_flows(arrays: dict[str, np.ndarray], arithmetics: Sequence[Reference]) -> list[Flow]:
    """The text in each arithmetic; none where there is no text."""
    return [Flow(ops, arrays[IDS], part=PART) for ops in arithmetics] if arrays else []


def take_digits(part: Probes, name: str, arrays: dict[str, np.ndarray], flows: Sequence[Flow]) -> None:
    """Put into `part` what a simulation says of the repeat, and how far rounding moves the lead of its first choice
    over its second. `flows` are the simulation's and that of one moved by an ulp; none where there is no text."""
    if not flows:
        return
    part.arrays |= arrays
    ids, at = arrays[IDS], np.arange(arrays[AT][0], arrays[AT][-1] + 1)
    logits, other = (np.concatenate([found for _, found in flow.logits(at)]) for flow in flows)
    part.sketches[sketch_name(name)] = Sketch.of(logits, ids[at + 1])
    rows = arrays[AT] - at[0]
    part.arrays[moved_name(name)] = np.abs(_lead(logits[rows]) - _lead(other[rows], logits[rows])).astype(np.float32)


def _lead(logits: np.ndarray, by: np.ndarray | None = None) -> np.ndarray:
    """float32 [P]: how far the largest logit of `by` is above its second, in logits [P, V]."""
    first, second = np.argsort(logits if by is None else by, axis=1)[:, :-3:-1].T
    rows = np.arange(len(logits))
    return logits[rows, first] - logits[rows, second]
