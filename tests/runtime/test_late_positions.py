"""Parity at the end of a cache that is preset, not filled: what is sound passes, and what goes wrong there is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from smolship.export import export, probe
from smolship.runtime import open_bundle
from smolship.runtime.asking import ask
from smolship.runtime.bundle import Bundle
from smolship.runtime.case import case_of
from smolship.runtime.engines import gguf, onnx
from smolship.runtime.parity import parity
from smolship.runtime.plan import Plan
from smolship.runtime.records import read_record, to_json
from smolship.runtime.session import Session

CONTEXT = 480
END = "simulated → cache's end, preset"


@pytest.fixture(scope="module", params=["int8", pytest.param("none", marks=pytest.mark.real)])
def bundle(request, tiny, tmp_path_factory) -> Bundle:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "is_filled", lambda config, context: False)
        out = tmp_path_factory.mktemp("late") / "bundle"
        targets = ["onnx", "executorch", "gguf"]
        return export(tiny("smollm3"), out, to=targets, quant=request.param, context=CONTEXT, probe_tokens=320)


def failed(bundle: Bundle, target: str, monkeypatch: Any, plant: Callable[[Session], Any] = lambda s: None) -> set[str]:
    """What fails with a fault in every session; the cache's end is judged in any case."""
    sound = Bundle.session

    def planted(*args: Any, **options: Any) -> Session:
        session = sound(*args, **options)
        plant(session)
        return session

    with monkeypatch.context() as patch:
        patch.setattr(Bundle, "session", planted)
        report = parity(open_bundle(bundle.path), target, quick=True, threads=1)
    ends = [check for check in report.checks if check.what.startswith(END)]
    assert len(ends) == 2 and all(check.positions and check.floor is not None for check in ends)
    return {check.what for check in report.checks if not check.passed}


@pytest.mark.parametrize("target", ["onnx", "executorch", "gguf"])
def test_a_sound_session_passes(bundle, target, monkeypatch):
    assert failed(bundle, target, monkeypatch) == set()


@pytest.mark.real
@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("target", ["gguf", "onnx"])
def test_windows_of_which_an_engine_keeps_a_part(tiny, tmp_path, monkeypatch, target, quick):
    """All gates of a model with windows, in a cache longer than is kept of them, whose end is preset."""
    monkeypatch.setattr(probe, "is_filled", lambda config, context: False)
    for engine in (gguf, onnx):
        monkeypatch.setattr(engine, "CHUNK", 64)
    bundle = export(tiny("gemma3"), tmp_path / "b", to=[target], quant="int8", context=CONTEXT, probe_tokens=320)
    report = parity(bundle, target, quick=quick, threads=1)
    ends = [check for check in report.checks if check.what.startswith(END)]
    assert report.passed and len(ends) == 2 and all(check.positions for check in ends)


@pytest.mark.parametrize("target", ["onnx", "executorch"])
def test_tokens_near_the_end_that_take_another_place(bundle, target, monkeypatch):
    """From 440 on the engine works three positions before; no window reaches there."""

    def plant(session: Session) -> None:
        run = session._run
        session._run = lambda ids, at: run(ids, at - 3 if at >= 440 else at)  # type: ignore[method-assign]

    seen = failed(bundle, target, monkeypatch, plant)
    assert f"{END}, worst positions" in seen and all(what.startswith(END) for what in seen)


def test_an_engine_whose_cache_cannot_be_written(bundle, monkeypatch):
    """It is said, and nothing fails for it."""
    monkeypatch.setattr("smolship.runtime.engines.onnx.OnnxSession.presets", False)
    report = parity(bundle, "onnx", quick=True, threads=1)
    (end,) = (check for check in report.checks if "cache's end" in check.what)
    assert report.passed and not end.positions and "does not let its cache be preset" in end.note


def test_a_plan_with_a_preset_travels(bundle):
    case = case_of(bundle, "onnx")
    head = case.plan("", 1, True)
    with case.opened(head) as session:
        plan = ask(case.probes, head, session.traits).plan
    starts = [call.preset for call in plan.calls if call.preset is not None]
    assert starts == [50, 170, 290, 394] and len(plan.cache) == 4
    again = read_record(Plan, json.loads(to_json(plan)), "plan")
    assert again.digest == plan.digest
    np.testing.assert_array_equal(again.cache[3], plan.cache[3])
