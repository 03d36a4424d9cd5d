"""Plans that a person carries to the iOS app, and the results back: here by a thread in place of both."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime.bench import measured
from smolship.runtime.errors import InputError
from smolship.runtime.execute import execute, nothing
from smolship.runtime.memory import Memory
from smolship.runtime.plan import Plan
from smolship.runtime.records import read_file
from smolship.runtime.result import Loads
from tests.apps.test_ios_project import script
from tests.runtime.fakes import FakeSession

MEMORY = Memory(1000, 2000, 3000)
PLAN = Plan("load", "coreml", "coreml", {"file": "model.mlpackage"}, 1, loads=True)


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = script("by_hand")
    monkeypatch.setattr(found, "WAIT_S", 0.01)
    return found


@contextmanager
def phone(folder: Path) -> Iterator[list[str]]:
    """Executes each plan that comes into the folder on a fake session, as the app would; the plans' names."""
    done, seen = threading.Event(), []

    def run() -> None:
        while not done.wait(0.01):
            for path in sorted(folder.glob("*.json")):
                if path.name in seen or path.stem.endswith("-result"):
                    continue
                try:
                    plan = read_file(Plan, path, "plan")
                except InputError:
                    continue  # still being written
                seen.append(path.name)
                result = execute(plan, FakeSession(capacity=2048), "digest", before=MEMORY)
                result.loads = Loads(0.0, 20.0, 10.0, None) if plan.loads else None
                result.save(path.with_name(f"{path.stem}-result.json"))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def test_a_bench_is_four_plans(by_hand: Any, tmp_path: Path) -> None:
    artifact, folder = tmp_path / "coreml", tmp_path / "carried"
    (artifact / "model.mlpackage").mkdir(parents=True)
    (artifact / "model.mlpackage" / "weights").write_bytes(bytes(1000))
    folder.mkdir()
    with phone(folder) as seen:
        carried = by_hand.ByHand(artifact, folder)
        info = {"file": "model.mlpackage"}
        report = measured("coreml", artifact, info, threads=1, execute=carried, here=False, repeats=1).report
    assert seen == ["1-load.json", "2-load.json", "3-load.json", "4-bench.json"]
    assert (report.file_bytes, report.warm_load_ms.median, report.memory_before_load) == (1000, 10.0, MEMORY)
    assert all(speed.median > 0 for speed in report.decode_tokens_per_s.values())


def test_a_result_of_an_earlier_run_is_not_taken(by_hand: Any, tmp_path: Path) -> None:
    (tmp_path / "1-load-result.json").write_text("{}")
    with pytest.raises(InputError, match="earlier run"):
        by_hand.ByHand(tmp_path, tmp_path)(PLAN, nothing)


def test_a_result_of_another_plan_is_refused(by_hand: Any, tmp_path: Path) -> None:
    other = execute(Plan("load", "coreml", "coreml", {"file": "other"}, 1), FakeSession(), "digest")

    def answer() -> None:
        while not (tmp_path / "1-load.json").exists():
            time.sleep(0.01)
        other.save(tmp_path / "1-load-result.json")

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(InputError, match="another plan"):
        by_hand.ByHand(tmp_path, tmp_path)(PLAN, nothing)
    thread.join()


def test_the_command_says_how_it_is_used(
    by_hand: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["by_hand.py", "chat"])
    assert by_hand.main() == 2
    assert "by_hand.py parity BUNDLE FOLDER" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["by_hand.py", "bench", str(tmp_path / "none"), str(tmp_path)])
    assert by_hand.main() == 2
    assert "no such bundle" in capsys.readouterr().err
