"""Plans as files, and what executing one gives."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolship.runtime.artifact import artifact_digest, listed_digest
from smolship.runtime.child import Listener
from smolship.runtime.errors import InputError
from smolship.runtime.execute import execute, in_child
from smolship.runtime.files import sha256
from smolship.runtime.generate import Generated, Sampling, generate
from smolship.runtime.plan import Answer, Call, Plan, Text, Timing
from smolship.runtime.probes import log_sum_exp
from smolship.runtime.process import environment, python
from smolship.runtime.records import read_file, read_record, to_json
from smolship.runtime.result import Result
from smolship.runtime.timing import phases
from tests.runtime.fakes import FakeSession

IDS = np.random.default_rng(4).integers(0, 300, 40).astype(np.int32)
WANTED = np.random.default_rng(5).integers(0, 300, (40, 6)).astype(np.int32)
TEXT = Text(IDS, np.arange(40, dtype=np.int32), WANTED)
SPARSE = Text(IDS, np.array([5, 6, 30], np.int32), WANTED[:3])
CALLS = (
    Call("a", 0, 0, 7, rewind=0),
    Call("b", 0, 7, 12, "all", exact=True),
    Call("c", 0, 12, 20, "none"),
    Call("d", 0, 3, 9, "all", rewind=3),
    Call("e", 1, 9, 31),
    Call("f", 0, 31, 36, "all", greedy=True),
)
PLAN = Plan("parity", "fake", "onnx", {"file": "m", "context": 64}, 2, texts=(TEXT, SPARSE), calls=CALLS)


def round_trip(plan: Plan) -> Plan:
    return read_record(Plan, json.loads(to_json(plan)), "the plan")


def test_a_plan_is_the_same_after_a_file(tmp_path: Path) -> None:
    timing = Timing((1, 5), (3,), 4, 2)
    for plan in (PLAN, replace(PLAN, timing=timing, layers=3, loads=True), replace(PLAN, texts=(), calls=())):
        (tmp_path / "plan.json").write_bytes(to_json(plan))
        again = read_file(Plan, tmp_path / "plan.json", "the plan")
        assert to_json(again) == to_json(plan) and again.digest == plan.digest
        assert again.digest == hashlib.sha256((tmp_path / "plan.json").read_bytes()).hexdigest()
    assert json.loads(to_json(PLAN))["texts"][0]["ids"] == IDS.tolist(), "token ids are read by people too"


def test_calls_are_answered_as_the_session_would() -> None:
    seen = execute(round_trip(PLAN), FakeSession(capacity=64), "").seen
    session = FakeSession(capacity=64)
    wanted = [session.forward(IDS[:7]), session.forward(IDS[7:12], "all"), None]
    session.forward(IDS[12:20])
    session.rewind(3)
    wanted += [session.forward(IDS[3:9], "all"), session.forward(IDS[9:31])]
    rows = [wanted[-1]]
    for _ in range(5):
        rows.append(session.forward([int(rows[-1].argmax())]))
    wanted.append(np.concatenate(rows[1:]))
    asked = [WANTED[6:7], WANTED[7:12], None, WANTED[3:9], WANTED[2:3], WANTED[31:36]]
    for found, logits, ids in zip(seen, wanted, asked, strict=True):
        if logits is None:
            assert len(found.lse) == len(found.best) == len(found.at) == 0
            continue
        np.testing.assert_array_equal(found.lse, log_sum_exp(logits))
        np.testing.assert_array_equal(found.best, logits.argmax(1))
        np.testing.assert_array_equal(found.peak, logits.max(1))
        np.testing.assert_array_equal(found.at, np.take_along_axis(logits, ids, axis=1))
    assert [len(found.digests) for found in seen] == [0, 5, 0, 0, 0, 0]
    assert len(set(seen[1].digests)) == 5


def test_a_result_is_the_same_after_a_file(tmp_path: Path) -> None:
    class Broken(FakeSession):
        @property
        def nonfinite(self) -> list[str]:
            return ["layers.3.down"]

        def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
            logits = super()._run(ids, position)
            if len(ids) == 7:  # the first call
                logits[[7, 9, 11]] = np.nan, np.inf, -0.0
            return logits

        def cache(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
            return np.full((4, 2, 8), layer, np.float32), np.zeros((4, 2, 8), np.float32)

    plan = replace(PLAN, layers=3, timing=Timing((1, 5), (3,), 4, 2))
    result = execute(plan, Broken(capacity=64, chunk=16), "digest")
    result.answers(plan)
    result.save(tmp_path / "result.json")
    again = Result.load(tmp_path / "result.json")
    again.answers(round_trip(plan))
    assert to_json(again) == to_json(result) and [p.name for p in tmp_path.iterdir()] == ["result.json"]
    assert np.isnan(again.seen[0].lse[0])
    for a, b in zip(again.seen, result.seen, strict=True):
        assert a.at.tobytes() == b.at.tobytes() and a.lse.tobytes() == b.lse.tobytes()
    assert again.traits == result.traits and again.traits.chunk == 16
    assert again.nonfinite == ["layers.3.down"] and again.cache[2][0, 0, 0, 0] == 2
    assert again.times == result.times and again.times and set(again.times.ttft_ms) == {1, 5}
    assert again.memory is None, "this process does more than the plan"
    assert again.versions["python"] and again.versions["numpy"] == np.__version__


def change(raw: Any, path: list[Any], value: Any) -> Any:
    *way, last = path
    inner = raw
    for key in way:
        inner = inner[key]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    return raw


MORE = {"warmups": 0, "sustained": 0}
BAD_PLANS = [
    (["schema"], 2, "another version"),
    (["purpose"], "mischief", "one of parity"),
    (["threads"], 0, "0 threads"),
    (["threads"], True, "type int"),
    (["threads"], 1 << 20, "threads"),
    (["info"], [], "type dict"),
    (["calls"], KeyError, "calls cannot be used"),
    (["more"], 1, "unknown keys"),
    (["calls", 0, "text"], 2, "call 0"),
    (["calls", 0, "text"], -1, "call 0"),
    (["calls", 1, "start"], 12, "call 1"),
    (["calls", 1, "start"], -1, "call 1"),
    (["calls", 1, "stop"], 41, "call 1"),
    (["calls", 0, "rewind"], -2, "call 0"),
    (["calls", 0, "look"], "some", "one of none, last, all"),
    (["calls", 5, "look"], "last", "call 5"),
    (["calls", 0, "greedy"], True, "call 0"),
    (["layers"], -1, "layers"),
    (["texts", 0, "ids", 3], -5, "negative"),
    (["texts", 0, "ids", 3], 1 << 40, "int32"),
    (["texts", 0, "ids", 3], 1.0, "whole number"),
    (["texts", 0, "ids"], [], "no tokens"),
    (["texts", 1, "at"], [6, 5, 30], "not in order"),
    (["texts", 1, "at"], [5, 6, 40], "positions that it has not"),
    (["texts", 1, "at"], [5, 6], "positions that it has not"),
    (["texts", 0, "wanted", "shape"], [40, 7], "int32 in 2"),
    (["texts", 0, "wanted", "shape"], [-1, 6], "int32 in 2"),
    (["texts", 0, "wanted", "dtype"], "object", "int32 in 2"),
    (["texts", 0, "wanted", "base64"], "!", "int32 in 2"),
    (["texts", 0, "wanted", "more"], 1, "int32 in 2"),
    (["timing"], {"prompts": [41], "depths": [1], "tokens": 1, "repeats": 1} | MORE, "its timing"),
    (["timing"], {"prompts": [4], "depths": [], "tokens": 1, "repeats": 1} | MORE, "its timing"),
    (["timing"], {"prompts": [4], "depths": [0], "tokens": 1, "repeats": 1} | MORE, "its timing"),
    (["timing"], {"prompts": [4], "depths": [1], "tokens": 1, "repeats": 1 << 40} | MORE, "its timing"),
    (["timing"], {"prompts": [4], "depths": [1], "tokens": 1, "repeats": 1} | MORE | {"warmups": -1}, "its timing"),
    (
        ["timing"],
        {"prompts": [4], "depths": [1], "tokens": 1, "repeats": 1} | MORE | {"sustained": 1 << 40},
        "its timing",
    ),
]


@pytest.mark.parametrize(("path", "value", "words"), BAD_PLANS)
def test_a_plan_that_is_none_is_refused(path: list[Any], value: Any, words: str) -> None:
    raw = change(json.loads(to_json(PLAN)), path, value)
    with pytest.raises(InputError, match=f"(?s){words}"):
        read_record(Plan, raw, "the plan")


def test_what_json_has_no_word_for_is_in_no_plan() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    for info in ({"x": float("nan")}, {"x": deep}, {"x": {1}}):
        with pytest.raises(InputError, match="cannot be put into a plan"):
            replace(PLAN, info=info)


def test_tokens_that_the_model_has_not() -> None:
    for text in (replace(TEXT, ids=IDS + 300), replace(TEXT, wanted=WANTED + 300)):
        with pytest.raises(InputError, match="the plan has tokens that the model has not"):
            execute(replace(PLAN, texts=(text, SPARSE)), FakeSession(capacity=64), "")


BAD_RESULTS = [
    (["plan"], "0" * 64, "of another plan"),
    (["schema"], 9, "another version"),
    (["traits", "vocab"], 0, "traits that no session has"),
    (["traits", "vocab"], 100, "answer to call"),
    (["traits", "chunk"], -4, "traits that no session has"),
    (["seen", 0], KeyError, "5 answers to 6 calls"),
    (["seen", 0, "best"], [], "answer to call 0"),
    (["seen", 0, "best"], [300], "answer to call 0"),
    (["seen", 0, "best"], [-1], "answer to call 0"),
    (["seen", 1, "digests"], [], "answer to call 1"),
    (["cache"], [{"dtype": "float32", "shape": [2, 1, 1, 1], "base64": "AAAAAAAAAAA="}], "1 of 0 layers"),
    (["loads"], {"import_ms": 1, "cold_ms": 1, "warm_ms": 1, "dropped": None}, "the times"),
    (["times"], {"ttft_ms": {}, "gaps_ms": {}, "warmups_ms": [], "sustained": []}, "the times"),
    (["times"], {"ttft_ms": {"x": [1.0]}, "gaps_ms": {}}, "a number as key"),
    (["seconds"], float("inf"), "finite number"),
    (["waiting"], "forever", "one of briefly"),
    (["nonfinite"], "layers.3", "type list"),
]


@pytest.mark.parametrize(("path", "value", "words"), BAD_RESULTS)
def test_a_result_that_does_not_answer_is_refused(path: list[Any], value: Any, words: str) -> None:
    raw = json.loads(to_json(execute(PLAN, FakeSession(capacity=64), "")))
    read_record(Result, raw, "the result").answers(PLAN)
    with pytest.raises(InputError, match=f"(?s){words}"):
        read_record(Result, change(raw, path, value), "the result").answers(PLAN)


def test_times_that_are_not_those_asked_for_are_refused() -> None:
    ids, timing = phases(FakeSession(capacity=64).traits, 2)
    plan = replace(PLAN, purpose="bench", texts=(Text.plain(ids),), calls=(), timing=timing)
    raw = to_json(execute(plan, FakeSession(capacity=64), ""))
    read_record(Result, json.loads(raw), "the result").answers(plan)
    depth = str(timing.depths[0])
    for path, value in (
        (["times"], None),
        (["times", "ttft_ms"], {}),
        (["times", "warmups_ms"], [1.0]),
        (["times", "sustained"], [[1.0, 30.0]]),
        (["times", "gaps_ms", depth], [[1.0]]),
        (["times", "gaps_ms", depth], [[1.0], []]),
    ):
        with pytest.raises(InputError, match="does not answer its plan"):
            read_record(Result, change(json.loads(raw), path, value), "the result").answers(plan)


SAMPLING = Sampling(temperature=0.9, top_p=0.8, top_k=40, repetition_penalty=1.1, seed=1 << 70)
ANSWER = Answer(8, np.array([2, 7], np.int32), SAMPLING)
ASKS = replace(PLAN, purpose="generate", texts=(Text.plain(IDS[:9]),), calls=(), answer=ANSWER)


class Heard(Listener):
    def __init__(self) -> None:
        self.ids: list[int] = []

    def tokens(self, ids: Any) -> None:
        self.ids += ids


def test_an_answer_is_what_the_session_generates() -> None:
    """With the same random numbers; each token is told, and none of a plan without an answer."""
    assert "answer" not in json.loads(to_json(PLAN)), "the file of a plan of old"
    wanted = generate(FakeSession(capacity=64), IDS[:9].tolist(), 8, [2, 7], SAMPLING)
    ids = list(wanted)
    heard = Heard()
    result = execute(round_trip(ASKS), FakeSession(capacity=64), "", heard)
    assert "generated" not in json.loads(to_json(execute(PLAN, FakeSession(capacity=64), "")))
    again = read_record(Result, json.loads(to_json(result)), "the result")
    again.answers(ASKS)
    assert isinstance(again.generated, Generated) and again.generated.times == result.generated.times  # type: ignore[union-attr]
    assert heard.ids == again.generated.ids == ids and (again.generated.end, again.generated.stop_id) == (
        wanted.end,
        wanted.stop_id,
    )


TIMED = {"prompts": [4], "depths": [1], "tokens": 1, "repeats": 1, "warmups": 0, "sustained": 0}
BAD_ANSWERS = [
    (["answer"], {}, "max_tokens cannot be used"),
    (["answer", "max_tokens"], 0, "its answer"),
    (["answer", "max_tokens"], 1 << 40, "its answer"),
    (["answer", "stop_ids"], [-1], "its answer"),
    (["answer", "stop_ids"], [1.5], "whole number"),
    (["answer", "sampling"], None, "sampling cannot be used"),
    (["answer", "sampling", "temperature"], -1, "temperature is out of range"),
    (["answer", "sampling", "temperature"], "hot", "a finite number"),
    (["answer", "sampling", "more"], 1, "unknown keys"),
    (["answer", "more"], 1, "unknown keys"),
    (["texts"], [], "its answer"),
    (["layers"], 1, "its answer"),
    (["timing"], TIMED, "its answer"),
]


@pytest.mark.parametrize(("path", "value", "words"), BAD_ANSWERS)
def test_a_question_that_is_none_is_refused(path: list[Any], value: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"(?s){words}"):
        read_record(Plan, change(json.loads(to_json(ASKS)), path, value), "the plan")


@pytest.mark.parametrize(
    "said",
    [
        None,
        {"prompt_tokens": 8},
        {"end": "interrupted"},
        {"end": "context"},
        {"end": "stop", "stop_id": 2},
        {"stop_id": 2},
        {"ids": [1] * 7},
        {"ids": [300] * 8},
        {"ids": [-1] * 8},
        {"times": [1.0] * 7},
        {"times": [2.0, *[1.0] * 7]},
        {"times": [-1.0, *[1.0] * 7]},
    ],
    ids=str,
)
def test_an_answer_that_is_none_is_refused(said: Any) -> None:
    good = {"prompt_tokens": 9, "ids": [1] * 8, "end": "max_tokens", "stop_id": None, "times": [1.0] * 8}
    raw = json.loads(to_json(execute(ASKS, FakeSession(capacity=64), "")))
    read_record(Result, raw | {"generated": good}, "the result").answers(ASKS)
    with pytest.raises(InputError, match="what was generated"):
        read_record(Result, raw | {"generated": said and good | said}, "the result").answers(ASKS)


def test_a_process_of_its_own(tiny_bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answers as a session here; its memory is its own."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # so that threads wait alike
    from smolship.runtime import open_bundle

    bundle = open_bundle(tiny_bundle("llama", "int8"))
    entry = bundle.entry("onnx")
    folder = bundle.path / entry.folder
    plan = replace(PLAN, target="onnx", info=entry.info, threads=1)
    seen: list[Any] = []
    apart = in_child(plan, folder, progress=lambda *step: seen.append(step))
    with bundle.session("onnx", 1) as session:
        here = execute(plan, session, artifact_digest(folder, entry.info))
    assert to_json(replace(apart, seconds=0.0, memory=None, memory_before_load=None)) == to_json(
        replace(here, seconds=0.0)
    )
    assert apart.memory and apart.memory_before_load and seen[0] == ("a", 0, 6)
    listed = {path.name: sha256(path) for path in folder.iterdir() if path.is_file()}
    assert apart.artifact == listed_digest(listed, entry.info["file"])


def test_the_command_line(tmp_path: Path) -> None:
    def command(*arguments: object) -> tuple[int, str, str]:
        line = python("smolship.runtime.execute", *map(str, arguments))
        done = subprocess.run(line, capture_output=True, text=True, env=environment(), cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    code, _, said = command("plan.json")
    assert code == 2 and said.startswith("usage: ")
    code, said, _ = command("plan.json", "result.json", ".")
    assert code == 2 and json.loads(said)["error"][0] == "InputError" and "no plan" in said
    (tmp_path / "plan.json").write_bytes(to_json(replace(PLAN, engine="abacus")))
    code, said, _ = command("plan.json", "result.json", ".")
    assert code == 2 and "unknown engine" in said and not (tmp_path / "result.json").exists()
