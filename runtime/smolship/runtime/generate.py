"""Next tokens: greedy or sampled, streamed, with a reason for the end and the times."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from smolship.runtime.errors import InputError
from smolship.runtime.session import Session

End = Literal["stop", "max_tokens", "context", "interrupted"]
FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Each step sees what the one before it left over.

    repetition_penalty  logits of tokens that are in the text already: divided by it if positive, else multiplied
    temperature         0 is greedy (of equal logits the lowest id); else logits are divided by it
    top_k               keep the k most likely (0: all)
    top_p               keep the most likely that together reach that probability
    min_p               drop those below this share of the most likely one's probability
    seed                None: another one each time
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("temperature", 0 <= self.temperature < float("inf"), "a finite number, 0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0, at most 1"),
            ("top_k", self.top_k >= 0, "0 (all of them) or more"),
            ("min_p", 0 <= self.min_p <= 1, "0 to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "a finite number above 0; 1 is none"),
            ("seed", self.seed is None or self.seed >= 0, "0 or more"),
        ):
            if not good:
                raise InputError(f"{name} is out of range", got=getattr(self, name), expected=expected)


class Sampler:
    """Draws tokens as `Sampling` says, from one sequence of random numbers."""

    def __init__(self, sampling: Sampling):
        self.sampling, self.random = sampling, np.random.default_rng(sampling.seed)

    def pick(self, logits: np.ndarray, text: Sequence[int] = ()) -> int:
        """A token id, given its logits float32 [V] and the tokens before it."""
        s = self.sampling
        best = int(logits.argmax())
        if not np.isfinite(logits[best]):  # argmax finds a NaN first
            raise InputError("the model's logits are not numbers", got=logits[best], todo="run `smolship parity`")
        if s.repetition_penalty != 1 and len(text):
            logits = _penalized(logits, text, s.repetition_penalty)
            best = int(logits.argmax())
        if s.temperature == 0:
            return best
        with np.errstate(over="ignore"):
            temperature = np.float32(np.clip(s.temperature, FLOAT32.tiny, FLOAT32.max))
            weights = np.exp((logits - logits[best]) / temperature)  # [V], the largest is 1
        kept = _largest(weights, s.top_k, s.top_p) if s.top_k or s.top_p < 1 else np.arange(len(weights))
        kept = kept[weights[kept] >= s.min_p]
        total = np.cumsum(weights[kept], dtype=np.float64)
        return int(kept[min(np.searchsorted(total, self.random.random() * total[-1], side="right"), len(kept) - 1)])


def _penalized(logits: np.ndarray, text: Sequence[int], penalty: float) -> np.ndarray:
    seen = np.unique(np.asarray(text))
    known = logits[seen].astype(np.float64)
    with np.errstate(over="ignore"):  # of penalties that no float32 holds
        moved = np.where(known > 0, known / penalty, known * penalty)
    logits = logits.copy()
    logits[seen] = np.clip(moved, -FLOAT32.max, FLOAT32.max)
    return logits


def _largest(weights: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """Ids of the `top_k` largest weights [V], then of as many of these as reach the share `top_p`, largest first; of
    equal weights the lowest id first, also where only some of them are kept.

    A full sort of 128k weights takes longer than a small model's forward. So only the largest few are sorted, more of
    them where they do not reach `top_p`.
    """
    limit = top_k if 0 < top_k < len(weights) else len(weights)
    total = None if limit < len(weights) else weights.sum(dtype=np.float64)
    count = min(limit, 256 if total is not None else limit)
    while True:
        ids = _first(weights, count) if count < len(weights) else np.arange(len(weights))
        ids = ids[np.argsort(-weights[ids], kind="stable")]
        mass = np.cumsum(weights[ids], dtype=np.float64)
        wanted = top_p * (mass[-1] if total is None else total)
        if count == limit or mass[-1] >= wanted:
            return ids if top_p == 1 else ids[: np.searchsorted(mass, wanted) + 1]
        count = min(count * 16, limit)


def _first(weights: np.ndarray, count: int) -> np.ndarray:
    """Ids of the `count` largest weights [V], ascending; of those that equal the smallest of them the lowest ids."""
    cut = np.partition(weights, -count)[-count]
    kept = weights > cut
    kept[np.flatnonzero(weights == cut)[: count - np.count_nonzero(kept)]] = True
    return np.flatnonzero(kept)


@dataclass(eq=False)
class Generated:
    """What was generated so far.

    prompt_tokens  that were fed first
    ids            without the stop token
    end            why it ended: a stop token, max_tokens, the context was full, or the consumer or Ctrl-C ended it
    stop_id        the stop token
    times          seconds from the start of the prefill until each id was known, the stop token's last
    """

    prompt_tokens: int
    ids: list[int] = field(default_factory=list)
    end: End = "interrupted"
    stop_id: int | None = None
    times: list[float] = field(default_factory=list)

    @property
    def ttft_s(self) -> float | None:
        """Seconds until the first token was known, prefill included; None before."""
        return self.times[0] if self.times else None

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens a second after the first; None with fewer than two."""
        return (len(self.times) - 1) / (self.times[-1] - self.times[0]) if len(self.times) > 1 else None


class Generation(Generated):
    """An iterator of token ids; see `generate`. Complete when the iterator has ended."""

    def __init__(
        self,
        session: Session,
        prompt_ids: Sequence[int],
        max_tokens: int | None,
        stop_ids: Collection[int],
        sampling: Sampling,
        before: Sequence[int],
        clock: Callable[[], float],
    ):
        super().__init__(len(prompt_ids))
        self._clock, self._sampler = clock, Sampler(sampling)
        self._steps = self._run(session, list(prompt_ids), max_tokens, frozenset(stop_ids), list(before))

    def _run(
        self, session: Session, feed: list[int], max_tokens: int | None, stop_ids: frozenset[int], before: list[int]
    ) -> Iterator[int]:
        start, text = self._clock(), before + feed
        while max_tokens is None or len(self.ids) < max_tokens:
            if self.ids and session.position == session.capacity:
                self.end = "context"
                return
            token = self._sampler.pick(session.forward(feed)[0], text)
            self.times.append(self._clock() - start)
            if token in stop_ids:
                self.end, self.stop_id = "stop", token
                return
            self.ids.append(token)
            text.append(token)
            yield token
            feed = [token]
        self.end = "max_tokens"

    def __iter__(self) -> Iterator[int]:
        return self._steps

    def __next__(self) -> int:
        return next(self._steps)


def generate(
    session: Session,
    prompt_ids: Sequence[int],
    max_tokens: int | None = None,
    stop_ids: Collection[int] = (),
    sampling: Sampling = Sampling(),
    *,
    before: Sequence[int] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> Generation:
    """Feed `prompt_ids` after what the session holds and stream what follows, one forward a token.

    max_tokens  None: until a stop token or the end of the context
    before      the tokens that the session holds already (the repetition penalty counts them)

    The last token is never fed: the session ends just before it. The first step raises InputError for a prompt that
    does not fit.
    """
    if max_tokens is not None and max_tokens < 1:
        raise InputError("max_tokens is out of range", got=max_tokens, expected="1 or more")
    return Generation(session, prompt_ids, max_tokens, stop_ids, sampling, before, clock)
