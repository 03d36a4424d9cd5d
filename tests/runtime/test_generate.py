"""Sampling against transformers' own, and generation: what it yields, feeds, measures, and why it ends."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from smolship.runtime.errors import InputError
from smolship.runtime.generate import Sampler, Sampling, generate
from tests.runtime.fakes import FakeSession

FLAT = ({}, {"top_p": 0.9999}, {"top_k": 10**6})  # what leaves nearly all tokens, of which a few are enough
LOGITS = np.random.default_rng(0).standard_normal(2000).astype(np.float32) * 3


def kept(sampling: Sampling, logits: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Every token that can be drawn, with its probability: u runs over an even grid."""
    sampler, grid = Sampler(sampling), (np.arange(20_000) + 0.5) / 20_000

    class Even:
        def __init__(self) -> None:
            self.values = iter(grid)

        def random(self) -> float:
            return float(next(self.values))

    monkeypatch.setattr(sampler, "random", Even())
    ids, counts = np.unique([sampler.pick(logits) for _ in grid], return_counts=True)
    return dict(zip(ids.tolist(), (counts / len(grid)).tolist(), strict=True))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"top_k": 5},
        {"top_p": 0.5},
        {"top_p": 0.9},
        {"top_k": 40, "top_p": 0.8},
        {"min_p": 0.2},
        {"top_k": 10, "top_p": 0.95, "min_p": 0.1},
        {"top_p": 0.9999},
        {"top_k": 10**6},
    ],
)
def test_samples_from_the_distribution_of_transformers(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = LOGITS[:400] if given in FLAT else LOGITS
    scores = torch.from_numpy(logits.copy())[None]
    for name, warper in (
        ("temperature", TemperatureLogitsWarper),
        ("top_k", TopKLogitsWarper),
        ("top_p", TopPLogitsWarper),
        ("min_p", MinPLogitsWarper),
    ):
        value = given.get(name, 0.7 if name == "temperature" else None)
        if value is not None:
            scores = warper(value)(None, scores)
    wanted = torch.softmax(scores, -1)[0].numpy()
    got = kept(Sampling(temperature=0.7, **given), logits, monkeypatch)
    assert set(got) <= set(np.flatnonzero(wanted).tolist())
    for token in np.flatnonzero(wanted):
        assert abs(got.get(int(token), 0.0) - wanted[token]) < 2e-4


def test_top_p_widens_its_search_where_the_distribution_is_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    got = kept(Sampling(temperature=1.0, top_p=0.5), np.zeros(2000, np.float32), monkeypatch)
    assert sorted(got) == list(range(1000))


@pytest.mark.parametrize("given, count", [({"top_k": 40}, 35), ({"top_k": 400, "top_p": 0.5}, 191)])
def test_of_equal_weights_at_the_cut_the_lowest_ids_are_kept(
    given: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.zeros(2000, np.float32)
    logits[1500::100] = 4.0  # five, before 1,995 equal ones
    got = kept(Sampling(temperature=4.0, **given), logits, monkeypatch)
    assert sorted(got) == [*range(count), *range(1500, 2000, 100)]


def test_repetition_penalty_is_that_of_transformers() -> None:
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    text = [3, 3, 7, 1999, int(LOGITS.argmax())]
    scores = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([text]), torch.from_numpy(LOGITS.copy())[None])[0]
    before = LOGITS.copy()
    assert Sampler(Sampling(repetition_penalty=1.7)).pick(LOGITS, text) == int(scores.argmax()) != int(LOGITS.argmax())
    assert (before == LOGITS).all()


def test_greedy_takes_the_lowest_of_equal_logits() -> None:
    assert Sampler(Sampling()).pick(np.array([0, 2, 2, 1], np.float32)) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_refused(bad: float, temperature: float) -> None:
    with pytest.raises(InputError, match="not numbers"):
        Sampler(Sampling(temperature=temperature)).pick(np.array([0, bad, 1], np.float32))


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 2},
        {"repetition_penalty": 0},
        {"seed": -1},
    ],
)
def test_options_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is out of range"):
        Sampling(**bad)


def test_a_seed_repeats_itself_and_no_seed_does_not() -> None:
    def run(seed: int | None) -> list[int]:
        return list(generate(FakeSession(), [1, 2, 3], 20, sampling=Sampling(temperature=1.0, top_p=0.95, seed=seed)))

    assert run(5) == run(5) != run(6)
    assert run(None) != run(None)


def test_sampling_from_a_large_vocabulary_is_fast() -> None:
    logits = np.random.default_rng(1).standard_normal(128_256).astype(np.float32) * 4
    sampler, times = Sampler(Sampling(temperature=0.6, top_p=0.95, top_k=50, min_p=0.01)), []
    for _ in range(20):
        start = time.perf_counter()
        sampler.pick(logits)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005


def test_ends_at_a_stop_token_which_is_neither_yielded_nor_fed() -> None:
    session = FakeSession(stop=7)
    generation = generate(session, [1, 2, 3], 400, stop_ids=[7])
    ids = list(generation)
    assert (generation.end, generation.stop_id) == ("stop", 7)
    assert ids == generation.ids and 7 not in ids and len(ids) > 0
    assert session.held == [1, 2, 3, *ids]
    assert generation.prompt_tokens == 3


def test_ends_at_max_tokens_before_the_last_is_fed() -> None:
    session = FakeSession()
    generation = generate(session, [1, 2, 3], 5)
    ids = list(generation)
    assert generation.end == "max_tokens" and len(ids) == 5
    assert session.held == [1, 2, 3, *ids[:-1]]


@pytest.mark.parametrize("prompt", [10, 15, 16])
def test_ends_when_the_context_is_full(prompt: int) -> None:
    session = FakeSession(capacity=16)
    generation = generate(session, list(range(prompt)))
    ids = list(generation)
    assert generation.end == "context" and session.position == 16
    assert len(ids) == 16 - prompt + 1  # the last one needs no room


def test_a_prompt_that_does_not_fit_is_refused() -> None:
    session = FakeSession(capacity=16)
    with pytest.raises(InputError, match="longer than the context"):
        list(generate(session, list(range(17))))
    assert session.position == 0
    with pytest.raises(InputError, match="max_tokens"):
        generate(session, [1], 0)


def test_continues_after_what_the_session_holds() -> None:
    whole = list(generate(FakeSession(), [1, 2, 3, 4, 5], 8))
    session = FakeSession()
    session.forward([1, 2, 3])
    assert list(generate(session, [4, 5], 8, before=[1, 2, 3])) == whole


def test_the_repetition_penalty_counts_what_the_session_held_before() -> None:
    class Constant(FakeSession):
        def _logits(self, content: list[int]) -> np.ndarray:
            return np.array([3, 2, 1.9], np.float32)

    sampling = Sampling(repetition_penalty=1.55)
    assert list(generate(Constant(vocab=3), [2], 3, sampling=sampling)) == [0, 1, 0]
    assert list(generate(Constant(vocab=3), [2], 3, sampling=sampling, before=[0])) == [1, 0, 0]


def test_breaking_off_is_an_interruption() -> None:
    generation = generate(FakeSession(), [1, 2, 3], 50)
    for _, token in zip(range(3), generation, strict=False):
        assert token == generation.ids[-1]
    assert generation.end == "interrupted"


def test_ctrl_c_during_a_forward_leaves_the_session_usable() -> None:
    def interrupt(tokens: int, position: int) -> None:
        if position == 6:
            raise KeyboardInterrupt

    session = FakeSession(on_run=interrupt)
    generation = generate(session, [1, 2, 3], 50)
    with pytest.raises(KeyboardInterrupt):
        list(generation)
    assert generation.end == "interrupted" and len(generation.ids) == 4
    assert session.held == [1, 2, 3, *generation.ids[:3]]


def test_times_come_from_the_clock() -> None:
    now = [100.0]

    def run(tokens: int, position: int) -> None:
        now[0] += 0.5 if tokens > 1 else 0.25

    generation = generate(FakeSession(on_run=run), [1, 2, 3], 5, clock=lambda: now[0])
    assert generation.ttft_s is None and generation.decode_tokens_per_s is None
    list(generation)
    assert generation.ttft_s == 0.5
    assert generation.times == [0.5, 0.75, 1.0, 1.25, 1.5]
    assert generation.decode_tokens_per_s == 4.0
