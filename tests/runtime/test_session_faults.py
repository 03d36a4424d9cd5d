"""Faults planted in a running session, as engines have had them: each fails the gate that is there for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from smolship.export import export
from smolship.runtime import open_bundle
from smolship.runtime.bundle import Bundle
from smolship.runtime.parity import parity
from smolship.runtime.session import Session

Run = Callable[[np.ndarray, int], np.ndarray]


@pytest.fixture(scope="module", params=["int8", pytest.param("none", marks=pytest.mark.real)])
def bundle(request, tiny, tmp_path_factory) -> Bundle:
    """Windows of 160 tokens in a cache of 200; floors chaotic and not."""
    out = tmp_path_factory.mktemp("faults") / "bundle"
    return export(tiny("smollm3"), out, to=["onnx", "executorch"], quant=request.param, context=200, probe_tokens=320)


@pytest.fixture
def failed(bundle, monkeypatch) -> Callable[..., set[str]]:
    """What fails when a fault is planted in every session: the engine's checks without "simulated → "."""

    def measure(plant: Callable[[Session], Any], target: str = "onnx", quick: bool = False) -> set[str]:
        opened = Bundle.session

        def planted(*args: Any, **options: Any) -> Session:
            session = opened(*args, **options)
            plant(session)
            return session

        with monkeypatch.context() as patch:
            patch.setattr(Bundle, "session", planted)
            report = parity(open_bundle(bundle.path), target, quick=quick, threads=1)
        wrong = [check for check in report.checks if not check.passed]
        assert {check.stage for check in wrong} <= {"engine", "total"}
        assert report.passed == (not wrong)
        return {check.what.removeprefix("simulated → ") for check in wrong}

    return measure


def running(fault: Callable[[Run, np.ndarray, int], np.ndarray]) -> Callable[[Session], None]:
    """Plant a fault in what runs the tokens: (the sound `_run`, ids, position) -> logits."""

    def plant(session: Session) -> None:
        sound = session._run
        session._run = lambda ids, position: fault(sound, ids, position)  # type: ignore[method-assign]

    return plant


def blurred(logits: np.ndarray, much: float) -> np.ndarray:
    return logits + np.random.default_rng(8).normal(0, much, logits.shape).astype(np.float32)


@pytest.mark.parametrize("target", ["onnx", "executorch"])
def test_a_sound_session_passes(failed, target):
    assert failed(lambda session: None, target) == failed(lambda session: None, target, quick=True) == set()


@pytest.mark.parametrize("target", ["onnx", "executorch"])
@pytest.mark.parametrize("quick", [True, False])
def test_a_rewind_that_forgets_to_rewind(failed, quick, target):
    """Tokens that were taken back stay in the cache, and the next come after them."""

    def plant(session: Session) -> None:
        stale = [0]
        rewind, sound = session.rewind, session._run

        def forgetful(to: int) -> None:
            stale[0] = stale[0] + session.position - to if to else 0
            rewind(to)

        session.rewind = forgetful  # type: ignore[method-assign]
        session._run = lambda ids, position: sound(ids, position + stale[0])  # type: ignore[method-assign]

    assert failed(plant, target, quick) == {"cold → rewound"}


def test_a_trace_of_what_was_taken_back(failed):
    """A difference that no bound of rounding would see: one last bit."""

    def plant(session: Session) -> None:
        rewind, sound, taken = session.rewind, session._run, [False]

        def watched(to: int) -> None:
            taken[0] = 0 < to < session.position
            rewind(to)

        def run(ids: np.ndarray, position: int) -> np.ndarray:
            logits = sound(ids, position)
            return np.nextafter(logits, np.inf, dtype=np.float32) if taken[0] else logits

        session.rewind, session._run = watched, run  # type: ignore[method-assign]

    assert failed(plant) == {"cold → rewound"}


def test_an_engine_that_never_says_the_same_twice(failed):
    calls = [0]

    def drifting(run: Run, ids: np.ndarray, position: int) -> np.ndarray:
        calls[0] += 1
        return run(ids, position) * np.float32(1 + 1e-7 * (calls[0] % 2))

    assert failed(running(drifting)) == {"cold → cold again", "cold → rewound"}


@pytest.mark.parametrize("length", [17, 33, 128])
def test_one_length_of_prefill_is_wrong(failed, length, bundle):
    """So little that the mean over all lengths does not show it."""
    much = 0.06 if bundle.manifest.quantization.linear == 8 else 2e-5

    def wrong(run: Run, ids: np.ndarray, position: int) -> np.ndarray:
        return blurred(run(ids, position), much) if len(ids) == length else run(ids, position)

    assert failed(running(wrong)) == {"prefill, worst length"}


@pytest.mark.parametrize("quick", [True, False])
def test_a_length_very_wrong_is_seen_in_a_quick_run_too(failed, quick):
    def wrong(run: Run, ids: np.ndarray, position: int) -> np.ndarray:
        return blurred(run(ids, position), 1.0) if len(ids) == 128 else run(ids, position)

    assert "prefill, worst length" in failed(running(wrong), quick=quick)


@pytest.mark.parametrize("target", ["onnx", "executorch"])
@pytest.mark.parametrize("length", [16, 65, 128])
def test_a_prefill_that_answers_rightly_and_leaves_a_wrong_cache(failed, target, length):
    """One token in its middle is written over after the answer is made."""

    def wrong(run: Run, ids: np.ndarray, position: int) -> np.ndarray:
        logits = np.array(run(ids, position))
        if len(ids) == length:
            run(np.array([5]), position + length // 2)
        return logits

    seen = failed(running(wrong), target)
    assert "prefill → decode, worst length" in seen
    assert not seen & {"decode", "decode, worst positions", "cold → cold again", "cold → rewound"}
    if (target, length) != ("executorch", 128):  # where that is a whole chunk, and longer prompts go on from it
        assert not seen & {"prefill", "prefill, worst length"}


@pytest.mark.parametrize("target", ["onnx", "executorch"])
def test_the_last_slots_of_the_cache_are_wrong(failed, target):
    """The last two positions fall on the one before them. (One alone costs a KL of 1.3e-3 here, which the bound of a
    single position, four times the floor's worst, may lie above: few roundings tip over in 320 tokens of int8.)"""
    seen = failed(running(lambda run, ids, at: run(ids, min(at, 197) if len(ids) == 1 else at)), target)
    assert seen - {"cache's end"} == {"cache's end, worst positions"}


def test_a_position_is_off_by_one_after_a_chunk(failed):
    """A prompt of more than one chunk leaves a gap before each but the first."""

    def plant(session: Session) -> None:
        sound, session.chunk = session._run, 40
        session._run = lambda ids, at: sound(ids, at + 1 if at and len(ids) > 1 else at)  # type: ignore[method-assign]

    seen = failed(plant)
    assert {"prefill, worst length", "chunks, worst size", "prefill → decode, worst length"} <= seen
    assert not seen & {"decode", "decode, worst positions"}


def test_a_stretch_of_decode_is_wrong(failed, bundle):
    much = 0.04 if bundle.manifest.quantization.linear == 8 else 1.8e-5

    def wrong(run: Run, ids: np.ndarray, position: int) -> np.ndarray:
        return blurred(run(ids, position), much) if len(ids) == 1 and 134 <= position < 144 else run(ids, position)

    assert failed(running(wrong)) == {"decode, worst positions"}


def test_a_nan_of_the_engine_is_the_engine_s(failed):
    def wrong(run: Run, ids: np.ndarray, position: int) -> np.ndarray:
        logits = run(ids, position)
        return logits * np.float32("nan") if position == 77 else logits

    assert failed(running(wrong)) >= {"decode", "decode, worst positions"}
