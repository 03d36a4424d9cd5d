"""Whether a device can hold what is exported, and if not, which single option would change that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from smolship.export.forecast.devices import ENTITLEMENT, RUNS_ON, Device, System
from smolship.export.forecast.record import Need
from smolship.export.weights import Scheme

MB = 1_000_000
APP_ANONYMOUS, APP_MAPPED = 40 * MB, 60 * MB  # of an app with an engine, before it opens a model: an assumption
SHORTEST = 256  # tokens, below which no context is proposed


def systems_for(target: str, device: Device) -> list[System]:
    """Those of the device that run the target."""
    return [system for system in device.systems if system.name in RUNS_ON.get(target, (system.name,))]


def need_on(system: System, here: tuple[int, int], added: tuple[int, int]) -> Need:
    """`here` are anonymous and mapped memory of a process of our runtime, `added` what the artifact adds to an app."""
    anonymous, mapped = here if system.python else (added[0] + APP_ANONYMOUS, added[1] + APP_MAPPED)
    return Need(system.name, anonymous, mapped, system.anonymous_bytes, system.total_bytes)


def fit(needs: list[Need]) -> bool:
    return not any(need.over_bytes for need in needs)


def changes(
    needs: Callable[[Scheme, int], list[Need]], scheme: Scheme, context: int, device: Device, tied: bool
) -> list[str]:
    """Options, each of which alone makes a target fit. `needs` forecasts it with others."""
    found = []
    shorter = context // 2
    while shorter >= SHORTEST and not fit(needs(scheme, shorter)):
        shorter //= 2
    if shorter >= SHORTEST:
        found.append(f"--context {shorter}")
    found += [said for said, other in _proposals(scheme, tied) if fit(needs(other, context))]
    entitled = {system.name: system.entitled_bytes for system in device.systems if system.entitled_bytes}
    on_ios = [
        replace(need, anonymous_limit=entitled[need.system])
        for need in needs(scheme, context)
        if need.system in entitled
    ]
    if on_ios and fit(on_ios):
        found.append(f"on iOS alone, an app with {ENTITLEMENT}")
    return found


def _proposals(scheme: Scheme, tied: bool) -> Iterator[tuple[str, Scheme]]:
    """Fewer bits for one thing, as an option says it."""
    if scheme.linear > 8:
        yield "--quant int8", replace(scheme, linear=8, embedding=8, head=8)
    if scheme.linear > 4:
        yield "--quant int4", replace(scheme, linear=4, embedding=8, head=8)
    if scheme.linear == 4 and scheme.group < 128:
        yield "--group-size 128", replace(scheme, group=128)
    for bits in (8, 4):
        if scheme.embedding > bits:
            yield f"--embedding-bits {bits}", replace(scheme, embedding=bits)
        if not tied and scheme.head > bits:
            yield f"--head-bits {bits}", replace(scheme, head=bits)
