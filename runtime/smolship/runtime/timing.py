"""Times of a session, raw: loading, the first token, decoding."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from smolship.runtime.generate import generate
from smolship.runtime.memory import drop_pages
from smolship.runtime.plan import Timing
from smolship.runtime.result import Loads, Times
from smolship.runtime.session import Session, Traits

PROMPTS = (128, 512)  # tokens
DEPTHS = (128, 1024)  # tokens in the cache before decoding begins
TOKENS = 32  # decoded in each repeat
SEED = 0
AGREE = 0.05  # two repetitions of a warm machine
WARMUPS = 10  # repetitions at most until two agree


def phases(traits: Traits, repeats: int, warmups: int = 0, sustained: int = 0) -> tuple[np.ndarray, Timing]:
    """What is timed of a session, as far as its cache goes: tokens that fill it, and the phases. Warm-ups and seconds
    of sustained decoding as in Timing."""
    capacity = traits.capacity
    ids = np.random.default_rng(SEED).integers(0, traits.vocab, capacity)
    lengths = sorted({min(n, capacity) for n in PROMPTS})
    depths = sorted({max(1, min(DEPTHS[0], capacity // 4)), min(DEPTHS[1], capacity // 2)})
    return ids, Timing(tuple(lengths), tuple(depths), TOKENS, repeats, warmups, sustained)


def agree(times: Sequence[float]) -> bool:
    """Whether the last two of the times lie within 5 % of one another."""
    return len(times) > 1 and abs(times[-1] - times[-2]) <= AGREE * min(times[-2:])


def timed(session: Session, ids: np.ndarray, timing: Timing, clock: Callable[[], float] = time.perf_counter) -> Times:
    """Times of one open session, each phase once uncounted and then `timing.repeats` times."""
    tokens: list[int] = ids.tolist()

    def prefill(length: int) -> float:
        session.rewind(0)
        generation = generate(session, tokens[:length], 1, clock=clock)
        list(generation)
        return 1000 * generation.times[0]

    def decode(depth: int) -> list[float]:
        """Milliseconds between tokens; the cache holds `depth` tokens when the first of these begins."""
        session.rewind(depth - 1)
        generation = generate(session, tokens[depth - 1 : depth], timing.tokens + 1, clock=clock)
        list(generation)
        return (1000 * np.diff(generation.times)).tolist()

    def filled(depth: int) -> None:
        session.rewind(0)
        session.forward(tokens[:depth])

    shallow = min(timing.depths)
    warmups: list[float] = []
    while len(warmups) < timing.warmups and not agree(warmups):
        start = clock()
        prefill(min(timing.prompts))
        filled(shallow)
        decode(shallow)
        warmups.append(1000 * (clock() - start))
    rounds = timing.repeats + 1
    ttft = {n: [prefill(n) for _ in range(rounds)][1:] for n in timing.prompts}
    gaps = {}
    for depth in timing.depths:
        filled(depth)
        gaps[depth] = [decode(depth) for _ in range(rounds)][1:]
    sustained: list[list[float]] = []
    if timing.sustained:
        filled(shallow)
    start = now = clock()
    while now - start < timing.sustained:
        before, count = now, len(decode(shallow))
        now = clock()
        sustained.append([now - start, count / (now - before)])
    return Times(ttft, gaps, warmups, sustained)


def loaded(opened: Callable[[], Session], files: Sequence[Path], import_ms: float) -> tuple[Session, Loads]:
    """Cold and warm load of a fresh process, which took `import_ms` to import the engine's packages; with the session
    of the warm one."""
    dropped = [drop_pages(file) for file in files]

    def load() -> tuple[Session, float]:
        start = time.perf_counter()
        session = opened()
        session.forward([0])  # engines put work off until then
        return session, 1000 * (time.perf_counter() - start)

    session, cold_ms = load()
    session.close()
    session, warm_ms = load()
    session.rewind(0)
    return session, Loads(import_ms, cold_ms, warm_ms, False if False in dropped else None if None in dropped else True)
