"""The bench: exact figures from a clock that the session moves, and a whole run over a fake engine in processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolship.runtime import execute
from smolship.runtime.artifact import artifact_files
from smolship.runtime.bench import BenchReport, Spread, bench
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.memory import Memory
from smolship.runtime.plan import Plan
from smolship.runtime.result import Loads, Result, Times
from smolship.runtime.timing import phases, timed
from tests.runtime.fakes import FakeSession


def timed_session(capacity: int) -> tuple[FakeSession, list[float]]:
    """A prompt takes 1 ms a token; a step 8 ms and 1/16 ms for each token in the cache, every first one 1 s more."""
    now, seen = [0.0], set()

    def run(tokens: int, position: int) -> None:
        now[0] += tokens / 1000 if tokens > 1 else (8 + position / 16) / 1000
        if tokens not in seen:
            now[0] += 1.0
            seen.add(tokens)

    return FakeSession(capacity=capacity, on_run=run), now


def measure(capacity: int, repeats: int) -> Times:
    session, now = timed_session(capacity)
    return timed(session, *phases(session.traits, repeats), clock=lambda: now[0])


def test_figures_are_those_of_the_clock() -> None:
    found = measure(2048, 3)
    assert set(found.ttft_ms) == {128, 512} and set(found.gaps_ms) == {128, 1024}
    assert np.allclose(found.ttft_ms[128], [128] * 3) and np.allclose(found.ttft_ms[512], [512] * 3)
    for depth in (128, 1024):
        steps = [8 + (depth + i) / 16 for i in range(32)]  # the cache holds `depth` tokens when the first step begins
        assert np.allclose(found.decode_tokens_per_s(depth), [1000 / np.mean(steps)] * 3)
        assert np.allclose(found.gaps_ms[depth], [steps] * 3)


@pytest.mark.parametrize("capacity", [2, 3, 16, 64, 100, 512])
def test_small_contexts_are_measured_as_far_as_they_go(capacity: int) -> None:
    found = measure(capacity, 1)
    assert max(found.ttft_ms) <= capacity and max(found.gaps_ms) < capacity
    assert all(speed > 0 for depth in found.gaps_ms for speed in found.decode_tokens_per_s(depth))


ENGINE = """
import sys, time
from tests.runtime.fakes import FakeSession
from smolship.runtime.errors import InputError

def open_session(folder, info, threads):
    print("an engine that talks")
    if info.get("broken"):
        raise InputError("broken on purpose", got=threads)
    if info.get("crash"):
        sys.exit("crashed on purpose")
    time.sleep(0.05)
    return FakeSession(capacity=300, on_run=lambda tokens, position: time.sleep(0.001))
"""
STARTER = """
import sys
sys.path[:0] = [{tests!r}, {here!r}]
from smolship.runtime import engines, execute
engines.ENGINES["fake"] = "fake_engine"
engines.PACKAGES["fake"] = ("fake_engine",)
execute.main()
"""


@pytest.fixture
def fake(tmp_path: Path) -> Any:
    """bench of an artifact that a fake engine opens, in processes of its own."""
    (tmp_path / "fake_engine.py").write_text(ENGINE)
    root = Path(__file__).parents[2]
    (tmp_path / "start.py").write_text(STARTER.format(tests=str(root), here=str(tmp_path)))
    folder = tmp_path / "fake"
    folder.mkdir()
    for name, size in (("model.bin", 10_000), ("model.bin.data", 50_000), ("tokenizer.json", 7)):
        (folder / name).write_bytes(bytes(size))
    command = (sys.executable, str(tmp_path / "start.py"))

    def run(**given: Any) -> BenchReport:
        info = {"file": "model.bin"} | given.pop("info", {})
        return bench("fake", folder, info, threads=2, repeats=2, command=command, **given)

    return run


def test_a_whole_run(fake: Any) -> None:
    seen = []
    report = fake(weight_bytes_per_token=1_000_000, progress=lambda *step: seen.append(step))
    assert report.file_bytes == 60_000 and report.threads == 2 and report.context_tokens == 300
    assert 50 <= report.warm_load_ms.low < 1000
    assert report.warm_load_ms.repeats == 3 and report.ttft_ms.repeats == 2
    assert report.ttft_ms.low >= 1 and report.ttft_prompt_tokens == 128
    assert set(report.prefill_tokens_per_s) == {128, 300} and set(report.decode_tokens_per_s) == {75, 150}
    assert 1 <= report.inter_token_p50_ms <= report.inter_token_p95_ms <= report.inter_token_p99_ms
    assert report.copy_gb_per_s.low > 0.1
    decode = report.decode_tokens_per_s[75]
    assert decode.low <= decode.median <= decode.high <= 1000
    assert report.weights_gb_per_s == pytest.approx(decode.median / 1000)
    if sys.platform == "linux":
        before, after = report.memory_before_load, report.memory
        assert after.anonymous_bytes and before.anonymous_bytes and after.file_backed_bytes and after.peak_bytes
        assert 1e6 < before.anonymous_bytes < after.peak_bytes < 1e9
    assert seen[0] == ("loading", 0, 5) and seen[-1] == ("done", 5, 5)
    assert BenchReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    assert all(label and value for label, value in report.rows())
    assert dict(report.rows())["artifact"] == "0.1 MB"


@pytest.mark.real
def test_what_is_not_to_be_had_says_so(fake: Any) -> None:
    report = fake()
    rows = dict(report.rows())
    assert rows["weights read per token"] == rows["weights read while decoding"] == "unavailable"
    raw = report.to_dict()
    assert raw["weights_gb_per_s"] is None
    raw |= {"cold_load_ms": None, "memory": dict.fromkeys(raw["memory"])}
    rows = dict(BenchReport.from_dict(raw).rows())
    assert {rows[label] for label in ("load, cold", "memory, anonymous", "memory, file-backed", "memory, peak")} == {
        "unavailable"
    }


@pytest.mark.parametrize(
    ("dropped", "says"),
    [(False, "unavailable, because the system kept"), (None, "is not known"), (True, "pages dropped from the system")],
)
def test_a_cold_load_needs_cold_pages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dropped: bool | None, says: str
) -> None:
    from smolship.runtime import bench as module

    def here(plan: Plan, *how: Any, **more: Any) -> Result:
        session, _ = timed_session(300)
        result = execute.execute(plan, session, "")
        result.loads = Loads(import_ms=1.0, cold_ms=9.0, warm_ms=3.0, dropped=dropped) if plan.loads else None
        result.memory = result.memory_before_load = Memory(1, None, None)
        return result

    (tmp_path / "m").write_bytes(b"x")
    monkeypatch.setattr(module, "in_child", here)
    monkeypatch.setattr(module, "copy_bandwidth", lambda threads: [10.0, 12.0])
    report = bench("fake", tmp_path, {"file": "m"}, threads=1, repeats=1)
    assert (report.cold_load_ms is None) == (dropped is False)
    assert any(says in condition for condition in report.conditions)


def test_errors_of_the_engine_arrive(fake: Any) -> None:
    with pytest.raises(InputError, match=r"broken on purpose\n  got:      2"):
        fake(info={"broken": True})
    with pytest.raises(SetupError, match=r"exit status 1\n(?s:.*)crashed on purpose"):
        fake(info={"crash": True})
    with pytest.raises(InputError, match="no artifact"):
        fake(info={"file": "nothing.bin"})
    with pytest.raises(InputError, match="leaves its folder"):
        fake(info={"file": "../start.py"})
    with pytest.raises(InputError, match="repeats"):
        bench("fake", Path(), {}, threads=1, repeats=0)


def test_an_unknown_engine_lists_the_known(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"x")
    with pytest.raises(InputError, match=r"unknown engine\n.*nothing\n.*one of coreml, executorch"):
        bench("nothing", tmp_path, {"file": "m"}, threads=1, repeats=1)


def test_every_engine_names_what_it_imports() -> None:
    from smolship.runtime.engines import ENGINES, PACKAGES

    assert set(PACKAGES) == set(ENGINES)
    assert execute.PACKAGES is PACKAGES


def test_a_report_that_is_none_is_refused() -> None:
    for raw in ({}, {"engine": 1}, {"ttft_ms": {"median": 1}}):
        with pytest.raises(InputError, match="not a bench report"):
            BenchReport.from_dict(raw)


def test_artifact_files_are_the_file_and_its_weights(tmp_path: Path) -> None:
    for name in ("model.onnx", "model.onnx.data", "config.json", "other.onnx"):
        (tmp_path / name).write_bytes(b"x")
    assert [f.name for f in artifact_files(tmp_path, {"file": "model.onnx"})] == ["model.onnx", "model.onnx.data"]


def test_spread() -> None:
    assert Spread.of([3, 1, 10]) == Spread(3.0, 1.0, 10.0, 3)
    assert Spread(1234.56, 1000, 2000.04, 3).text("ms") == "1,234.6 ms (1,000.0–2,000.0)"
