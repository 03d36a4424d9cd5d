"""Temperatures, Android's thermal status, and a Raspberry Pi's throttling."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from smolship.runtime.errors import clip
from smolship.runtime.sensors.reading import Reading, unavailable
from smolship.runtime.sensors.tree import ZONES, Tree

COLDEST, HOTTEST = -30.0, 125.0  # °C that are plausible
SURE = 1000  # from which on a number is no °C; below it, down to the hottest, it may be in a tenth of one
SERVICE, THROTTLED, MEASURED = "$ dumpsys thermalservice", "$ vcgencmd get_throttled", "$ vcgencmd measure_temp"
NONE = "zones"  # the key of a machine that has no zone
# Bits of get_throttled: now; 16 bits further up: once since the start.
BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
KINDS = {0: "CPU", 1: "GPU", 2: "battery", 3: "skin", 4: "USB port", 5: "power amplifier", 9: "NPU", 10: "TPU"}
KINDS |= {11: "display", 12: "modem", 13: "SoC", 14: "Wi-Fi", 15: "camera", 16: "flashlight", 17: "speaker"}
KINDS |= {18: "ambient", 19: "pogo"}
# Of a battery's limits, which phones list among temperatures: volts, amperes, and its charge in %.
LIMITS = {6: "a battery's voltage", 7: "a battery's current", 8: "a battery's charge"}
LIMIT = re.compile(r"(?:^|[-_])(?:[iv]batt?|bcl|ocp|smpl|vdroop\d*|batoilo\d*|uvlo\d*)(?:$|[-_\d])")


def temperatures(tree: Tree) -> dict[str, Reading]:
    """°C by type of zone; a type's further zones are "TYPE (2)" and so on. A zone that cannot be read, or says what is
    no temperature, is unavailable, and the others are not."""
    zones = {
        f"{folder}/temp": tree.get(f"{folder}/type") or folder.rpartition("/")[2] for folder in tree.folders(ZONES)
    }
    numbers = {path: _number(tree.get(path)) for path, kind in zones.items() if not LIMIT.search(kind.lower())}
    thousandths = _thousandths([n for n in numbers.values() if n is not None])
    found: dict[str, Reading] = {}
    for path, kind in zones.items():
        name = clip(kind, 60)
        count = sum(known == name or known.startswith(f"{name} (") for known in found)
        found[f"{name} ({count + 1})" if count else name] = (
            _zone(tree, path, numbers[path], thousandths)
            if path in numbers
            else unavailable("°C", path, "a limit of the battery's, which is no temperature")
        )
    why = tree.why(f"{ZONES}temp")
    return found or {NONE: unavailable("°C", f"{ZONES}temp", "there are none" if why == "ENOENT" else why)}


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,9})?", text.strip()) else None


def _thousandths(numbers: Iterable[float]) -> bool | None:
    """The unit of all zones, which is that of most: whether it is a thousandth of a °C. None: neither fits."""
    sizes = [abs(n) for n in numbers if n and COLDEST * 1000 <= n <= HOTTEST * 1000]
    small, large = sum(size <= HOTTEST for size in sizes), sum(size >= SURE for size in sizes)
    return large >= small if small or large else None


def _zone(tree: Tree, path: str, number: float | None, thousandths: bool | None) -> Reading:
    if number is None:
        return tree.reading(path, "°C", None, "a temperature")
    if number == 0:
        return unavailable("°C", path, "0, as absent sensors say")
    if thousandths is None:
        return unavailable("°C", path, f"{number:g} is plausible neither in °C nor in a thousandth of it")
    if thousandths and abs(number) < SURE:  # batteries are often in a tenth
        return unavailable("°C", path, f"{number:g} is not in the unit of the other zones, a thousandth of a °C")
    return _plausible(number / 1000 if thousandths else number, path)


def _plausible(celsius: float, source: str) -> Reading:
    if not math.isfinite(celsius) or not COLDEST <= celsius <= HOTTEST:
        return unavailable("°C", source, f"{celsius:g} °C is outside of {COLDEST:g} to {HOTTEST:g}")
    return Reading(celsius, "°C", source)


def hal_temperatures(tree: Tree) -> dict[str, Reading]:
    """°C by the names that Android's hardware layer gives, as it says now: not the cached ones."""
    why = _no_hal(tree)
    if why:
        return {"HAL": unavailable("°C", SERVICE, why)}
    section = re.search(
        r"^\s*Current temperatures from HAL:?\s*$(.*?)(?=^[^{}\n]*:[ \t]*$|\Z)", _service(tree), re.M | re.S
    )
    found: dict[str, Reading] = {}
    source = f"{SERVICE}, from HAL"
    pattern = r"Temperature\{mValue=([^,}]*), mType=(-?\d+), mName=([^,}]*)"
    for value, kind, name in re.findall(pattern, section[1] if section else ""):
        number = int(kind[:9])
        label = LIMITS.get(number) or KINDS.get(number, f"type {number}")
        found[f"{clip(name.strip(), 60) or 'nameless'}, {label}"] = _hal(value, number, source)
    return found or {"HAL": unavailable("°C", SERVICE, "no section of temperatures from HAL, or an empty one")}


def _hal(value: str, kind: int, source: str) -> Reading:
    if kind in LIMITS:
        return unavailable("°C", source, f"{LIMITS[kind]}, which is no temperature")
    try:
        celsius = float(value)
    except ValueError:
        celsius = math.nan
    return _plausible(celsius, source) if celsius else unavailable("°C", source, "0.0, as absent sensors say")


def thermal_status(tree: Tree) -> Reading:
    """0 none, 1 light, 2 moderate, 3 severe, 4 critical, 5 emergency, 6 shutdown."""
    text, why = _service(tree), _no_hal(tree)
    if not why and re.search(r"^\s*IsStatusOverride:\s*true", text, re.M):
        why = "somebody has set it by hand (cmd thermalservice reset takes that back)"
    found = re.search(r"^\s*Thermal Status:\s*(\d)\s*$", text, re.M)
    if why or not found:
        return unavailable("0 to 6", SERVICE, why or "it says none")
    return Reading(int(found[1]), "0 to 6", SERVICE)


def _service(tree: Tree) -> str:
    return tree.get(SERVICE) or ""


def _no_hal(tree: Tree) -> str:
    """Why Android's hardware layer tells no temperature; empty where it does."""
    text = _service(tree)
    if not text:
        return tree.why(SERVICE)
    ready = re.search(r"^\s*HAL Ready:\s*(\w+)", text, re.M)
    if not ready:
        return f"no thermal service: {clip(text.splitlines()[0], 80)}"
    return "" if ready[1] == "true" else f"HAL Ready: {ready[1]}"


def soc_temperature(tree: Tree) -> Reading:
    """°C that a Raspberry Pi's firmware measures."""
    found = re.search(r"^temp=(-?[0-9.]{1,8})'C\s*$", tree.get(MEASURED) or "", re.M)
    number = _number(found[1]) if found else None
    return _forbidden(tree, MEASURED, "°C") if number is None else _plausible(number, MEASURED)


def throttled(tree: Tree) -> Reading:
    """The bits of a Raspberry Pi's `vcgencmd get_throttled`."""
    found = re.search(r"^throttled=0x([0-9A-Fa-f]{1,8})\s*$", tree.get(THROTTLED) or "", re.M)
    return Reading(int(found[1], 16), "bits", THROTTLED) if found else _forbidden(tree, THROTTLED, "bits")


def _forbidden(tree: Tree, path: str, unit: str) -> Reading:
    text = tree.get(path)
    if text is None:
        return unavailable(unit, path, tree.why(path))
    words = clip(" ".join(text.split()), 120) or "it says nothing"
    return unavailable(unit, path, f"{words}; vcgencmd is for members of the group video")


def throttling(before: Reading, during: Iterable[Reading], after: Reading) -> list[str]:
    """What throttled a Raspberry Pi during a run: bits that were set while it ran, and bits of the past that are set
    after it and were not before."""
    said = {}
    for reading in (before, *during, after):
        for bit, name in BITS.items():
            if isinstance(reading.value, int) and reading.value >> bit & 1:
                said[name] = f"the board says: {name}"
    if isinstance(before.value, int) and isinstance(after.value, int):
        for bit, name in BITS.items():
            if after.value & ~before.value & 1 << (bit + 16):
                said.setdefault(name, f"the board says: {name}, at some time between the beginning and the end")
    return list(said.values())


def hottest(readings: Mapping[str, Reading]) -> float | None:
    """°C of the hottest; None where none says."""
    return max((n for reading in readings.values() if (n := reading.number) is not None), default=None)
