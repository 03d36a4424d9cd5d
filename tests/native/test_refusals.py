"""What smolship-run refuses, as Python's executor does: malformed plans, wrong artifacts."""

from __future__ import annotations

import json
import random
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolship.export.targets.executorch.program import Program
from smolship.runtime.generate import Sampling
from smolship.runtime.plan import Answer, Call
from smolship.runtime.records import to_json
from tests.native.common import IDS, TEXT, plan_of, run
from tests.runtime.test_execute import ASKS, BAD_ANSWERS, BAD_PLANS, PLAN, change

pytestmark = pytest.mark.real


def test_bad_plans_are_refused(program: Path, artifact: Path, tmp_path: Path) -> None:
    good = replace(PLAN, engine="executorch", info={"file": "model.pte"}, target="executorch")
    assert run(program, good, artifact, tmp_path)[0] == 0
    for path, value, _ in BAD_PLANS:
        code, said = run(program, to_json_of(change(json.loads(to_json(good)), path, value)), artifact, tmp_path)
        assert code == 2 and said["error"][0] == "InputError", (path, value, said)
        assert not (tmp_path / "result.json").exists()
    for raw in (b"", b"[]", b"{", b"nul", b"[" * 100_000, b'{"a": "\xff"}', b"\0" * 100, b"1" * 1000):
        code, said = run(program, raw, artifact, tmp_path)
        assert code == 2 and said["error"][0] == "InputError", (raw[:10], said)
    code, said = run(program, replace(good, engine="onnx"), artifact, tmp_path)
    assert code == 2 and "unknown engine" in said["error"][1]
    code, said = run(program, replace(good, texts=(replace(TEXT, ids=IDS + 300), TEXT)), artifact, tmp_path)
    assert code == 2 and "tokens that the model has not" in said["error"][1]
    code, said = run(program, plan_of(*(Call("a", 0, 0, 60) for _ in range(3))), artifact, tmp_path)
    assert code == 2 and "longer than the context" in said["error"][1]


def test_questions_that_it_cannot_answer(program: Path, artifact: Path, tmp_path: Path) -> None:
    asks = replace(ASKS, engine="executorch", info={"file": "model.pte"}, target="executorch")
    good = replace(asks, answer=Answer(8, np.array([2], np.int32), Sampling()))
    assert run(program, good, artifact, tmp_path)[0] == 0
    for path, value, _ in BAD_ANSWERS:
        code, said = run(program, to_json_of(change(json.loads(to_json(good)), path, value)), artifact, tmp_path)
        assert code == 2 and said["error"][0] == "InputError", (path, value, said)
    for sampling in (Sampling(temperature=0.1), Sampling(repetition_penalty=1.1)):
        plan = replace(good, answer=Answer(8, np.array([2], np.int32), sampling))
        code, said = run(program, plan, artifact, tmp_path)
        assert code == 2 and "this runner does not sample" in said["error"][1]
        assert not (tmp_path / "result.json").exists()


def to_json_of(raw: Any) -> bytes:
    return json.dumps(raw).encode()


def test_noise_in_a_plan_never_crashes_it(program: Path, artifact: Path, tmp_path: Path) -> None:
    raw, noise = (
        to_json(plan_of(Call("a", 0, 0, 9, rewind=0), Call("b", 0, 9, 12, "all", exact=True))),
        random.Random(3),
    )
    for _ in range(150):
        changed = bytearray(raw)
        for _ in range(noise.randint(1, 4)):
            at = noise.randrange(len(changed))
            kind = noise.randrange(4)
            if kind == 0:
                changed[at] = noise.randrange(256)
            elif kind == 1:
                changed[at] = noise.choice(b'0123456789-"{}[],:e.\\')
            elif kind == 2:
                del changed[at : at + noise.randint(1, 200)]
            else:
                changed[at:at] = changed[at : at + noise.randint(1, 200)]
        code, said = run(program, bytes(changed), artifact, tmp_path)
        assert code in (0, 2, 3), (code, said, changed)


def test_wrong_artifacts_are_refused(program: Path, artifact: Path, tmp_path: Path) -> None:
    sound = (artifact / "model.pte").read_bytes()
    folder = tmp_path / "folder"
    folder.mkdir()
    for content in (b"", b"ET", bytes(10_000), random.Random(1).randbytes(10_000), sound[:-1]):
        (folder / "model.pte").write_bytes(content)
        code, said = run(program, plan_of(), folder, tmp_path)
        assert code == 2 and "not a program that ExecuTorch can open" in said["error"][1]
    foreign = Program()
    constant = foreign.floats(np.ones(3)).tensor
    assert constant is not None
    foreign.outputs = [constant, foreign.tensor((1,))]
    foreign.write(folder / "model.pte", {"get_vocab_size": [7]})
    code, said = run(program, plan_of(), folder, tmp_path)
    assert code == 2 and "get_max_context_len" in said["error"][1]
    (tmp_path / "model.pte").write_bytes(sound)
    (folder / "model.pte").unlink()
    assert "no artifact" in run(program, plan_of(), folder, tmp_path)[1]["error"][1]
    for name in ("../model.pte", str(tmp_path / "model.pte"), "a/../../model.pte"):
        said = run(program, replace(plan_of(), info={"file": name}), folder, tmp_path)[1]
        assert "leaves its folder" in said["error"][1]
    (folder / "model.pte").symlink_to("../model.pte")
    assert "through a link" in run(program, plan_of(), folder, tmp_path)[1]["error"][1]


def test_a_result_that_cannot_be_written(program: Path, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(to_json(plan_of()))
    line = [program, tmp_path / "plan.json", tmp_path / "nowhere" / "result.json", artifact]
    done = subprocess.run(line, capture_output=True)
    assert done.returncode == 3 and json.loads(done.stdout)["error"][0] == "SetupError"
