"""What makes a latency not judgeable, and what a measurement waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from smolship.runtime.sensors.clocks import CAP
from smolship.runtime.sensors.heat import hottest, throttling
from smolship.runtime.sensors.process import cores
from smolship.runtime.sensors.reading import Reading
from smolship.runtime.sensors.snapshot import Snapshot

LOW = 15.0  # % of the battery from which on phones save by themselves
WARMER = 5.0  # °C above the first repetition's start that the next may start at
WARM = 60.0  # °C, where there is no first
OTHERS = 2  # running threads of others that are too many
PRESSED = 10.0  # % of the last 10 seconds
STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


def marks(before: Snapshot, during: Sequence[Snapshot], after: Snapshot, *, emulated: bool = False) -> list[str]:
    """Sentences, one for each reason; empty where nothing speaks against judging the latency. What is unavailable says
    nothing."""
    all_of = [before, *during, after]
    found = ["the device is emulated"] if emulated or any(one.emulated.value is True for one in all_of) else []
    if _changed(before.boot_id, after.boot_id):
        found.append("the device restarted")
    found += _clocks(all_of)
    found += throttling(before.throttled, [one.throttled for one in during], after.throttled)
    statuses = [status for one in all_of if type(status := one.thermal_status.value) is int]
    if len(set(statuses)) > 1:
        found.append(f"the thermal status changed from {_status(min(statuses))} to {_status(max(statuses))}")
    elif max(statuses, default=0) > 0:
        found.append(f"the thermal status was {_status(max(statuses))}")
    found += _scheduling(all_of)
    found += _supply(all_of)
    if any((one.process.swap.number or 0) > (before.process.swap.number or 0) for one in all_of[1:]):
        found.append("parts of the process were swapped out")
    return found


def _clocks(snapshots: Sequence[Snapshot]) -> Iterable[str]:
    used = set().union(*(cores(one.scheduling.allowed.text or "") for one in snapshots))
    names = dict.fromkeys(name for one in snapshots for name in one.policies)
    for name in names:
        policies = [one.policies[name] for one in snapshots if name in one.policies]
        listed = list(dict.fromkeys("none" if one.offline else str(one.cpus.value or "") for one in policies))
        if len(said := [text for text in listed if text]) > 1:
            yield f"the processors of {name} that are on changed from {said[0]} to {said[1]}"
        policies = [one for one in policies if not one.offline]
        own = cores(next((text for one in policies if (text := one.cpus.text)), "").replace(" ", ","))
        if used and own and not used & own:
            continue  # the process is nowhere there
        taken = max((share for one in policies if (share := one.taken) is not None), default=0.0)
        if taken > CAP:
            yield f"the clock of {name} is capped {taken:.0%} below what it can"
        if any(one.slow for one in policies):
            yield f"the governor of {name} is powersave: its lowest clock"
    governors = list(dict.fromkeys(str(v) for one in snapshots if (v := one.governor.value) is not None))
    if len(governors) > 1:
        yield f"the governor changed from {governors[0]} to {governors[1]}"


def _scheduling(snapshots: Sequence[Snapshot]) -> Iterable[str]:
    if any(one.scheduling.background.value is True for one in snapshots):
        yield "the process was scheduled as background work"
    elif len({v for one in snapshots if (v := one.scheduling.group.value) is not None}) > 1:
        yield "the scheduling group of the process changed"
    allowed = [v for one in snapshots if (v := one.scheduling.allowed.text) is not None]
    sets = [cores(one) for one in allowed]
    if any(one != sets[0] for one in sets):
        other = next(one for one in allowed if cores(one) != sets[0])
        yield f"the processors that it may use changed from {allowed[0]} to {other}"
    nices = [int(n) for one in snapshots if (n := one.scheduling.nice.number) is not None]
    if len(set(nices)) > 1:
        yield f"its nice value changed from {nices[0]} to {next(n for n in nices if n != nices[0])}"
    elif max(nices, default=0) > 0:
        yield f"its nice value is {nices[0]}: others go first"


def _supply(snapshots: Sequence[Snapshot]) -> Iterable[str]:
    if any(one.saver.value is True for one in snapshots):
        yield "the battery saver is on"
    levels = [n for one in snapshots if (n := one.battery.level.number) is not None]
    if min(levels, default=100.0) <= LOW and not all(one.battery.plugged.value is True for one in snapshots):
        yield f"the battery is low: {min(levels):.0f} %"
    for what, read in _SWITCHES:
        said = list(dict.fromkeys(v for one in snapshots if (v := read(one).value) is not None))
        if len(said) > 1:
            yield f"{what} changed"


_SWITCHES: tuple[tuple[str, Callable[[Snapshot], Reading]], ...] = (
    ("the power supply", lambda one: one.battery.plugged),
    ("the screen's state", lambda one: one.screen),
)


def _changed(before: Reading, after: Reading) -> bool:
    return None not in (before.value, after.value) and before.value != after.value


def _status(status: int) -> str:
    return f"{status} ({STATUS[status]})" if 0 <= status < len(STATUS) else str(status)


def gate(now: Snapshot, first: Snapshot | None = None) -> list[str]:
    """What a repetition should still wait for, one sentence each; empty: the machine is cool and idle. `first`: as it
    was before the first repetition. What is unavailable is not waited for."""
    found = []
    temperature, start = _hottest(now), _hottest(first) if first else None
    limit = WARM if start is None else start + WARMER
    if temperature is not None and temperature > limit:
        found.append(f"{temperature:.1f} °C, and not yet {limit:.1f} °C or less")
    status, calm = now.thermal_status.number, (first.thermal_status.number if first else None) or 0
    if status is not None and status > calm:
        found.append(f"the thermal status is {_status(int(status))}")
    found += throttling(now.throttled, [], now.throttled)
    for name, policy in now.policies.items():
        if policy.offline:
            continue
        was = first.policies[name].taken if first and name in first.policies else 0.0
        if (policy.taken or 0.0) > max(CAP, was or 0.0):
            found.append(f"the clock of {name} is capped {policy.taken:.0%} below what it can")
    threads, waited = now.running.number, now.pressure.get("cpu", now.running)
    if threads is not None and threads > OTHERS:
        found.append(f"{threads:.0f} threads are running")
    elif waited.unit == "%" and (waited.number or 0) > PRESSED:
        found.append(f"threads waited for the processor for {waited.number:.0f} % of the last 10 seconds")
    return found


def _hottest(one: Snapshot) -> float | None:
    """Of the zones of the processor where some are named so: a charger may be warm for hours."""
    named = {
        name: reading
        for name, reading in (one.temperatures | one.hal_temperatures).items()
        if any(part in name.lower() for part in ("cpu", "soc", "x86_pkg", "tctl", "big", "little"))
    }
    found = hottest(named) if named else None
    if found is None:
        found = hottest(one.temperatures | one.hal_temperatures | {"firmware": one.soc_temperature})
    return found
