"""Makes the record of a run on a device from its plan, its result and what the sensors said."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from smolship.runtime.errors import GateError, InputError, show
from smolship.runtime.memory import Memory
from smolship.runtime.plan import Plan
from smolship.runtime.result import Result
from smolship.runtime.sensors import process, supply
from smolship.runtime.sensors.marks import marks
from smolship.runtime.sensors.reading import Reading, unavailable
from smolship.runtime.sensors.snapshot import Snapshot
from smolship.runtime.timing import agree
from smolship.tools.devices.record import (
    Answer,
    Checked,
    Device,
    Engine,
    Loads,
    Model,
    Rate,
    Record,
    Sample,
    Used,
    rates_of,
)

OFFSET = 60.0  # s that a device's clock may be off before it is said
SPREAD = 0.10  # of the median
PARITY = "run parity of this target on this device: it names the first wrong position"
AGAIN = "run it again"


@dataclass(frozen=True)
class Said:
    """What the run answered, and what it had to: `expected` ids and their number; None where nobody knows."""

    prompt: str
    text: str
    ids: Sequence[int]
    expected: Sequence[int] | None


def make_record(
    plan: Plan,
    result: Result,
    loads: Sequence[Result],
    *,
    device: Device,
    model: Model,
    said: Said,
    before: Snapshot,
    during: Sequence[Snapshot],
    after: Snapshot,
    first_ever: Reading | None = None,
    emulated: bool = False,
    device_offset: Reading | None = None,
    notes: Sequence[str] = (),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Record:
    """The record of a plan with timing that gave `result`, and of plans that only loaded, which gave `loads`.

    Raises GateError where the tokens, their number or the text are not what the plan expects.
    """
    check = checked(plan, result, said)
    times, timing = result.times, plan.timing
    assert times and timing
    offset = device_offset or unavailable("s", "date", "the device was not asked")
    emulated = emulated or True in (before.emulated.value, after.emulated.value)
    everything = [before, *during, after]
    allowed = [one.scheduling.allowed for one in reversed(everything)]
    rates = rates_of(times)
    return Record(
        date=now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        device_offset=offset,
        device=device,
        model=model,
        engine=Engine(
            name=result.engine,
            target=result.target,
            runtime=result.traits.runtime,
            arithmetic=result.arithmetic,
            versions=result.versions,
            artifact=result.artifact,
            plan=result.plan,
        ),
        threads=result.threads,
        allowed=next((one for one in allowed if one.value is not None), allowed[0]),
        waiting=result.waiting,
        emulated=emulated,
        context_tokens=result.traits.capacity,
        prompt_tokens=list(timing.prompts),
        decode_tokens=timing.tokens,
        repeats=timing.repeats,
        loads=_loads(loads, first_ever),
        times=times,
        rates=rates,
        answer=Answer(said.prompt, said.text, _sha256(said.text), [int(i) for i in said.ids], check),
        memory=_used(result, everything),
        joules=supply.energy([one.counters for one in everything]),
        before=before,
        after=after,
        samples=[_sample(one, before) for one in everything],
        marks=marks(before, during, after, emulated=emulated),
        notes=[*_notes(rates, offset, times.warmups_ms), *notes],
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def checked(plan: Plan, result: Result, said: Said) -> Checked:
    """The answer's check, "as planned" or "unavailable". Raises GateError where the result is not what was planned."""
    if not plan.timing:
        raise InputError("a record is made of a plan with timing")
    try:
        result.answers(plan)
    except InputError as error:
        parts = error.parts()
        raise GateError(str(parts["what"]), got=parts["got"], expected=parts["expected"], todo=AGAIN) from None
    assert result.times
    for what, got, expected in (
        ("engine", result.engine, plan.engine),
        ("target", result.target, plan.target),
        ("threads", result.threads, plan.threads),
    ):
        if got != expected:
            raise GateError(f"the result's {what} is not the plan's", got=got, expected=expected, todo=AGAIN)
    for depth, rows in result.times.gaps_ms.items():
        count = min(plan.timing.tokens, result.traits.capacity - depth)
        for row in rows:
            if len(row) != count:
                raise GateError(
                    f"the device decoded another number of tokens after {depth}",
                    got=len(row),
                    expected=count,
                    todo=PARITY,
                )
    rows = [*result.times.ttft_ms.values(), *(row for many in result.times.gaps_ms.values() for row in many)]
    if min(min(row) for row in rows) <= 0:
        raise GateError("the result has times that no clock gives", got=show(rows), expected="above 0", todo=AGAIN)
    if said.expected is None:
        return "unavailable"
    ids, wanted = [int(i) for i in said.ids], [int(i) for i in said.expected]
    if ids != wanted:
        differing = (i for i, (a, b) in enumerate(zip(ids, wanted, strict=False)) if a != b)
        first = next(differing, min(len(ids), len(wanted)))
        got, expected = (f"{len(row)} tokens, from there on {row[first : first + 8]}" for row in (ids, wanted))
        raise GateError(
            f"the text is not as planned, from token {first + 1} on: the run is not recorded",
            got=f"{got}; {show(said.text)}",
            expected=expected,
            todo=PARITY,
        )
    return "as planned"


def _loads(results: Sequence[Result], first_ever: Reading | None) -> Loads:
    loads = [result.loads for result in results if result.loads]
    cold = [load.cold_ms for load in loads if load.dropped]
    why = ""
    if not cold:
        kept = any(load.dropped is False for load in loads)
        why = "the system kept the file's pages" if kept else "whether the file's pages were dropped is not known"
    return Loads(
        first_ever=first_ever
        or unavailable("ms", "", "whether the artifact had been opened there before is not known"),
        import_ms=[load.import_ms for load in loads],
        cold_ms=cold,
        warm_ms=[load.warm_ms for load in loads],
        why=why if loads else "no load was measured",
    )


def _used(result: Result, snapshots: Sequence[Snapshot]) -> Used:
    nothing = Memory(None, None, None)
    processes, own = [one.process for one in snapshots], (result.memory or nothing).peak_bytes
    peak = process.peak(processes)
    if own and own > (peak.number or 0):
        why = f"; the samples: {peak}" if peak.value is None else ""
        peak = Reading(own, "bytes", f"VmHWM as the process read it at its end{why}")
    available = [one.memory.available for one in snapshots]
    numbers = [one for one in available if one.number is not None]
    return Used(
        peak=peak,
        anonymous=process.highest([one.anonymous for one in processes]),
        file=process.highest([one.file for one in processes]),
        shared=process.highest([one.shared for one in processes]),
        swap=process.highest([one.swap for one in processes]),
        available_before=available[0],
        available_lowest=min(numbers, key=lambda one: one.number or 0) if numbers else available[0],
        before_load=result.memory_before_load or nothing,
        end=result.memory or nothing,
    )


def _sample(one: Snapshot, start: Snapshot) -> Sample:
    def whole(reading: Reading) -> int | None:
        return None if reading.number is None else int(reading.number)

    temperatures = one.temperatures | one.hal_temperatures | {"firmware": one.soc_temperature}
    now, first = one.seconds.number, start.seconds.number
    return Sample(
        seconds=None if now is None or first is None else round(now - first, 3),
        temperatures={name: n for name, reading in temperatures.items() if (n := reading.number) is not None},
        clocks={name: n for name, policy in one.policies.items() if (n := policy.current.number) is not None},
        caps={name: n for name, policy in one.policies.items() if (n := policy.cap.number) is not None},
        throttled=whole(one.throttled),
        resident=whole(one.process.resident),
        available=whole(one.memory.available),
    )


def _notes(rates: Sequence[Rate], offset: Reading, warmups_ms: Sequence[float]) -> list[str]:
    found = [
        f"{rate.name}: the repeats spread over {rate.spread:.0%} of the median"
        for rate in rates
        if rate.spread > SPREAD
    ]
    if abs(offset.number or 0) > OFFSET:
        found.append(f"the device's clock is {offset.number:+,.0f} s off; dates are the host's")
    if warmups_ms and not agree(warmups_ms):
        found.append(f"no two repetitions in a row agreed within 5 %: {len(warmups_ms)} were not counted")
    return found
