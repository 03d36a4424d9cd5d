"""The sampling that a generation_config.json recommends, against transformers' own reading of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smolship.export.sampling import GENERATION_KEYS, HARMLESS, NOT_FOLLOWED, RANGES, read_sampling
from smolship.runtime.facts import Recommended
from smolship.runtime.generate import _largest, _penalized

VOCAB = 300
NAN, INF = float("nan"), float("inf")
LOGITS = np.random.default_rng(11).standard_normal(VOCAB).astype(np.float32) * 3
TEXT = [5, 17, 17, 200]


@pytest.fixture(scope="module")
def original(tiny, tmp_path_factory) -> Any:
    """original({…}) -> the probabilities [V] by which transformers draws the next token from LOGITS after TEXT, given
    such a generation config; None where it refuses to generate with it."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    folder = Path(shutil.copytree(tiny("llama"), tmp_path_factory.mktemp("sampling") / "model"))
    model = AutoModelForCausalLM.from_pretrained(folder)

    def get(raw: dict[str, Any]) -> np.ndarray | None:
        (folder / "generation_config.json").write_text(json.dumps(raw))
        ids = torch.tensor([TEXT])
        try:
            model.generation_config = GenerationConfig.from_pretrained(folder)
            model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1)
        except (ValueError, TypeError):
            return None
        config, _ = model._prepare_generation_config(None)
        processors = model._get_logits_processor(config, input_ids_seq_length=len(TEXT))
        scores = processors(ids, torch.from_numpy(LOGITS)[None])[0]
        if not config.do_sample:
            return np.eye(VOCAB)[int(scores.argmax())]
        return torch.softmax(scores.double(), -1).numpy()

    return get


def ours(said: Recommended) -> np.ndarray:
    """The probabilities by which `Sampler` draws."""
    s = said.sampling()
    logits = _penalized(LOGITS, TEXT, s.repetition_penalty)
    if s.temperature == 0:
        return np.eye(VOCAB)[int(logits.argmax())]
    weights = np.exp((logits - logits.max()).astype(np.float64) / s.temperature)
    kept = _largest(weights, s.top_k, s.top_p) if s.top_k or s.top_p < 1 else np.arange(VOCAB)
    kept = kept[weights[kept] >= s.min_p]
    found = np.zeros(VOCAB)
    found[kept] = weights[kept]
    return found / found.sum()


SAME: list[dict[str, Any]] = [
    {},
    {"do_sample": None},
    {"do_sample": False},
    {"do_sample": True},
    {"do_sample": True, "temperature": None},
    {"do_sample": True, "top_k": None, "top_p": None, "min_p": None, "repetition_penalty": None},
    {"do_sample": True, "temperature": 0.35, "top_k": 0},
    {"do_sample": True, "temperature": 1, "top_p": 1},
    {"do_sample": True, "top_k": 3},
    {"do_sample": True, "top_k": 299},
    {"do_sample": True, "top_k": 10**30},
    {"do_sample": True, "top_p": 0.4},
    {"do_sample": True, "top_p": 0},
    {"do_sample": True, "top_p": 0.0, "top_k": 9},
    {"do_sample": True, "top_p": 1.75},
    {"do_sample": True, "top_p": INF},
    {"do_sample": True, "min_p": 0.25},
    {"do_sample": True, "min_p": 0},
    {"do_sample": True, "min_p": 1, "temperature": 2.5, "top_k": 0},
    {"do_sample": True, "repetition_penalty": 1.4},
    {"repetition_penalty": 7.5},
    {"repetition_penalty": 1},
    {"do_sample": True, "temperature": 0.9, "top_k": 20, "top_p": 0.7, "min_p": 0.05, "repetition_penalty": 0.8},
    {"temperature": 0.2, "top_p": 0.1},
    {"do_sample": False, "top_k": -4, "temperature": "warm", "min_p": NAN},
]


@pytest.mark.parametrize("raw", SAME, ids=json.dumps)
def test_the_next_token_is_drawn_as_transformers_draws_it(original, raw):
    said, _, problems = read_sampling(raw, "generation_config.json", VOCAB)
    assert problems == []
    np.testing.assert_allclose(ours(said), original(raw), rtol=1e-4, atol=1e-9)


REFUSED: list[tuple[str, Any]] = [
    ("temperature", -0.5),
    ("temperature", NAN),
    ("temperature", "0.7"),
    ("temperature", [1.0]),
    ("top_k", -7),
    ("top_k", 4.25),
    ("top_k", "40"),
    ("top_k", True),
    ("top_k", [40]),
    ("top_p", -0.01),
    ("top_p", "0.9"),
    ("min_p", 1.01),
    ("min_p", -0.2),
    ("min_p", NAN),
    ("min_p", "0"),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", -1.1),
    ("repetition_penalty", "1.2"),
    ("repetition_penalty", NAN),
]


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_what_transformers_refuses_is_refused(original, key, value):
    assert original({"do_sample": True, key: value}) is None
    said, _, problems = read_sampling({"do_sample": True, key: value}, "generation_config.json", VOCAB)
    assert len(problems) == 1 and key in problems[0] and RANGES[key][1] in problems[0]
    assert said == Recommended(do_sample=True)


@pytest.mark.parametrize(("key", "value"), [case for case in REFUSED if case[0] != "repetition_penalty"])
def test_and_is_a_note_where_nothing_depends_on_it(key, value):
    said, notes, problems = read_sampling({key: value}, "generation_config.json", VOCAB)
    assert (said, problems) == (Recommended(), []) and any(key in note for note in notes)


def test_a_penalty_holds_for_greedy_answers_too():
    assert read_sampling({"repetition_penalty": -3}, "config.json", VOCAB)[2]


@pytest.mark.parametrize("value", ["true", 1, 0, [], "no"])
def test_do_sample_is_true_or_false(value):
    assert "do_sample" in read_sampling({"do_sample": value}, "generation_config.json", VOCAB)[2][0]


@pytest.mark.parametrize(
    ("raw", "meant"),
    [  # transformers refuses these, and their meaning is plain
        ({"top_k": 50.0}, {}),
        ({"top_k": 12.0}, {"top_k": 12}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_k": 1e40}, {"top_k": VOCAB}),
        ({"temperature": 2}, {"temperature": 2.0}),
        ({"repetition_penalty": 2}, {"repetition_penalty": 2.0}),
        ({"temperature": 0}, {"do_sample": False}),
        ({"temperature": 0.0}, {"do_sample": False}),
    ],
)
def test_what_is_meant_is_taken(original, raw, meant):
    raw = {"do_sample": True} | raw
    assert original(raw) is None
    said, notes, problems = read_sampling(raw, "generation_config.json", VOCAB)
    assert said == Recommended(**{"do_sample": True} | meant) and problems == []
    assert bool(notes) == (raw.get("temperature") != 2 and "repetition_penalty" not in raw)


@pytest.mark.parametrize("value", [INF, True, 1e300, 10**400, 1e-300])
def test_temperatures_that_no_float32_divides_by(value):
    said, notes, problems = read_sampling({"do_sample": True, "temperature": value}, "generation_config.json", VOCAB)
    assert problems if value != 1e-300 else (said == Recommended() and notes)


def test_sampling_without_do_sample_is_said():
    said, (note,), _ = read_sampling({"temperature": 0.6, "top_p": 0.95}, "generation_config.json", VOCAB)
    assert said == Recommended(temperature=0.6, top_p=0.95) and "temperature, top_p but not do_sample" in note
    assert said.sampling().temperature == 0


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"num_beams": 5}, "num_beams 5"),
        ({"bad_words_ids": [[3]]}, "bad_words_ids [[3]]"),
        ({"suppress_tokens": [1, 2], "typical_p": 0.3}, "typical_p 0.3, suppress_tokens [1, 2]"),
        ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size 3"),
        ({"stop_strings": ["\n\n"]}, "stop_strings"),
        ({"forced_bos_token_id": 0}, "forced_bos_token_id 0"),
        ({"min_new_tokens": 9}, "min_new_tokens 9"),
        ({"temprature": 0.5}, "'temprature' 0.5"),
        ({"token_healing": True}, "token_healing True"),
    ],
)
def test_what_is_not_followed_is_named(raw, words):
    _, (note,), problems = read_sampling(raw, "generation_config.json", VOCAB)
    assert note == f"generation_config.json: not followed here: {words}" if "stop" not in words else words in note
    assert problems == []


def test_what_changes_nothing_is_not_named():
    """Every key at its neutral value, and the keys of config.json that are the model's."""
    assert read_sampling(NOT_FOLLOWED, "generation_config.json", VOCAB)[1:] == ([], [])
    assert read_sampling(dict.fromkeys(HARMLESS, 1), "generation_config.json", VOCAB)[1:] == ([], [])
    assert read_sampling({"hidden_size": 64, "num_beams": 1}, "config.json", VOCAB)[1:] == ([], [])


def test_every_key_of_transformers_is_known():
    from transformers import GenerationConfig

    theirs = {key for key in vars(GenerationConfig()) if not key.startswith("_")}
    assert theirs <= GENERATION_KEYS
