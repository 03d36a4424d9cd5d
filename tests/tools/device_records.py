"""A plan, its result and a record of it, made by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from smolship.runtime.memory import Memory
from smolship.runtime.plan import Plan, Text, Timing
from smolship.runtime.result import Loads, Result, Times
from smolship.runtime.sensors.reading import Reading
from smolship.runtime.sensors.snapshot import Snapshot, identity, model, snapshot, soc
from smolship.runtime.session import Traits
from smolship.tools.devices.making import Said, make_record
from smolship.tools.devices.record import Device, Model, Record
from tests.runtime.sensor_trees import PI_5, tree, zones

INFO = {"file": "model.pte"}
TEXT = (Text.plain(np.arange(64)),)
PLAN = Plan("bench", "executorch-xnnpack", "executorch", INFO, 4, texts=TEXT, timing=Timing((16, 64), (16,), 4, 3))
LOAD = Plan("load", "executorch-xnnpack", "executorch", INFO, 4, loads=True)
TIMES = Times(
    {16: [80.0, 82.0, 81.0], 64: [320.0, 322.0, 318.0]},
    {16: [[20.0, 21.0, 20.5, 22.0], [20.0] * 4, [19.0, 20.0, 21.0, 30.0]]},
)
MIB = 1 << 20
SAID = Said("Why?", "Because.", [5, 6, 7], [5, 6, 7])


def result(plan: Plan = PLAN, **changes: Any) -> Result:
    facts: dict[str, Any] = {
        "plan": plan.digest,
        "artifact": "ab" * 32,
        "purpose": plan.purpose,
        "target": plan.target,
        "engine": plan.engine,
        "arithmetic": "",
        "threads": plan.threads,
        "traits": Traits(49152, 128),
        "waiting": "actively",
        "versions": {"smolship": "0.1.0", "executorch": "1.5.1"},
        "system": "Linux",
        "cpu": "Cortex-A76",
        "seconds": 9.0,
        "times": TIMES if plan.timing else None,
        "memory_before_load": Memory(20 * MIB, 10 * MIB, 31 * MIB),
        "memory": Memory(200 * MIB, 390 * MIB, 595 * MIB),
    }
    return Result(**(facts | changes))


def loaded(dropped: bool | None, cold: float = 900.0) -> Result:
    return result(LOAD, loads=Loads(30.0, cold, 250.0, dropped))


def run(machine: dict[str, str], seconds: float, celsius: int, **changes: str) -> Snapshot:
    texts = {**machine, "/proc/uptime": f"{seconds} 1", **zones(("cpu-thermal", str(celsius))), **changes}
    return snapshot(tree(texts), 77)


def device(machine: dict[str, str] = PI_5, uri: str = "ssh://pi@board") -> Device:
    found = tree(machine)
    return Device(
        uri, "board", model(found), soc(found), identity(found), "Debian 12", "Cortex-A76", ["Cortex-A76"] * 4
    )


def record(machine: dict[str, str] = PI_5, **changes: Any) -> Record:
    facts: dict[str, Any] = {
        "device": device(machine),
        "model": Model("a/model", "main", "int4", "9f" * 32, 134_515_008, "model.pte", 97_400_000),
        "said": SAID,
        "before": run(machine, 100, 45000),
        "during": [run(machine, 101, 55000), run(machine, 102, 61000)],
        "after": run(machine, 103, 60000),
        "first_ever": Reading(1500.0, "ms", "opening right after the push"),
        "device_offset": Reading(-2.0, "s", "date"),
        "now": lambda: datetime(2026, 11, 26, 20, 0, 0, tzinfo=UTC),
    }
    plan, found, loads = (changes.pop(key, default) for key, default in (
        ("plan", PLAN), ("result", None), ("loads", [loaded(True), loaded(False, 300.0), loaded(True, 880.0)])
    ))  # fmt: skip
    return make_record(plan, found or result(plan), loads, **(facts | changes))
