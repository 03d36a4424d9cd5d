"""A bench's records, its gates, and the answer without which nothing is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import GateError
from smolship.runtime.plan import Plan
from smolship.runtime.result import Seen
from smolship.runtime.said import Expected
from smolship.runtime.sensors.tree import Tree
from smolship.tools import measure
from smolship.tools.cli import run
from smolship.tools.commands.bench import default_wait
from smolship.tools.devices import recording, watching
from smolship.tools.devices.opening import Place
from smolship.tools.devices.record import Record

pytestmark = pytest.mark.usefixtures("loads_once")


@pytest.fixture
def bundle(tiny_bundle: Any) -> Path:
    return Path(tiny_bundle("llama", "int4"))


@pytest.fixture(scope="module")
def made(tiny_bundle: Any) -> tuple[measure.Bench, Record]:
    """What one bench measured."""
    bundle = open_bundle(tiny_bundle("llama", "int4"))
    here = Place("local", lambda name: watching.Here(bundle.path / name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smolship.runtime.bench.LOADS", 1)
        return measure.recorded_of(bundle, "onnx", lambda *step: None, threads=1, repeats=1, there=here)


@pytest.fixture
def measured(made: tuple[measure.Bench, Record], monkeypatch: Any) -> Any:
    """Has the command show that, with other marks."""

    def show(*marks: str) -> None:
        shown = made[0], replace(made[1], marks=list(marks))
        monkeypatch.setattr(measure, "recorded_of", lambda *args, **options: shown)

    show()
    return show


def bench(bundle: Path, *more: str) -> int:
    return run(["bench", str(bundle), "-t", "onnx", "--repeats", "1", *more])


def test_a_record_of_each_target_and_a_page_of_them(bundle: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(watching, "EACH_S", 0.005)
    assert bench(bundle, "--record", str(tmp_path / "pi5")) == 0
    record = Record.load(tmp_path / "pi5" / "onnx.json")
    assert record.device.uri == "local" and record.device_offset.value == 0.0
    assert record.answer.check == "as planned" and len(record.answer.ids) > 1 and record.answer.prompt
    assert len(record.samples) > 2 and record.after.process.resident.number and not record.emulated
    page = tmp_path / "page.html"
    replace(record, date="2026-11-27T00:00:00Z").save(tmp_path / "again.json")
    assert run(["report", str(tmp_path / "pi5" / "onnx.json"), str(tmp_path / "again.json"), "-o", str(page)]) == 0
    assert "local, onnx" in page.read_text() and "local, onnx (2)" in page.read_text()


def test_decoding_on_end(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    assert bench(bundle, "--sustained", "1s", "--record", str(tmp_path)) == 0
    assert "decode for 1 s on end" in capsys.readouterr().out
    times = Record.load(tmp_path / "onnx.json").times
    assert times.sustained[-1][0] >= 1 > times.sustained[0][0] and 2 <= len(times.warmups_ms) <= 10


@pytest.mark.parametrize("time", ["", "10", "-1s", "0m", "1d", "1.5m"])
def test_no_time(bundle: Path, capsys: Any, time: str) -> None:
    assert bench(bundle, "--sustained", time or " ") == 2
    assert "--sustained" in capsys.readouterr().err


def test_it_waits_until_the_machine_is_cool(made: tuple[measure.Bench, Record], monkeypatch: Any) -> None:
    waits = iter([["80.0 °C, and not yet 60.0 °C or less"], ["it is warm"], []])
    monkeypatch.setattr(recording, "gate", lambda now: next(waits))
    monkeypatch.setattr(recording, "COOL_EACH_S", 0.0)
    plan, told = made[0].measured.plan, []

    def recorder(cool_s: float) -> recording.Recorder:
        sensed = SimpleNamespace(execute=lambda *a: None, sensors=Tree, samples=lambda plan: [])
        return recording.Recorder(sensed, "local", cool_s=cool_s, update=lambda *said: told.append(said))

    recorder(3600).execute(plan, lambda *a: None)
    assert next(waits, None) is None and next(said[0] for said in told).startswith("waits: 80.0 °C")
    monkeypatch.setattr(recording, "gate", lambda now: ["9 threads are running"])
    hot = recorder(0.01)
    hot.execute(plan, lambda *a: None)
    assert hot.hot == ["9 threads are running"]
    recorder(0).execute(plan, lambda *a: None)


def test_what_it_still_waited_for_is_noted(made: tuple[measure.Bench, Record], bundle: Path) -> None:
    found = recording.Recorder(watching.Here(bundle / "onnx"), "local", cool_s=60, hot=["9 threads are running"])
    found.tree = Tree()
    found.around = watching.watched(Tree(), [], Tree())
    record = found.record(open_bundle(bundle), made[0].measured, [1], [])
    assert "not cool and idle after 60 s: 9 threads are running" in record.notes


def test_who_is_waited_for_where_nothing_is_said() -> None:
    def place(emulated: bool | None) -> Any:
        return Place("ssh://pi", lambda name: None, facts=SimpleNamespace(emulated=emulated))  # type: ignore

    assert [default_wait(place(emulated)) for emulated in (None, False, True)] == [120, 120, 0]
    assert default_wait(Place("local", lambda name: None)) == 0  # type: ignore


@pytest.mark.parametrize("fresh", [True, False])
def test_the_first_load_after_it_was_sent(made: tuple[measure.Bench, Record], bundle: Path, fresh: bool) -> None:
    facts = SimpleNamespace(emulated=False, label="pi", system="Debian", cores=(), clock_s=0.5, identity=None)
    found = recording.Recorder(watching.Here(bundle / "onnx"), "ssh://pi", facts, fresh, tree=Tree())  # type: ignore
    found.around = watching.watched(Tree(), [], Tree())
    first = found.record(open_bundle(bundle), made[0].measured, [1], []).loads.first_ever
    loads = made[0].measured.loads[0].loads
    assert loads and first.value == (loads.cold_ms if fresh else None)
    assert "after it was sent" in first.source if fresh else "was on the device before" in first.why


@pytest.mark.parametrize(("form", "key"), [("llama-bench", "avg_ts"), ("edge-llm-bench", "schemaVersion")])
def test_in_the_words_of_others(measured: Any, bundle: Path, tmp_path: Path, form: str, key: str) -> None:
    assert bench(bundle, "--record", str(tmp_path), "--record-format", form) == 0
    made = json.loads((tmp_path / "onnx.json").read_text())
    assert key in (made[0] if isinstance(made, list) else made)


@pytest.mark.parametrize(
    ("gates", "code", "words"),
    [
        (["--min-decode", "0.001", "--max-ttft", "1e9", "--max-memory", "1e9"], 0, []),
        (["--min-decode", "1e9", "--max-memory", "1"], 1, ["onnx: decode", "at least", "onnx: memory, peak"]),
        (["--max-ttft", "0"], 1, ["onnx: time to first token"]),
    ],
)
def test_gates(measured: Any, bundle: Path, capsys: Any, gates: list[str], code: int, words: list[str]) -> None:
    assert bench(bundle, *gates, "--json") == code
    printed = capsys.readouterr()
    (report,) = json.loads(printed.out)
    assert report["marks"] == [] and all(word in printed.err for word in words)


def test_a_marked_run_is_not_judged(measured: Any, bundle: Path, capsys: Any) -> None:
    measured("the battery saver is on")
    assert bench(bundle, "--min-decode", "1e9") == 3
    assert "not judged" in (said := capsys.readouterr().err) and "the battery saver is on" in said
    assert bench(bundle) == 0 and "note: onnx: the battery saver is on" in capsys.readouterr().err


def test_what_says_something_else_is_not_measured(bundle: Path, capsys: Any, monkeypatch: Any) -> None:
    sound = Expected.of

    def other(*args: Any) -> Expected | None:
        found = sound(*args)
        assert found
        return replace(found, ids=np.where(np.arange(len(found.ids)) == 3, (found.ids + 1) % 300, found.ids), tie=0.0)

    monkeypatch.setattr(Expected, "of", other)
    assert bench(bundle) == 1
    assert "from token 4 of the answer on" in capsys.readouterr().err


def test_a_near_tie_is_said_and_no_more() -> None:
    expected = Expected(np.arange(4), np.array([7, 8, 9]), tie=0.5)
    (text,), calls = expected.asked
    assert Plan("bench", "t", "e", {}, 1, texts=(text, text), calls=calls).calls == calls
    near = Seen(
        np.zeros(3), np.array([7, 5, 5], np.int32), np.array([2.0, 2.0, 2.0]), np.array([[2.0], [1.6], [0.0]]), []
    )
    assert expected.check("t", near) == ([7, 5, 5], 1)
    with pytest.raises(GateError, match=r"(?s)from token 2 of .*token 5, 0.4 nats"):
        replace(expected, tie=0.3).check("t", near)


def test_probes_without_an_answer(bundle: Path) -> None:
    probes = open_bundle(bundle).probes()
    assert Expected.of(probes, "coreml", 128) is None
    found = Expected.of(probes, "onnx", len(probes.arrays["greedy.prompt.0"]) + 2)
    assert found and len(found.ids) == 2


def test_records_and_bundles_of_a_report(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "no.json").write_text("{}")
    assert run(["report", str(tmp_path / "no.json"), "-o", str(tmp_path / "r.html")]) == 2
    assert run(["report", str(bundle), str(bundle), "-o", str(tmp_path / "r.html")]) == 2
    assert "one bundle" in capsys.readouterr().err
