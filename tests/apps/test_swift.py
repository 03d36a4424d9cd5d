"""SmolshipCore, the iOS app's core, is built and tested with the real Swift compiler, and Python judges its results."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolship.runtime.files import parse_json
from smolship.runtime.plan import Plan
from smolship.runtime.records import read_record, to_json
from smolship.runtime.result import Result

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors" / "apps"
CASES = json.loads((VECTORS / "plan.json").read_text())
EXECUTED = {i: case for i, case in enumerate(CASES) if "result" in case}
MINUTES = 15  # the first time, the compiler's root is made


@pytest.fixture(scope="module")
def checked() -> tuple[str, Path]:
    """What `ios_demo/check` printed, and the folder of the results that it wrote."""
    results = ROOT / "build" / "swift-results"
    shutil.rmtree(results, ignore_errors=True)
    command = [ROOT / "ios_demo" / "check", results]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60 * MINUTES)
    assert done.returncode == 0, f"ios_demo/check failed:\n{done.stdout[-6000:]}"
    return done.stdout, results


def test_the_core_passes_its_tests(checked: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    said, _ = checked
    ran = [int(count) for count in re.findall(r"Executed (\d+) tests?, with 0 failures", said)]
    assert max(ran, default=0) >= 80, said[-3000:]
    counts = re.findall(r"^templates: .*$", said, re.MULTILINE)
    assert counts, "the tests of the templates did not print their counts"
    with capsys.disabled():
        print("", f"Swift: {max(ran)} tests", *counts, sep="\n")


@pytest.mark.parametrize("i", EXECUTED, ids=[case["name"] for case in EXECUTED.values()])
def test_a_result_answers_its_plan(i: int, checked: tuple[str, Path]) -> None:
    """As the host reads results from devices, and equal to what Python's own executor gives for the toy engine."""
    plan = read_record(Plan, parse_json(CASES[i]["plan"], "plan", "plan.json"), "plan")
    result = Result.load(checked[1] / f"{i}.json")
    result.answers(plan)
    found, wanted = json.loads(to_json(result)), CASES[i]["result"]
    for key, value in wanted.items():
        assert same(found[key], value), f"{key}: {found[key]}, Python has {value}"
    assert (result.loads is not None) == plan.loads
    assert result.memory is not None and result.seconds >= 0


def same(found: Any, wanted: Any) -> bool:
    """Equal; log-sum-exps, the only float64 arrays, within 1e-9."""
    if isinstance(wanted, dict) and "base64" in wanted:
        a, b = array(found), array(wanted)
        near = 1e-9 if b.dtype == np.float64 else 0
        return a.dtype == b.dtype and a.shape == b.shape and np.allclose(a, b, rtol=0, atol=near, equal_nan=True)
    if isinstance(wanted, dict):
        return set(found) == set(wanted) and all(same(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == wanted)


def array(raw: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(raw["base64"]), raw["dtype"]).reshape(raw["shape"])
