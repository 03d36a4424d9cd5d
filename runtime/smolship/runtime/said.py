"""What an engine says to one prompt while it is measured, and whether that is what the probes expect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smolship.runtime.bench import Question
from smolship.runtime.errors import GateError
from smolship.runtime.plan import Call, Text
from smolship.runtime.probes import Probes
from smolship.runtime.result import Seen

MOST = 32  # tokens of the answer


@dataclass(frozen=True)
class Expected:
    """Tokens of a prompt, and of the greedy continuation that the probes' simulation of a target makes.

    tie  two tokens whose logits lie as near may fall either way: twice the largest difference of a log-probability
         that rounding makes, or noise in its place: an engine may round otherwise on another processor
    """

    prompt: np.ndarray
    ids: np.ndarray
    tie: float

    @staticmethod
    def of(probes: Probes, target: str, context: int) -> Expected | None:
        """The first that the probes hold, as far as the context goes; None where there is none."""
        prompt, ids = (probes.arrays.get(f"greedy.{name}.0") for name in ("prompt", target))
        gaps = [probes.gaps.get(f"{target}.{name}") for name in ("ulp", "noise")]
        if prompt is None or ids is None or not all(gaps) or not 0 < len(prompt) < context or not len(ids):
            return None
        return Expected(
            prompt,
            ids[: min(MOST, context - len(prompt))],
            2 * max(float(np.nanmax(gap.max_abs)) for gap in gaps if gap),
        )

    @property
    def asked(self) -> Question:
        """The text and the calls of a plan in which another text comes first."""
        first, count = len(self.prompt), len(self.ids)
        at = np.arange(first - 1, first + count - 1, dtype=np.int32)
        text = Text(np.concatenate([self.prompt, self.ids]).astype(np.int32), at, self.ids[:, None].astype(np.int32))
        calls = [Call("an answer", 1, 0, first, rewind=0)]
        if count > 1:
            calls.append(Call("an answer", 1, first, first + count - 1, "all", greedy=True))
        return (text,), tuple(calls)

    def check(self, target: str, seen: Seen) -> tuple[list[int], int | None]:
        """What was said, and the first token that a near-tie decided otherwise; None where none did. Raises GateError
        where a token differs that is no near-tie."""
        ids = seen.best.tolist()
        differs = next((i for i, (a, b) in enumerate(zip(ids, self.ids.tolist(), strict=True)) if a != b), None)
        if differs is None:
            return ids, None
        behind = float(seen.peak[differs] - seen.at[differs, 0])
        if behind <= self.tie:
            return ids, differs
        raise GateError(
            f"{target} does not say what it should, from token {differs + 1} of the answer on: not measured",
            got=f"token {ids[differs]}, {behind:.3g} nats before the one expected",
            expected=f"token {int(self.ids[differs])}, or another within {self.tie:.3g} nats",
            todo="run parity of this target there: it names the first wrong position",
        )
