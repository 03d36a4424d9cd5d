"""A plan: what a session is asked, wherever it runs. It travels as a file (records.py), read as untrusted input.

`engine`, `info` (the artifact's entry in the manifest) and `threads` say what is opened; `arithmetic`, in what else
than by itself the engine is to compute. Then, each where it is in the plan:

    loads    cold and warm load, before anything else is opened
    calls    tokens fed in order; what is looked at comes back as sketches of the logits
    layers   keys and values of so many layers, as the last call left them
    cache    keys and values of each layer, float32 [2, tokens, kv heads, head size], for calls that preset it
    timing   time to first token, and decoding, in repeats
    answer   what follows the first text, token by token: each is told as it is chosen; alone, or after loads
    strings  of which the engine's own tokenizer makes ids, and a text of these again; asked only of what says in its
             traits that it has one

A plan of none of these answers with the session's traits, which the next plan can be made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from smolship.runtime.errors import InputError
from smolship.runtime.generate import Sampling
from smolship.runtime.records import LATER, Blocks, Ids, Table, to_json

SCHEMA = 1
Purpose = Literal["parity", "quick parity", "load", "bench", "generate"]
PARITY: Purpose = "parity"
QUICK: Purpose = "quick parity"
MOST_THREADS = 1024
MOST = 1 << 20  # calls, repeats, tokens of an answer
MOST_STRINGS, LONGEST_STRING, ALL_STRINGS = 1 << 12, 1 << 13, 1 << 20  # how many; bytes of one, and of all, as UTF-8


@dataclass(frozen=True, eq=False)
class Text:
    """Tokens to feed, and the ids whose logits are wanted at some of their positions."""

    ids: Ids
    at: Ids  # [P], those positions, ascending
    wanted: Table  # [P, K]

    def __post_init__(self) -> None:
        if not len(self.ids) or min(self.ids.min(), self.wanted.min(initial=0)) < 0:
            raise InputError("a plan's text has no tokens, or negative ones")
        inside = not len(self.at) or (self.at[0] >= 0 and self.at[-1] < len(self.ids) and (np.diff(self.at) > 0).all())
        if not inside or len(self.at) != len(self.wanted):
            raise InputError("a plan's text wants logits at positions that it has not, or not in order")

    @staticmethod
    def plain(ids: np.ndarray) -> Text:
        """A text of which no logits are wanted."""
        return Text(ids.astype(np.int32), np.empty(0, np.int32), np.empty((0, 0), np.int32))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The ids wanted at positions start to stop, int32 [stop - start, K]; none where nothing is said of them."""
        first = int(np.searchsorted(self.at, start))
        found = self.at[first : first + stop - start]
        if np.array_equal(found, np.arange(start, stop)):
            return self.wanted[first : first + stop - start]
        return np.empty((stop - start, 0), np.int32)


@dataclass(frozen=True)
class Call:
    """Feed ids[start:stop] of a text.

    look    the positions whose logits are looked at
    greedy  feed the largest logit's token each time in place of the text's, and look at all
    exact   with a digest of each position's logits
    rewind  go back to that position of the cache first
    preset  or fill the cache up to that position with the plan's `cache`, over and over (Session.preset)
    stage   what it is for, to show
    """

    stage: str
    text: int
    start: int
    stop: int
    look: Literal["none", "last", "all"] = "last"
    rewind: int | None = None
    greedy: bool = False
    exact: bool = False
    preset: int | None = None

    @property
    def looked(self) -> slice:
        """The positions of the text that are looked at."""
        return slice({"none": self.stop, "last": self.stop - 1, "all": self.start}[self.look], self.stop)


@dataclass(frozen=True)
class Timing:
    """Phases over the first text, each once uncounted and then `repeats` times.

    prompts    lengths, fed until the first token is chosen
    depths     tokens in the cache before `tokens` are decoded greedily
    warmups    before all phases, the shortest prompt and decoding at the smallest depth, until two in a row agree
               within 5 %, or that many were made
    sustained  seconds of decoding at the smallest depth, behind all phases
    """

    prompts: tuple[int, ...]
    depths: tuple[int, ...]
    tokens: int
    repeats: int
    warmups: int = 0
    sustained: int = 0


@dataclass(frozen=True, eq=False)
class Answer:
    """As generate.generate has it."""

    max_tokens: int
    stop_ids: Ids
    sampling: Sampling


@dataclass(frozen=True)
class Plan:
    """See the module."""

    purpose: Purpose  # what asks
    target: str
    engine: str
    info: dict[str, Any]
    threads: int
    arithmetic: str = ""
    texts: tuple[Text, ...] = ()
    calls: tuple[Call, ...] = ()
    layers: int = 0
    cache: tuple[Blocks, ...] = ()
    timing: Timing | None = None
    loads: bool = False
    answer: Answer | None = field(default=None, metadata=LATER)
    strings: tuple[str, ...] | None = field(default=None, metadata=LATER)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError("a plan of another version", got=self.schema, expected=SCHEMA)
        try:
            to_json(self.info)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError("an artifact's entry cannot be put into a plan", got=error, expected="JSON") from None
        problems = [f"{self.threads} threads"] * (not 1 <= self.threads <= MOST_THREADS)
        problems += [f"{self.layers} layers"] * (not 0 <= self.layers <= MOST)
        problems += [f"{len(self.calls):,} calls"] * (len(self.calls) > MOST)
        problems += [f"the cache of layer {i}" for i, part in enumerate(self.cache) if len(part) not in (1, 2)]
        problems += [f"call {i}" for i, call in enumerate(self.calls) if not self._can(i, call)]
        if self.timing and not self._can_time(self.timing):
            problems.append("its timing")
        if self.answer and not self._can_answer(self.answer):
            problems.append("its answer")
        if self.strings is not None and not self._can_tokenize(self.strings):
            problems.append("its strings")
        if problems:
            raise InputError("a plan asks what cannot be done", got=", ".join(problems[:5]))

    def _can(self, i: int, call: Call) -> bool:
        """Whether the call keeps to its text; how much the cache holds, the session knows."""
        return (
            0 <= call.text < len(self.texts)
            and 0 <= call.start < call.stop <= len(self.texts[call.text].ids)
            and (call.rewind is None or call.rewind >= 0)
            and (call.preset is None or (call.preset >= 0 and bool(self.cache) and call.rewind is None))
            and not (call.greedy and (i == 0 or call.look != "all" or (call.rewind, call.preset) != (None, None)))
        )

    def _can_time(self, timing: Timing) -> bool:
        longest = len(self.texts[0].ids) if self.texts else 0
        sizes = [*timing.prompts, *timing.depths]
        return (
            bool(timing.prompts and timing.depths)
            and all(1 <= size <= longest for size in sizes)
            and all(1 <= count <= MOST for count in (timing.tokens, timing.repeats))
            and all(0 <= count <= MOST for count in (timing.warmups, timing.sustained))
        )

    def _can_answer(self, answer: Answer) -> bool:
        alone = len(self.texts) == 1 and not (self.calls or self.layers or self.timing)
        return alone and 1 <= answer.max_tokens <= MOST and answer.stop_ids.min(initial=0) >= 0

    def _can_tokenize(self, strings: Sequence[str]) -> bool:
        try:
            sizes = [len(text.encode()) for text in strings]
        except UnicodeEncodeError:  # a half of a surrogate pair
            return False
        few = 1 <= len(sizes) <= MOST_STRINGS and max(sizes) <= LONGEST_STRING and sum(sizes) <= ALL_STRINGS
        return few and self.answer is None

    @property
    def digest(self) -> str:
        return hashlib.sha256(to_json(self)).hexdigest()

    @property
    def highest(self) -> int:
        """The largest token id that is fed or wanted; -1 for none."""
        return max((max(int(text.ids.max()), int(text.wanted.max(initial=-1))) for text in self.texts), default=-1)

    @property
    def options(self) -> dict[str, Any]:
        """What the engine is told."""
        return self.info | ({"arithmetic": self.arithmetic} if self.arithmetic else {})
