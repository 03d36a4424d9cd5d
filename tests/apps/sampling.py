"""sampling.json: tokens as generate.Sampler picks them.

logits    float32 [V], exact in the file; "NaN", "Infinity" and "-Infinity" are texts
text      ids of the tokens before, for the repetition penalty
uniforms  numbers in [0, 1), one for each pick of the same logits; none is taken where temperature is 0
picks     the ids, or "error": true where the logits or the options are refused

Weights are float32: exp((logit - largest) / temperature), the temperature as float32 and no smaller than the smallest
normal one; sums are float64. Without top_k and top_p the sum goes by id, else from the largest weight on, of equal
ones the lowest id first. Every uniform number, top_p and min_p keeps a distance of 1e-6 from where another token would
be picked, so that another exp can be used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from smolship.runtime.errors import InputError
from smolship.runtime.generate import Sampler, Sampling

MARGIN = 1e-6
LAST = float(np.nextafter(1, 0))
DRAWS = 12
Case = dict[str, Any]


class Given:
    """In place of a random generator."""

    def __init__(self, numbers: Sequence[float]):
        self.numbers = iter(numbers)

    def random(self) -> float:
        return next(self.numbers)


def draw(logits: np.ndarray, text: Sequence[int], sampling: Sampling, u: float) -> int:
    sampler = Sampler(sampling)
    sampler.random = Given([u])  # type: ignore[assignment]
    return sampler.pick(logits, text)


def nearby(sampling: Sampling, u: float) -> Iterator[tuple[Sampling, float]]:
    """The same, and what lies so near that the pick may not depend on it."""
    for sign in (0, -MARGIN, MARGIN):
        yield sampling, min(max(u + sign, 0.0), LAST)
        for name in ("top_p", "min_p"):
            if (value := getattr(sampling, name)) not in (0, 1):
                yield replace(sampling, **{name: min(value * (1 + sign), 1.0)}), u


def case(
    name: str, logits: np.ndarray, text: Sequence[int] = (), uniforms: Sequence[float] | None = None, **options: Any
) -> Case:
    logits, numbers = logits.astype(np.float32), [_number(one) for one in logits.astype(np.float32)]
    head = {"name": name, "logits": numbers, "text": list(text)}
    full = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0} | options
    try:
        sampling = Sampling(**full)
        picked = {
            u: {draw(logits, text, *near) for near in nearby(sampling, u)} for u in uniforms or _uniforms(len(logits))
        }
    except InputError:
        return head | {"sampling": full, "error": True}
    firm = {u: min(found) for u, found in picked.items() if len(found) == 1}
    if uniforms is not None and len(firm) < len(uniforms):
        raise AssertionError(f"{name}: a number too near to another token's: {picked}")
    taken = [] if full["temperature"] == 0 else list(firm)
    return head | {"sampling": full, "uniforms": taken, "picks": list(firm.values())}


def cases() -> list[Case]:
    small, wide, large = _logits(1, 40, 3), _logits(2, 400, 2), _logits(3, 1500, 1)
    equal, stairs = np.zeros(1000), np.repeat(np.arange(10, 0, -1), 30) / 4
    hidden = np.where(np.arange(40) % 3 == 0, -np.inf, small)
    said = [3, 3, 7, int(small.argmax()), int(small.argmin())]
    found = [
        case("greedy", small, temperature=0.0, uniforms=[0.5]),
        case("greedy: of equal logits the lowest id", np.array([0, 2, 2, 1.0, 2]), temperature=0.0, uniforms=[0.5]),
        case("greedy: minus zero equals zero", np.array([-0.0, 0.0, -1.0]), temperature=0.0, uniforms=[0.5]),
        case("greedy: other options do nothing", small, temperature=0.0, top_k=3, top_p=0.1, min_p=0.9, uniforms=[0.5]),
        case("greedy with penalty", small, said, temperature=0.0, repetition_penalty=8.0, uniforms=[0.5]),
        case("penalty without a text", small, temperature=0.0, repetition_penalty=8.0, uniforms=[0.5]),
        case("temperature 1", small),
        case("temperature 0.6", small, temperature=0.6),
        case("temperature 2.5", wide, temperature=2.5),
        case("temperature tiny", small, temperature=1e-30),
        case("temperature below what float32 holds", small, temperature=1e-300),
        case("temperature huge: all weights are equal", small, temperature=1e30, top_k=5, uniforms=[0.0, 0.3, LAST]),
        case("temperature above what float32 holds", small, temperature=1e300, uniforms=[0.0, 0.51, LAST]),
        case("one token", np.array([-5.0]), uniforms=[0.0, 0.5, LAST]),
        case("equal logits: by id, ends of the interval", equal[:8], uniforms=[0.0, 0.1, 0.49, 0.51, 0.9, LAST]),
        case("masked tokens", hidden),
        case("masked tokens with top_p and penalty", hidden, said, top_p=0.9, repetition_penalty=1.2),
        case("top_k 1", small, top_k=1, uniforms=[0.0, 0.5, LAST]),
        case("top_k 5", small, top_k=5),
        case("top_k 300 of 400", wide, top_k=300, temperature=1.5),
        case("top_k of all", small, top_k=40),
        case("top_k of more than all", small, top_k=1_000_000),
        case("top_k among equal logits", equal, top_k=5, uniforms=[0.0, 0.3, 0.5, 0.7, LAST]),
        case("top_k cuts a stair", stairs, top_k=100, temperature=2.0),
        case("top_p 0.5", small, top_p=0.5),
        case("top_p 0.9", wide, top_p=0.9),
        case("top_p 0.9999", large, top_p=0.9999),
        case("top_p tiny: the first alone", small, top_p=1e-9, uniforms=[0.0, 0.5, LAST]),
        case("top_p over a flat distribution", large, top_p=0.8, temperature=20.0),
        case("top_p among equal logits", stairs, top_p=0.37),
        case("min_p 0.05", wide, min_p=0.05),
        case("min_p 1: as likely as the first", np.array([1, 3, 3, 2, 3.0]), min_p=1.0, uniforms=[0.0, 0.5, LAST]),
        case("penalty 1.3", small, said, repetition_penalty=1.3),
        case("penalty 0.5: a reward", small, said, repetition_penalty=0.5, temperature=0.8),
        case("penalty beyond float32", small, said, repetition_penalty=1e300),
        case("penalty beyond float32, reward", small, said, repetition_penalty=1e-300),
        case("all options", wide, said, temperature=0.7, top_k=50, top_p=0.95, min_p=0.02, repetition_penalty=1.1),
        case("SmolLM3's", large, list(range(0, 1500, 7)), temperature=0.6, top_p=0.95),
        case("Qwen3's", large * 3, temperature=0.6, top_k=20, top_p=0.95),
    ]
    for i, (value, temperature) in enumerate([(np.nan, 1.0), (np.nan, 0.0), (np.inf, 1.0), (np.inf, 0.0)]):
        found.append(case(f"no number {i}", np.array([0, value, 1]), temperature=temperature))
    found.append(case("nothing but minus infinity", np.full(4, -np.inf)))
    for name, value in (
        *(("temperature", -0.5), ("top_p", 0.0), ("top_p", 1.1), ("top_k", -1), ("min_p", -0.1), ("min_p", 1.5)),
        *(("repetition_penalty", 0.0), ("repetition_penalty", -1.0)),
    ):
        found.append(case(f"{name} {value}", small[:4], **{name: value}))
    return found


def _logits(seed: int, count: int, scale: float) -> np.ndarray:
    """Normally distributed, in steps of 1/64: exact in float32 and short in JSON."""
    return np.round(np.random.default_rng(seed).standard_normal(count) * scale * 64) / 64


def _uniforms(seed: int) -> list[float]:
    return [round(float(u), 6) for u in np.random.default_rng(seed).random(DRAWS)]


def _number(value: np.float32) -> float | str:
    return float(value) if np.isfinite(value) else str(float(value)).replace("inf", "Infinity").replace("nan", "NaN")
