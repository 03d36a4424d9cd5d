"""Which tokens may be drawn, and how likely each is: as transformers' processors, in its order, on random logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from smolship.runtime.errors import InputError
from smolship.runtime.generate import Sampler, Sampling, generate
from tests.runtime.fakes import FakeSession

VOCAB = 97


class Grid:
    """An even grid in place of random numbers: every token is drawn as often as it is likely."""

    def __init__(self, size: int):
        self.numbers = iter((np.arange(size) + 0.5) / size)

    def random(self) -> float:
        return float(next(self.numbers))


def drawn(sampling: Sampling, logits: np.ndarray, text: list[int], size: int = 4000) -> np.ndarray:
    """The share [V] of draws that each token gets."""
    sampler = Sampler(sampling)
    sampler.random = Grid(size)  # type: ignore[assignment]
    return np.bincount([sampler.pick(logits, text) for _ in range(size)], minlength=len(logits)) / size


def theirs(given: dict[str, Any], logits: np.ndarray, text: list[int]) -> np.ndarray:
    """Probabilities [V] as transformers' generate makes them of the same options."""
    import torch
    from transformers import GenerationConfig, LogitsProcessorList, PreTrainedConfig
    from transformers.generation.utils import GenerationMixin

    class Plain(GenerationMixin):
        def __init__(self) -> None:
            self.config = PreTrainedConfig()

    config = GenerationConfig(do_sample=True, **{"top_k": 0, "top_p": 1.0, "temperature": 1.0} | given)
    processors = Plain()._get_logits_processor(config, input_ids_seq_length=len(text), device="cpu")
    assert isinstance(processors, LogitsProcessorList) and len(processors) == len(given)
    scores = processors(torch.tensor([text]), torch.from_numpy(logits.copy())[None])
    return torch.softmax(scores, -1)[0].numpy()


@pytest.mark.sampled(5)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "given",
    [
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.6},
        {"repetition_penalty": 40.0, "temperature": 0.5},
        {"repetition_penalty": 1.2, "temperature": 1.7, "top_k": 20, "top_p": 0.85, "min_p": 0.04},
        {"temperature": 0.3, "min_p": 0.3},
        {"min_p": 0.02},
        {"top_k": 1},
        {"top_k": 7, "min_p": 0.15},
        {"top_p": 0.6, "top_k": 30},
    ],
    ids=str,
)
def test_the_same_distribution(given: dict[str, Any], seed: int) -> None:
    random = np.random.default_rng(100 + seed)
    logits = random.standard_normal(VOCAB).astype(np.float32) * 2.5
    text = [*random.integers(0, VOCAB, 30).tolist(), int(logits.argmax())]
    wanted = theirs(given, logits, text)
    got = drawn(Sampling(**{"temperature": 1.0} | given), logits, text)
    assert np.abs(got - wanted).max() < 1e-3
    assert not got[wanted == 0].any()


def test_greedy_over_prompt_and_answer_is_theirs() -> None:
    """Token by token over one session: the penalty counts the prompt, and what was said."""
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    prompt = [5, 9, 11]
    penalty, session, text = RepetitionPenaltyLogitsProcessor(1.9), FakeSession(vocab=40), list(prompt)
    logits = session.forward(prompt)[0]
    for _ in range(25):
        text.append(int(penalty(torch.tensor([text]), torch.from_numpy(logits.copy())[None]).argmax()))
        logits = session.forward(text[-1:])[0]
    ours = list(generate(FakeSession(vocab=40), prompt, 25, sampling=Sampling(repetition_penalty=1.9)))
    assert ours == text[len(prompt) :] != list(generate(FakeSession(vocab=40), prompt, 25))


LOGITS = np.array([0.0, 3.0, -2.0, 2.9, 0.0], np.float32)


@pytest.mark.parametrize("penalty", [1e-300, 1e-45, 1e-30, 1e30, 1e39, 1e308])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_penalties_that_no_float32_holds(penalty: float, temperature: float) -> None:
    """Zeros among the logits, and an infinite factor, make no NaN."""
    sampling = Sampling(temperature=temperature, repetition_penalty=penalty, seed=1)
    said = {Sampler(sampling).pick(LOGITS, [1, 2, 4]) for _ in range(5)}
    assert said == {1} if penalty < 1 else 1 not in said and 2 not in said


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-46, 1e-38])
def test_a_temperature_next_to_0_is_greedy(temperature: float) -> None:
    for more in ({}, {"top_p": 0.9}, {"top_k": 2}, {"min_p": 0.5}):
        assert Sampler(Sampling(temperature=temperature, **more)).pick(LOGITS) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [1e30, 1e39, 1e300])
def test_a_temperature_without_end_is_even(temperature: float) -> None:
    assert np.allclose(drawn(Sampling(temperature=temperature), LOGITS, [], 1000), 0.2)


def test_what_the_model_broke_is_not_hidden_by_the_penalty() -> None:
    for bad in (np.inf, np.nan):
        with pytest.raises(InputError, match="not numbers"):
            Sampler(Sampling(repetition_penalty=1.5)).pick(np.array([1, bad, 0], np.float32), [1])
