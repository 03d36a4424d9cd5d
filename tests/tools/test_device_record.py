"""Records of runs on devices: what they hold, what is refused, and what others read of them."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime.errors import GateError, InputError
from smolship.runtime.records import read_record, to_json
from smolship.runtime.result import Times
from smolship.runtime.sensors.reading import Reading
from smolship.tools.devices.formats import to_edge_llm_bench, to_llama_bench
from smolship.tools.devices.record import Record
from tests.runtime.sensor_trees import CONTAINER, LAPTOP, PHONE, PI_4, PI_5, STATUS, policy
from tests.tools.device_records import LOAD, MIB, PLAN, SAID, TIMES, device, loaded, record, result, run

WARMED = replace(PLAN, timing=replace(PLAN.timing, warmups=10)) if PLAN.timing else PLAN
SCHEMA = Path(__file__).parents[2] / "docs/schema/bench-record-v1.json"
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def problems(value: Any, schema: Any, whole: Any, at: str = "") -> list[str]:
    """What of JSON Schema the published one uses."""
    if "$ref" in schema:
        return problems(value, whole["$defs"][schema["$ref"].removeprefix("#/$defs/")], whole, at)
    if "oneOf" in schema:
        tries = [problems(value, one, whole, at) for one in schema["oneOf"]]
        return [] if sum(not found for found in tries) == 1 else [f"{at}: none or several of oneOf"]
    kinds = schema.get("type", [])
    if kinds and not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return [f"{at}: not {kinds}"]
    found = [f"{at}: not {key}" for key, good in _limits(value, schema) if not good]
    if isinstance(value, dict):
        named, other = schema.get("properties", {}), schema.get("additionalProperties", {})
        found += [f"{at}: no {key}" for key in schema.get("required", []) if key not in value]
        for key, inner in value.items():
            rule = named.get(key, other)
            found += [f"{at}: unknown {key}"] if rule is False else problems(inner, rule, whole, f"{at}.{key}")
    if isinstance(value, list):
        found += [p for i, one in enumerate(value) for p in problems(one, schema.get("items", {}), whole, f"{at}[{i}]")]
    return found


def _is(value: Any, kind: str) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind in ("number", "integer"):
        return number and (kind == "number" or isinstance(value, int))
    return isinstance(value, TYPES[kind])


def _limits(value: Any, schema: Any) -> list[tuple[str, bool]]:
    return [
        ("const", "const" not in schema or value == schema["const"]),
        ("enum", value in schema.get("enum", [value])),
        ("pattern", not isinstance(value, str) or bool(re.search(schema.get("pattern", ""), value))),
        ("minimum", not _is(value, "number") or value >= schema.get("minimum", value)),
        ("exclusiveMinimum", "exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"]),
        ("minItems", not isinstance(value, list) or len(value) >= schema.get("minItems", 0)),
    ]


@pytest.mark.parametrize("machine", [PI_4, PI_5, PHONE, LAPTOP, CONTAINER])
def test_a_record_is_as_the_published_schema_says(machine: dict[str, str], tmp_path: Path) -> None:
    schema, one = json.loads(SCHEMA.read_text()), record(machine)
    assert problems(json.loads(to_json(one)), schema, schema) == []
    one.save(tmp_path / "record.json")
    assert to_json(Record.load(tmp_path / "record.json")) == to_json(one) == (tmp_path / "record.json").read_bytes()


def test_the_schema_names_every_field_and_bites() -> None:
    schema, raw = json.loads(SCHEMA.read_text()), json.loads(to_json(record()))
    assert list(schema["properties"]) == schema["required"] == [field.name for field in fields(Record)]
    for change in (
        lambda r: r.update(schema=2),
        lambda r: r.update(extra=1),
        lambda r: r.pop("marks"),
        lambda r: r["answer"].update(check="fine"),
        lambda r: r["times"]["ttft_ms"].update({"16": [0]}),
        lambda r: r["memory"]["peak"].update(value=None),
        lambda r: r["device"]["model"].pop("source"),
        lambda r: r["before"]["battery"].pop("level"),
        lambda r: r["samples"][0].update(temperatures={"cpu": "45"}),
    ):
        broken = copy.deepcopy(raw)
        change(broken)
        assert problems(broken, schema, schema), change
        with pytest.raises(InputError):
            read_record(Record, broken, "record")


def test_what_it_holds() -> None:
    one = record()
    assert one.date == "2026-11-26T20:00:00Z" and one.device_offset.value == -2.0
    assert one.device.identity.value is None and one.device.model.value == "Raspberry Pi 5 Model B Rev 1.0"
    assert one.loads.cold_ms == [900.0, 880.0] and one.loads.first_ever.value == 1500.0 and not one.loads.why
    assert [sample.seconds for sample in one.samples] == [0, 1, 2, 3]
    assert [sample.temperatures["cpu-thermal"] for sample in one.samples] == [45, 55, 61, 60]
    rates = {rate.of: rate for rate in one.rates}
    assert list(rates) == ["ttft_ms[16]", "ttft_ms[64]", "gaps_ms[16]"] and all(
        "/" in rate.formula for rate in one.rates
    )
    assert rates["ttft_ms[64]"].median == pytest.approx(200.0) and one.prefill == rates["ttft_ms[64]"]
    assert one.decode.high == pytest.approx(50.0) and one.decode.low == pytest.approx(4000 / 90)
    assert one.between_tokens(0.5) == 20.0 and one.times == TIMES
    assert one.memory.peak.value == 610_000 << 10 and one.memory.swap.value == 0
    assert one.memory.available_lowest.value == 6_000_000 << 10
    assert one.allowed.value == "0-3" and one.marks == [] and not one.emulated
    assert one.answer.check == "as planned" and len(one.answer.sha256) == 64
    assert one.notes == ["decode after 16 tokens: the repeats spread over 12% of the median"]


def test_without_sensors_it_is_the_process_own_word() -> None:
    one = record(CONTAINER)
    assert one.memory.peak.value == 595 * MIB and "as the process read it" in one.memory.peak.source
    assert one.memory.anonymous.value is None and one.memory.anonymous.why == "ENOENT"
    assert one.allowed.value is None


def test_loads_that_are_not_cold_are_not_called_so() -> None:
    kept, unknown = record(loads=[loaded(False)]), record(loads=[loaded(None)], first_ever=None)
    assert kept.loads.cold_ms == [] and kept.loads.why == "the system kept the file's pages"
    assert unknown.loads.why == "whether the file's pages were dropped is not known"
    assert unknown.loads.first_ever.value is None and record(loads=[]).loads.why == "no load was measured"


def test_what_is_said_of_clocks_and_warm_up() -> None:
    def notes(offset: float, warmups_ms: list[float]) -> list[str]:
        found = result(WARMED, times=replace(TIMES, warmups_ms=warmups_ms))
        return record(device_offset=Reading(offset, "s", "date"), plan=WARMED, result=found).notes

    said = notes(7200.0, [100.0, 50.0])
    assert "the device's clock is +7,200 s off; dates are the host's" in said
    assert "no two repetitions in a row agreed within 5 %: 2 were not counted" in said
    assert len(notes(60.0, [100.0, 99.0])) == 1


def test_marks_come_from_the_snapshots() -> None:
    capped = record(during=[run(PI_5, 101, 80000, **policy(0, 2400000, 1500000))], emulated=True)
    assert capped.emulated and capped.marks == [
        "the device is emulated",
        "the clock of policy0 is capped 38% below what it can",
    ]
    swapped = run(PI_5, 101, 50000, **{"/proc/77/status": STATUS.replace("       0 kB", "  900000 kB")})
    assert record(during=[swapped]).memory.peak.value == 1_500_000 << 10


def times(**changes: Any) -> Times:
    return replace(TIMES, **changes)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"result": result(times=times(gaps_ms={16: [[20.0] * 3] * 3}))}, "another number of tokens after 16"),
        ({"result": result(times=times(gaps_ms={16: [[20.0] * 4] * 2}))}, "the repeats"),
        ({"result": result(times=times(ttft_ms={16: [1.0] * 3}))}, "the times"),
        ({"result": result(times=times(ttft_ms={16: [1.0, -1.0, 1.0], 64: [1.0] * 3}))}, "no clock gives"),
        ({"result": result(times=times(gaps_ms={16: [[0.0] * 4] * 3}))}, "no clock gives"),
        ({"result": result(LOAD)}, "another plan"),
        ({"result": result(threads=2)}, "threads is not the plan's"),
        ({"result": result(engine="onnx")}, "engine is not the plan's"),
        ({"said": replace(SAID, ids=[5, 6, 8], text="Garbage")}, "not as planned, from token 3 on"),
        ({"said": replace(SAID, ids=[5, 6])}, "not as planned, from token 3 on"),
        ({"said": replace(SAID, ids=[5, 6, 7, 7])}, "not as planned, from token 4 on"),
        ({"said": replace(SAID, ids=[])}, "not as planned, from token 1 on"),
    ],
)
def test_a_run_that_is_not_as_planned_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(GateError) as caught:
        record(**changes)
    assert what in str(caught.value) and caught.value.exit_code == 1
    assert {"got", "todo"} <= {part for part, text in caught.value.parts().items() if text}


def test_the_end_of_the_cache_ends_decoding() -> None:
    short = result(traits=replace(result().traits, capacity=19), times=times(gaps_ms={16: [[20.0] * 3] * 3}))
    assert record(result=short).times.gaps_ms[16] == [[20.0] * 3] * 3


def test_a_text_that_nobody_expected_is_not_called_checked() -> None:
    assert record(said=replace(SAID, expected=None)).answer.check == "unavailable"


def test_edge_llm_bench() -> None:
    found = to_edge_llm_bench(record(PHONE, device=device(PHONE, "adb://")))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) >= {"schemaVersion", "runtime", "engineVersion", "engineArtifact", "model", "task", "timestamp",
                          "device", "conditions", "metrics", "provenance"}  # fmt: skip
    assert found["schemaVersion"] == 1 and found["model"]["hfRevision"] == "main"
    assert found["device"] == {
        "modelIdentifier": "SM-S942B",
        "systemVersion": "Debian 12",
        "batteryLevel": 0.84,
        "batteryState": "charging",
    }
    said, metrics = found["conditions"], found["metrics"]
    assert said["cpuMaxFreqMHz"]["policy7"] == {"min": 3200, "hw": 3200, "cpus": "7"} and said["protocolFlags"] == []
    assert (said["thermalInitial"], said["thermalRawStatus"], said["unplugged"], said["screen"]) == (
        "nominal",
        0,
        False,
        "on",
    )
    assert (said["cpuThreads"], said["cpusAllowedList"], said["textCheck"]) == (4, "0-3", "as planned")
    assert metrics["promptTokenCount"] == 16 and metrics["generatedTokenCount"] == 4
    assert metrics["firstTokenLatencyMS"] == 81.0 and metrics["promptTokensPerSecond"] == pytest.approx(16000 / 81)
    assert metrics["loadTimeSeconds"] == pytest.approx(0.89) and metrics["coldRun"] is True
    assert metrics["firstEverLoadTimeSeconds"] == 1.5 and metrics["firstEver"] is False
    assert metrics["memoryPeakResidentMB"] == 610_000 / 1024 and metrics["interTokenLatencyP50MS"] == 20.0
    assert (
        "energyJoulesPerToken" not in metrics
        and "tokens" in found["provenance"]["definitions"]["decodeTokensPerSecond"]
    )
    bare = to_edge_llm_bench(record(CONTAINER, loads=[], emulated=True))
    assert "memoryMedianResidentMB" not in bare["metrics"] and "loadTimeSeconds" not in bare["metrics"]
    assert "batteryLevel" not in bare["device"] and bare["conditions"]["protocolFlags"] == ["emulated"]
    capped = record(during=[run(PI_5, 101, 80000, **policy(0, 2400000, 1500000))])
    assert to_edge_llm_bench(capped)["conditions"]["protocolFlags"] == ["cpu-capped"]
    assert to_edge_llm_bench(capped)["conditions"]["cpuMaxFreqMHz"]["policy0"]["min"] == 1500


def test_energy_is_of_the_packages_alone() -> None:
    path = "/sys/class/powercap/intel-rapl:0/energy_uj"
    snapshots = [run(LAPTOP, i, 50000, **{path: str(1_000_000 * i)}) for i in (1, 2, 4)]
    one = record(LAPTOP, before=snapshots[0], during=[snapshots[1]], after=snapshots[2])
    assert one.joules["intel-rapl:0 package-0"].value == 3.0 and one.joules["intel-rapl:0:0 core"].value is None
    fed = 16 * 4 + 64 * 4 + 16 + 4 * 5
    assert to_edge_llm_bench(one)["metrics"]["energyJoulesPerToken"] == pytest.approx(3.0 / fed)
    again = {"intel-rapl-mmio:0 package-0": Reading(2.9, "J", "x"), "intel-rapl:1 package-1": Reading(1.0, "J", "x")}
    laptop = replace(one, joules=one.joules | again)  # the first package by another interface, and a second one
    assert to_edge_llm_bench(laptop)["metrics"]["energyJoulesPerToken"] == pytest.approx(4.0 / fed)
    longer = replace(one, times=replace(one.times, warmups_ms=[9.0, 9.1], sustained=[[1.0, 48.0], [2.0, 47.0]]))
    fed += 2 * (16 + 16 + 5) + 16 + 2 * 5
    assert to_edge_llm_bench(longer)["metrics"]["energyJoulesPerToken"] == pytest.approx(3.0 / fed)


def test_llama_bench() -> None:
    rows = to_llama_bench(record())
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert [(row["n_prompt"], row["n_gen"], row["n_depth"]) for row in rows] == [(16, 0, 0), (64, 0, 0), (0, 4, 16)]
    short, _, decode = rows
    assert short["samples_ns"] == [80_000_000, 82_000_000, 81_000_000] and short["avg_ns"] == 81_000_000
    assert short["stddev_ns"] == 1_000_000 and short["avg_ts"] == pytest.approx(sum(short["samples_ts"]) / 3)
    assert decode["samples_ns"] == [83_500_000, 80_000_000, 90_000_000]
    assert decode["samples_ts"][1] == pytest.approx(50.0) and decode["cpu_mask"] == "0xf" and decode["n_threads"] == 4
    assert decode["model_n_params"] == 134_515_008 and decode["model_size"] == 97_400_000
    assert to_llama_bench(record(CONTAINER))[0]["cpu_mask"] is None


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("rates",), [], "not those of its times"),
        (("rates", 2, "median"), 51.0, "not those of its times"),
        (("rates", 0, "of"), "ttft_ms[64]", "not those of its times"),
        (("times", "gaps_ms", "16", 0), [20.0, 21.0, 20.5, 25.0], "not those of its times"),
        (("times", "gaps_ms", "16", 0, 0), 1e308, "no clock gives"),
        (("times", "sustained"), [[]], "no clock gives"),
        (("model", "bytes"), 10**400, "cannot be used"),
        (("after", "policies", "policy0", "hardware_max", "value"), 10**400, "cannot be used"),
    ],
    ids=range(8),
)
def test_an_altered_record_is_refused(tmp_path: Path, path: tuple[Any, ...], value: Any, words: str) -> None:
    raw = json.loads(to_json(record()))
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "r.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match=words):
        Record.load(tmp_path / "r.json")


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"schema": 1}')
    with pytest.raises(InputError):
        Record.load(tmp_path / "r.json")
