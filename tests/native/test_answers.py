"""smolship-run, the runner without Python, against Python's executor: the same plans, the same answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolship.export.targets.executorch.light import ScalarType
from smolship.export.targets.executorch.program import Program
from smolship.runtime import open_bundle
from smolship.runtime.asking import ask
from smolship.runtime.bench import bench
from smolship.runtime.bundle import Bundle
from smolship.runtime.case import case_of
from smolship.runtime.child import Listener
from smolship.runtime.errors import InputError
from smolship.runtime.execute import in_child
from smolship.runtime.generate import Sampling, generate
from smolship.runtime.parity import judge_result
from smolship.runtime.plan import Answer, Call, Text
from smolship.runtime.result import Result
from tests.native.common import IDS, TEXT, WANTED, plan_of, run

pytestmark = pytest.mark.real


@pytest.fixture(params=[("llama", "int8"), ("smollm3", "int4")], ids="-".join)
def bundle(request: pytest.FixtureRequest, tiny_bundle: Any) -> Bundle:
    return open_bundle(tiny_bundle(*request.param))


@pytest.mark.parametrize("quick", [True, False])
def test_parity_is_answered_and_judged(program: Path, bundle: Bundle, quick: bool) -> None:
    case, folder = case_of(bundle, "executorch"), bundle.path / "executorch"
    head = case.plan("", 1, quick)
    traits = in_child(head, folder, [str(program)]).traits
    assert traits == in_child(head, folder).traits
    plan = ask(case.probes, head, traits).plan
    ours, theirs = in_child(plan, folder, [str(program)]), in_child(plan, folder)
    assert ours.artifact == theirs.artifact == case.artifact and ours.waiting == theirs.waiting
    report = judge_result(bundle, [ours])
    assert report.passed and report.drift, [check.what for check in report.checks if not check.passed]
    prompts = 0
    for call, a, b in zip(plan.calls, ours.seen, theirs.seen, strict=True):
        if call.rewind == 0 and call.look == "last" and call.stop > 1:  # all of it inside XNNPACK's library
            prompts += 1
            assert a.peak.tobytes() == b.peak.tobytes() and a.at.tobytes() == b.at.tobytes() and a.best == b.best
            np.testing.assert_allclose(a.lse, b.lse, rtol=0, atol=1e-13)
    assert prompts > 5


def test_floats_differ_by_rounding_alone(program: Path, tiny: Any, tmp_path: Path) -> None:
    """Without int8 activations one token attends to float32's last bits as ExecuTorch's own kernel does."""
    from smolship.export import export

    out = tmp_path / "floats"
    export(tiny("llama"), out, to=("executorch",), quant="none", context=128, probe_tokens=256)
    plan = plan_of(Call("a", 0, 0, 20, rewind=0), Call("b", 0, 20, 60, "all", exact=True), layers=2)
    ours, theirs = in_child(plan, out / "executorch", [str(program)]), in_child(plan, out / "executorch")
    for a, b in zip(ours.seen, theirs.seen, strict=True):
        np.testing.assert_array_equal(a.best, b.best)
        for name in ("peak", "at", "lse"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=2e-5)
    for x, y in zip(ours.cache, theirs.cache, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5)


def test_digests_caches_and_presets_are_pythons(program: Path, artifact: Path) -> None:
    random_ = np.random.default_rng(6)
    blocks = tuple(
        (random_.standard_normal((2, 7, 2, 32)) * 10.0 ** random_.integers(-9, 5)).astype(np.float32) for _ in range(2)
    )
    calls = (
        Call("a", 0, 0, 9, rewind=0, exact=True),
        Call("b", 0, 9, 12, "none"),
        Call("c", 0, 3, 9, rewind=3, exact=True),
        Call("d", 0, 0, 30, preset=40, exact=True),
    )
    plan = plan_of(*calls, layers=2, cache=blocks)
    ours, theirs = in_child(plan, artifact, [str(program)]), in_child(plan, artifact)
    assert [seen.digests for seen in ours.seen] == [seen.digests for seen in theirs.seen]
    assert len(ours.seen[0].digests) == 1 and not ours.seen[1].digests
    for a, b in zip(ours.cache, theirs.cache, strict=True):
        assert a.shape == (2, 70, 2, 32) and a.tobytes() == b.tobytes()


def test_greedy_calls_follow_their_own_tokens(program: Path, artifact: Path) -> None:
    plan = plan_of(Call("a", 0, 0, 9, rewind=0), Call("b", 0, 9, 15, "all", greedy=True))
    seen = in_child(plan, artifact, [str(program)]).seen
    fed = replace(
        TEXT,
        ids=np.concatenate([IDS[:9], seen[0].best, seen[1].best[:-1]]).astype(np.int32),
        at=TEXT.at[:15],
        wanted=WANTED[:15],
    )
    again = in_child(
        replace(plan_of(Call("a", 0, 0, 9, rewind=0), Call("b", 0, 9, 15, "all")), texts=(fed,)),
        artifact,
        [str(program)],
    )
    np.testing.assert_array_equal(again.seen[1].best, seen[1].best)
    assert again.seen[1].at.tobytes() == seen[1].at.tobytes()


@pytest.mark.parametrize(("tokens", "stops"), [(12, False), (12, True), (500, False)], ids=["tokens", "stop", "full"])
def test_a_greedy_answer_is_the_sessions(program: Path, bundle: Bundle, tokens: int, stops: bool) -> None:
    """Each token is told as it is chosen; the same ids, and the same reason for the end."""

    class Heard(Listener):
        def __init__(self) -> None:
            self.ids: list[int] = []

        def tokens(self, ids: Any) -> None:
            self.ids += ids

    folder, info = bundle.path / "executorch", bundle.entry("executorch").info
    with bundle.session("executorch", 1) as session:
        here = generate(session, IDS[:9].tolist(), tokens)
        list(here)
        if stops:
            session.rewind(0)
            here = generate(session, IDS[:9].tolist(), tokens, [here.ids[5]])
            list(here)
    stop_ids = np.array([here.stop_id] if stops else [], np.int32)
    plan = replace(
        plan_of(),
        purpose="generate",
        info=info,
        texts=(Text.plain(IDS[:9]),),
        answer=Answer(tokens, stop_ids, Sampling(top_k=3, seed=1 << 80)),
    )
    there = in_child(plan, folder, [str(program)], progress=(heard := Heard())).generated
    assert there and there.ids == here.ids == heard.ids
    assert (there.end, there.stop_id, len(there.times)) == (here.end, here.stop_id, len(here.times))
    assert here.end == ("stop" if stops else "context" if tokens > 100 else "max_tokens")


def test_what_is_no_number(program: Path, tmp_path: Path) -> None:
    """Digests take any NaN for any other, and -0 for 0; a greedy choice finds a NaN first."""
    logits = np.random.default_rng(7).standard_normal(40).astype(np.float32)
    logits[[3, 8, 9, 30]] = -0.0, np.inf, -np.inf, np.nan
    logits[31:33] = np.array([0xFFC00001, 0x7F800001], np.uint32).view(np.float32)
    for values in (logits, np.nan_to_num(logits), np.full(40, -np.inf, np.float32), np.zeros(40, np.float32)):
        made = Program()
        made.input((1, 4), ScalarType.LONG, dynamic=True), made.input((1,), ScalarType.LONG, dynamic=False)
        made.tensor((1,))  # an arena has something in it
        constant = made.floats(values[None, None]).tensor
        assert constant is not None
        made.outputs = [constant]
        made.write(
            tmp_path / "model.pte", {"get_vocab_size": [40], "get_max_context_len": [64], "get_max_seq_len": [4]}
        )
        text = replace(TEXT, ids=IDS % 40, wanted=WANTED % 40)
        plan = replace(plan_of(Call("a", 0, 0, 9, "all", exact=True)), texts=(text,))
        ours, theirs = in_child(plan, tmp_path, [str(program)]).seen[0], in_child(plan, tmp_path).seen[0]
        assert ours.digests == theirs.digests and ours.at.tobytes() == theirs.at.tobytes()
        np.testing.assert_array_equal(ours.best, theirs.best)
        np.testing.assert_array_equal(ours.peak, theirs.peak)
        np.testing.assert_allclose(ours.lse, theirs.lse, rtol=1e-15)


def test_a_bench(program: Path, bundle: Bundle, loads_once: None) -> None:
    entry = bundle.entry("executorch")
    report = bench("executorch", bundle.path / entry.folder, entry.info, threads=2, repeats=2, command=[str(program)])
    assert report.memory.anonymous_bytes and report.memory.peak_bytes and report.cpu and report.import_ms.median < 1000
    assert report.inter_token_p50_ms > 0 and set(report.decode_tokens_per_s) == {32, 64}


def test_a_result_of_another_plan_is_no_answer(program: Path, artifact: Path, tmp_path: Path) -> None:
    plan = plan_of(Call("a", 0, 0, 9, rewind=0))
    assert run(program, plan, artifact, tmp_path)[0] == 0
    result = Result.load(tmp_path / "result.json")
    result.answers(plan)
    with pytest.raises(InputError, match="of another plan"):
        result.answers(replace(plan, threads=2))
