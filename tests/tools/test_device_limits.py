"""--limit: which times it takes, and that they reach what runs on a device."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from smolship.runtime.bundle import open_bundle
from smolship.tools.cli import run
from smolship.tools.commands.options import limit_of
from smolship.tools.devices import opening
from smolship.tools.devices.job import Job
from tests.tools.local_link import LocalLink


@pytest.mark.parametrize("time", ["", "0", "-5", "1d", "1.5m", "0m", "ten", "100000"])
@pytest.mark.parametrize("command", ["parity", "bench", "generate"])
def test_no_time(command: str, time: str, tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(opening, "link_to", None)
    line = [command, str(tmp_path), *(["hi"] if command == "generate" else []), "--device", "ssh://pi", "--limit", time]
    assert run(line) == 2
    said = capsys.readouterr().err
    assert "--limit cannot be used" in said and "600, 90s, 10m or 1h" in said


@pytest.mark.parametrize("time", ["", "0s", "600", "300h", "1e3s", "inf"])
@pytest.mark.parametrize("option", ["--cool", "--sustained"])
def test_no_time_of_a_bench(option: str, time: str, tmp_path: Any, capsys: Any) -> None:
    assert run(["bench", str(tmp_path), option, time]) == 2
    said = capsys.readouterr().err
    assert f"{option} cannot be used" in said and "90s, 10m or 1h, of 291h at most" in said


def test_times() -> None:
    found = [limit_of("ssh://pi", time, False) for time in ("600", "90s", "10m", "1h", " 2M ")]
    assert found == [600, 90, 600, 3600, 120] and limit_of("local", None, False) is None


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("onnxruntime 1.20.1", True),
        ("onnxruntime 1.32.0", False),
        ("onnxruntime 2.0", False),
        ("numpy 1.0", False),
        ("onnxruntime nonsense", False),
        ("onnxruntime", False),
    ],
)
def test_an_engine_that_is_older_than_the_artifact_s_is_said(there: str, said: bool) -> None:
    found = opening.older("ssh://pi", [there], {"onnxruntime": "1.32.0", "smolship": "0.1.0"})
    assert bool(found) == said and all("smolship devices setup ssh://pi" in one for one in found)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("limit", [None, 77])
def test_it_reaches_the_run(limit: int | None, tiny_bundle: Any, tmp_path: Any, monkeypatch: Any) -> None:
    link = LocalLink()
    monkeypatch.setattr(opening, "link_to", lambda address: link)
    monkeypatch.setattr(opening, "folders", lambda facts, uri: [str(tmp_path / "device")])
    monkeypatch.setattr("smolship.tools.devices.store.mount_of", lambda path, mounts: None)
    monkeypatch.setattr(opening, "installed", lambda *a: (sys.executable, "/nowhere"))
    told: list[tuple[str, str]] = []
    bundle = open_bundle(tiny_bundle("llama", "int4"))

    def update(step: str, what: str, done: int, total: int) -> None:
        told.append((step, what))

    with opening.executing("ssh://test", bundle, ["onnx"], update, limit_s=limit, force=True) as place:
        job = place.sensed("onnx")
        assert isinstance(job, Job) and job.limit_s == limit
    assert link.pushed and told and {step for step, _ in told} == {"send onnx"}
