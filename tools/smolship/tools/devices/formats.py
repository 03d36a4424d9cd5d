"""Records in the words of other benchmarks: edge-llm-bench's results, and llama-bench's rows."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smolship.runtime.sensors.clocks import CAP
from smolship.runtime.sensors.process import cores
from smolship.runtime.sensors.reading import Reading
from smolship.runtime.sensors.snapshot import Snapshot
from smolship.tools.devices.record import Record

MIB = 1 << 20
PACKAGE = re.compile(r"[\w-]+:\d+ package")  # the zones in it are parts of it
# Their four states; Android's status 0 to 6.
STATES = ("nominal", "fair", "fair", "serious", "critical", "critical", "critical")


def to_edge_llm_bench(record: Record) -> dict[str, Any]:
    """One result of its schema version 1. "MB" are MiB, clocks MHz, the battery's level a share of 1. What is
    unavailable has no key."""
    shortest, shallow = min(record.times.ttft_ms), min(record.times.gaps_ms)
    loads, battery = record.loads, record.before.battery
    load = loads.cold_ms or loads.warm_ms
    prefill = next(rate for rate in record.rates if rate.of == f"ttft_ms[{shortest}]")
    joules = _packages(record.joules)
    return _known(
        {
            "schemaVersion": 1,
            "runtime": record.engine.runtime or record.engine.name,
            "engineVersion": ", ".join(f"{name} {version}" for name, version in record.engine.versions.items()),
            "engineArtifact": record.engine.artifact,
            "model": {
                "id": record.model.id,
                "hfRevision": record.model.revision,
                "quantization": record.model.quantization,
                "file": record.model.file,
            },
            "task": f"smolship-{shortest}x{record.decode_tokens}",
            "timestamp": record.date,
            "device": {
                "modelIdentifier": record.device.model.value,
                "systemVersion": record.device.system,
                "soc": record.device.soc.value,
                "batteryLevel": None if battery.level.number is None else battery.level.number / 100,
                "batteryState": battery.state.value,
            },
            "conditions": {
                "contextBudget": record.context_tokens,
                "maxOutputTokens": record.decode_tokens,
                "sampler": "greedy",
                "warm": not loads.cold_ms,
                "thermalInitial": _state(record.before),
                "thermalFinal": _state(record.after),
                "thermalRawStatus": record.before.thermal_status.value,
                "thermalRawStatusFinal": record.after.thermal_status.value,
                "unplugged": None if battery.plugged.value is None else not battery.plugged.value,
                "screen": record.before.screen.value,
                "cpuMaxFreqMHz": max_clocks(record),
                "cpusAllowedList": record.allowed.value,
                "cpuThreads": record.threads,
                "protocolFlags": flags(record),
                "textCheck": record.answer.check,
            },
            "metrics": {
                "promptTokenCount": shortest,
                "generatedTokenCount": len(record.times.gaps_ms[shallow][0]),
                "promptTokensPerSecond": prefill.median,
                "decodeTokensPerSecond": record.decode.median,
                "firstTokenLatencyMS": float(np.median(record.times.ttft_ms[shortest])),
                "loadTimeSeconds": float(np.median(load)) / 1000 if load else None,
                "coldRun": bool(loads.cold_ms),
                "firstEver": False,
                "firstEverLoadTimeSeconds": None if loads.first_ever.number is None else loads.first_ever.number / 1000,
                "memoryMedianResidentMB": _median([sample.resident for sample in record.samples]),
                "memoryPeakResidentMB": _mib(record.memory.peak),
                "memoryPeakDuringDecodeMB": _mib(record.memory.anonymous),
                "energyJoulesPerToken": joules / _fed(record) if joules else None,
                "interTokenLatencyP50MS": record.between_tokens(0.50),
                "interTokenLatencyP95MS": record.between_tokens(0.95),
                "interTokenLatencyP99MS": record.between_tokens(0.99),
            },
            "outputSample": record.answer.text[:200],
            "provenance": {
                "definitions": {
                    "promptTokensPerSecond": prefill.formula,
                    "decodeTokensPerSecond": record.decode.formula,
                    "interTokenLatency": f"of {len(record.gaps)} times between tokens, {shallow} tokens in the cache",
                    "memoryPeakDuringDecodeMB": f"anonymous: {record.memory.anonymous.source}",
                    "energyJoulesPerToken": "of the packages, loading included, over all tokens fed or decoded",
                },
                "rssBasis": record.memory.peak.source,
                "recipeSha256": record.engine.plan,
                "emulated": record.emulated,
                "marks": record.marks,
            },
        }
    )


def _packages(joules: Mapping[str, Reading]) -> float:
    """J of all packages. Laptops count each by two interfaces, intel-rapl and intel-rapl-mmio."""
    found: dict[str, float] = {}
    for name, reading in joules.items():
        if PACKAGE.match(name):
            package = name.partition(" ")[2]
            found[package] = max(found.get(package, 0.0), reading.number or 0.0)
    return sum(found.values())


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keys that have no value."""
    found = {key: _known(value) if isinstance(value, dict) else value for key, value in facts.items()}
    return {key: value for key, value in found.items() if value is not None and value != {}}


def _state(snapshot: Snapshot) -> str | None:
    status = snapshot.thermal_status.value
    return STATES[status] if type(status) is int and 0 <= status < len(STATES) else None


def max_clocks(record: Record) -> dict[str, dict[str, Any]]:
    """By policy: the lowest cap of the run, what the hardware can, both in MHz, and its processors."""
    found = {}
    for name, policy in (record.before.policies | record.after.policies).items():
        caps = [sample.caps[name] for sample in record.samples if name in sample.caps]
        if caps and policy.hardware_max.number:
            lowest, most = min(caps) / 1000, policy.hardware_max.number / 1000
            found[name] = {"min": round(lowest), "hw": round(most), "cpus": policy.cpus.text}
    return found


def flags(record: Record) -> list[str]:
    """What invalidates a run there, and that it is emulated."""
    used = cores(record.allowed.text or "")
    capped = any(
        one["min"] < one["hw"] * (1 - CAP)
        and not (used and one["cpus"] and not used & cores(one["cpus"].replace(" ", ",")))
        for one in max_clocks(record).values()
    )
    return ["cpu-capped"] * capped + ["emulated"] * record.emulated


def _mib(reading: Reading) -> float | None:
    return None if reading.number is None else reading.number / MIB


def _median(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) / MIB if known else None


def _fed(record: Record) -> int:
    """Tokens that went through the model: in the repeats and the one before each, which is not counted, in the
    repetitions that warm up, and while it decoded on end."""
    times = record.times
    shallow, shortest = min(times.gaps_ms), min(times.ttft_ms)
    decoded = len(times.gaps_ms[shallow][0]) + 1
    prompts = sum(n * (len(row) + 1) for n, row in times.ttft_ms.items())
    depths = sum(depth + (len(rows) + 1) * (len(rows[0]) + 1) for depth, rows in times.gaps_ms.items())
    warmups = len(times.warmups_ms) * (shortest + shallow + decoded)
    sustained = shallow + len(times.sustained) * decoded if times.sustained else 0
    return prompts + depths + warmups + sustained


def to_llama_bench(record: Record) -> list[dict[str, Any]]:
    """A row of each prompt's length and of each depth, as `llama-bench -o json` has them. Unlike there, the choice of
    the next token is in the times; what does not exist in this engine is null."""
    rows = [(n, 0, 0, list(row)) for n, row in sorted(record.times.ttft_ms.items())]
    rows += [(0, len(many[0]), n, [sum(row) for row in many]) for n, many in sorted(record.times.gaps_ms.items())]
    versions = record.engine.versions
    common = {
        "build_commit": versions.get("smolship"),
        "build_number": None,
        "cpu_info": record.device.cpu,
        "gpu_info": "",
        "backends": record.engine.target,
        "model_filename": record.model.file,
        "model_type": f"{record.model.id} {record.model.quantization}",
        "model_size": record.model.bytes,
        "model_n_params": record.model.parameters,
        "n_batch": None,
        "n_ubatch": None,
        "n_threads": record.threads,
        "cpu_mask": _mask(record.allowed),
        "type_k": None,
        "type_v": None,
        "n_gpu_layers": 0,
        "flash_attn": None,
        "test_time": record.date,
    }
    return [common | _row(*row) for row in rows]


def _row(n_prompt: int, n_gen: int, n_depth: int, times_ms: Sequence[float]) -> dict[str, Any]:
    samples = [round(1e6 * ms) for ms in times_ms]
    speeds = [1e9 * (n_prompt + n_gen) / ns for ns in samples]
    return {
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "n_depth": n_depth,
        "avg_ns": round(statistics.mean(samples)),
        "stddev_ns": round(_deviation(samples)),
        "avg_ts": statistics.mean(speeds),
        "stddev_ts": _deviation(speeds),
        "samples_ns": samples,
        "samples_ts": speeds,
    }


def _deviation(values: Sequence[float]) -> float:
    """With n - 1, as there; 0 for one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _mask(allowed: Reading) -> str | None:
    found = cores(allowed.text or "")
    return f"0x{sum(1 << core for core in found):x}" if found else None
