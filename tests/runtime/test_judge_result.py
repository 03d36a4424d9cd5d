"""Results that are judged later, from their files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolship.runtime import asking, open_bundle
from smolship.runtime.asking import ask
from smolship.runtime.bundle import Bundle
from smolship.runtime.case import case_of
from smolship.runtime.errors import InputError
from smolship.runtime.execute import execute, in_child
from smolship.runtime.parity import judge_result, parity
from smolship.runtime.result import Result, Seen
from smolship.runtime.session import Session


@pytest.fixture
def bundle(tiny_bundle: Any) -> Bundle:
    return open_bundle(tiny_bundle("smollm3", "int8"))


def executed(bundle: Bundle, target: str, quick: bool, plant: Any = lambda session: None) -> Result:
    case = case_of(bundle, target)
    plan = case.plan("", 1, quick)
    with case.opened(plan) as session:
        plant(session)
        return execute(case.asked(plan, session.traits).plan, session, case.artifact)


def told(report: Any) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(json.dumps(report.to_dict()))
    return said | {"seconds": 0}


@pytest.mark.real
@pytest.mark.sampled(3)
@pytest.mark.parametrize("target", ["executorch", "gguf", "onnx"])
@pytest.mark.parametrize("quick", [True, False])
def test_the_report_is_that_of_parity(bundle: Bundle, tmp_path: Path, target: str, quick: bool) -> None:
    executed(bundle, target, quick).save(tmp_path / "result.json")
    report = judge_result(bundle, [Result.load(tmp_path / "result.json")], max_kl=1e-9)
    assert told(report) == told(parity(bundle, target, quick=quick, threads=1, max_kl=1e-9))
    assert [check.what for check in report.checks if not check.passed] == ["original → engine"]
    assert report.greedy and (report.drift or target == "gguf")


def test_a_result_of_another_process_is_judged_alike(bundle: Bundle) -> None:
    case = case_of(bundle, "onnx")
    traits = in_child(case.plan("", 1, True), bundle.path / "onnx").traits  # a plan that asks nothing
    plan = ask(case.probes, case.plan("", 1, True), traits).plan
    report = judge_result(bundle, [in_child(plan, bundle.path / "onnx")])
    assert told(report) == told(parity(bundle, "onnx", quick=True, threads=1))


def test_a_fault_is_found_in_the_file(bundle: Bundle, tmp_path: Path) -> None:
    def plant(session: Session) -> None:
        sound = session._run
        session._run = lambda ids, at: sound(ids, at) * np.float32(1.5 if len(ids) == 33 else 1)  # type: ignore[method-assign]

    executed(bundle, "onnx", False, plant).save(tmp_path / "result.json")
    report = judge_result(bundle, [Result.load(tmp_path / "result.json")])
    assert {check.at for check in report.checks if check.what == "simulated → prefill, worst length"} == {"length 33"}
    assert not report.passed and {check.stage for check in report.checks if not check.passed} == {"engine"}


def test_a_long_prompt_at_once_is_looked_at(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest of at least so many tokens whose answer was simulated, beyond the lengths of the windows."""
    monkeypatch.setattr(asking, "DEEP", 113)

    def plant(session: Session) -> None:
        sound = session._run
        session._run = lambda ids, at: sound(ids, at) * np.float32(1.5 if len(ids) == 113 else 1)  # type: ignore[method-assign]

    report = judge_result(bundle, [executed(bundle, "onnx", False, plant)])
    (worst,) = (check for check in report.checks if check.what == "simulated → prefill, worst length")
    assert not worst.passed and worst.at == "length 113"
    assert (report.depth, report.context) == (128, 128)
    assert judge_result(bundle, [executed(bundle, "onnx", True, plant)]).passed  # a quick run stays short


def test_what_cannot_be_judged_is_refused(bundle: Bundle, tiny_bundle: Any) -> None:
    result = executed(bundle, "onnx", True)
    for results, words in (
        ([], "of one target"),
        ([result, replace(result, target="gguf")], "of one target"),
        ([result, replace(result, threads=2, arithmetic="x")], "number of threads"),
        ([result, result], "too many"),
        ([replace(result, arithmetic="float8")], "a result is missing"),
        ([replace(result, target="abacus")], "does not hold that target"),
        ([replace(result, purpose="bench")], "none of parity"),
        ([replace(result, purpose="parity")], "of another plan"),
        ([replace(result, threads=3)], "of another plan"),
        ([replace(result, traits=replace(result.traits, chunk=9))], "of another plan"),
        ([replace(result, artifact="0" * 64)], "of another artifact"),
        ([replace(result, seen=result.seen[1:])], "does not answer its plan"),
        ([replace(result, cache=[cache[:, :1] for cache in result.cache])], "not of this model's shape"),
    ):
        with pytest.raises(InputError, match=words):
            judge_result(bundle, results)
    with pytest.raises(InputError, match="of another artifact"):
        judge_result(open_bundle(tiny_bundle("llama", "int4")), [result])


def test_what_a_result_says_of_its_machine_is_made_printable(bundle: Bundle) -> None:
    result = executed(bundle, "onnx", True)
    result.system, result.nonfinite = "a\x1b[31m machine", ["mul\n\x07"]
    report = judge_result(bundle, [result])
    assert report.host == "a [31m machine" and report.nonfinite == ["mul  "] and not report.passed


@pytest.mark.parametrize(
    "change",
    [
        lambda seen: {"lse": seen.lse - 100},  # every divergence would be 0
        lambda seen: {"lse": seen.lse - 0.1},
        lambda seen: {"lse": np.full_like(seen.lse, -np.inf)},
        lambda seen: {"peak": np.full_like(seen.peak, np.nan)},
        lambda seen: {"lse": np.full_like(seen.lse, -1e308)},
        lambda seen: {"lse": seen.peak + np.log(300) + 0.01},
        lambda seen: {"at": np.full_like(seen.at, 3e38)},
        lambda seen: {"peak": np.full_like(seen.peak, 1e30)},
        lambda seen: {"peak": seen.peak - np.float32(0.5)},
        lambda seen: {"best": (seen.best + 1) % 300},
    ],
)
def test_a_sketch_that_no_logits_have_is_refused(bundle: Bundle, change: Callable[[Seen], dict[str, Any]]) -> None:
    result = executed(bundle, "onnx", True)
    with pytest.raises(InputError, match="which no logits give"):
        judge_result(bundle, [replace(result, seen=[replace(seen, **change(seen)) for seen in result.seen])])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails_and_is_null_in_json(bundle: Bundle, value: float) -> None:
    result = executed(bundle, "onnx", True)
    seen = [
        replace(
            one, lse=np.full_like(one.lse, np.nan), peak=np.full_like(one.peak, value), at=np.full_like(one.at, value)
        )
        for one in result.seen
    ]
    cache = [np.full_like(state, value) if i else state for i, state in enumerate(result.cache)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = judge_result(bundle, [replace(result, seen=seen, cache=cache)])
    assert not report.passed and "the drift begins at layer 0's output matrix" in report.found
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["drift"][1]["difference"] is None


def test_times_that_no_clock_gives_are_refused(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="no clock gives"):
        replace(executed(bundle, "onnx", True), seconds=-1.0)
