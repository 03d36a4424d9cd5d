"""Battery, screen, battery saver, and energy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from smolship.runtime.errors import clip
from smolship.runtime.sensors.heat import COLDEST, HOTTEST
from smolship.runtime.sensors.reading import Reading, unavailable, whole
from smolship.runtime.sensors.tree import Tree

SERVICE, POWER, SAVER = "$ dumpsys battery", "$ dumpsys power", "$ settings get global low_power"
PROFILE = "/sys/firmware/acpi/platform_profile"
SUPPLIES, RAPL = "/sys/class/power_supply/*", "/sys/class/powercap/*"
LOWEST_V, HIGHEST_V = 1.0, 100.0
STATES = {1: "unknown", 2: "charging", 3: "discharging", 4: "not charging", 5: "full"}


@dataclass(frozen=True)
class Battery:
    """
    level        %
    state        charging, discharging, not charging, full
    temperature  °C
    voltage      V
    plugged      whether power comes from outside
    """

    level: Reading
    state: Reading
    temperature: Reading
    voltage: Reading
    plugged: Reading

    @staticmethod
    def none(source: str, why: str) -> Battery:
        level, state, temperature, voltage, plugged = (
            unavailable(unit, source, why) for unit in ("%", "", "°C", "V", "")
        )
        return Battery(level, state, temperature, voltage, plugged)


def battery(tree: Tree) -> Battery:
    """Android's, else the kernel's; that of a mouse is not the machine's."""
    text = tree.get(SERVICE) or ""
    if "Battery Service state" in text:
        return _android(text)
    folders = [
        folder
        for folder in tree.folders(SUPPLIES)
        if tree.get(f"{folder}/type") == "Battery" and tree.get(f"{folder}/scope") != "Device"
    ]
    # An empty bay of a laptop is listed, too.
    if found := [_kernel(tree, folder) for folder in folders if tree.get(f"{folder}/capacity")]:
        return _together(found)
    if folders:
        return _kernel(tree, folders[0])
    if text:
        return Battery.none(SERVICE, f"it says: {clip(text.splitlines()[0], 80)}")
    whys = [tree.why(path) for folder in tree.folders(SUPPLIES) if tree.get(path := f"{folder}/type") is None]
    why = next((why for why in [*whys, tree.why(f"{SUPPLIES}/type")] if why != "ENOENT"), "there is no battery")
    return Battery.none(f"{SUPPLIES}/type", why)


def _android(text: str) -> Battery:
    if "UPDATES STOPPED" in text:
        return Battery.none(SERVICE, "somebody has set it by hand (dumpsys battery reset takes that back)")
    facts: dict[str, str] = {}
    for name, value in re.findall(r"^ {1,4}([A-Za-z][\w ]*): *(\S.*?) *$", text, re.M):
        facts.setdefault(name, value)  # makers append figures of their own
    if facts.get("present") == "false":
        return Battery.none(SERVICE, "there is no battery: present: false")

    def number(name: str, unit: str, divisor: float) -> Reading:
        value = whole(facts.get(name, ""))
        if value is None:
            return unavailable(unit, SERVICE, f"no {name}")
        return Reading(value / divisor, unit, SERVICE)

    scale = whole(facts.get("scale", "100")) or 100
    sources = [name for name, value in facts.items() if name.endswith(" powered") and value == "true"]
    told = any(name.endswith(" powered") for name in facts)
    return Battery(
        level=_level(number("level", "%", scale / 100)),
        state=_state(
            STATES.get(whole(facts.get("status", "")) or 0), SERVICE, f"status {clip(facts.get('status'), 20)}"
        ),
        temperature=_warm(number("temperature", "°C", 10)),
        voltage=_volts(number("voltage", "V", 1000)),
        plugged=Reading(bool(sources), "", SERVICE) if told else unavailable("", SERVICE, "no line about it"),
    )


def _kernel(tree: Tree, folder: str) -> Battery:
    def number(name: str, unit: str, divisor: float, expected: str) -> Reading:
        value = whole(tree.get(f"{folder}/{name}") or "")
        return tree.reading(f"{folder}/{name}", unit, None if value is None else value / divisor, expected)

    state = (tree.get(f"{folder}/status") or "").lower()
    outside = [
        online
        for other in tree.folders(SUPPLIES)
        if tree.get(f"{other}/type") not in ("Battery", None)
        and (online := tree.get(f"{other}/online")) in ("0", "1", "2")
    ]
    path = f"{folder}/status"
    return Battery(
        level=_level(number("capacity", "%", 1, "a level")),
        state=_state(state, path, tree.get(path) or tree.why(path)),
        temperature=_warm(number("temp", "°C", 10, "a temperature")),
        voltage=_volts(number("voltage_now", "V", 1e6, "a voltage")),
        plugged=Reading(outside != ["0"] * len(outside), "", f"{SUPPLIES}/online")  # 2: of a voltage that is set
        if outside
        else unavailable("", f"{SUPPLIES}/online", "no supply says whether it is online"),
    )


def _together(batteries: Sequence[Battery]) -> Battery:
    """The first, and what is true of all: how much each holds is not known."""
    first, states = batteries[0], [one.state for one in batteries]
    levels = list(dict.fromkeys(str(one.level) for one in batteries))
    level = first.level
    if len(levels) > 1:
        level = unavailable("%", level.source, f"several batteries: {', '.join(levels)}")
    busy = [one for kind in ("discharging", "charging") for one in states if one.value == kind]
    return replace(first, level=level, state=(busy or states)[0])


def _state(state: str | None, source: str, why: str) -> Reading:
    good = state in STATES.values() and state != "unknown"
    return Reading(state, "", source) if good else unavailable("", source, f"the battery says: {why}")


def _level(reading: Reading) -> Reading:
    number = reading.number
    if number is None or 0 <= number <= 100:
        return reading
    return unavailable("%", reading.source, f"{number:g} % is no level")


def _warm(reading: Reading) -> Reading:
    number = reading.number
    if number is None or (number and COLDEST <= number <= HOTTEST):
        return reading
    return unavailable("°C", reading.source, f"{number:g} °C is no temperature of a battery")


def _volts(reading: Reading) -> Reading:
    """Drivers that tell a voltage in another unit are a thousand times off."""
    number = reading.number
    if number is None or LOWEST_V <= number <= HIGHEST_V:
        return reading
    return unavailable(reading.unit, reading.source, f"{number:g} V is no voltage of a battery")


def screen(tree: Tree) -> Reading:
    """ "on" or "off"."""
    text = tree.get(POWER) or ""
    display = re.search(r"Display Power: state=(\w+)", text)
    awake = re.search(r"^\s*(?:mWakefulness|mWakefulnessRaw)=(\w+)", text, re.M)
    if display:
        return Reading("on" if display[1] == "ON" else "off", "", POWER)
    if awake:
        return Reading("on" if awake[1] in ("Awake", "Dreaming") else "off", "", POWER)
    return unavailable("", POWER, "it does not say" if text else tree.why(POWER))


def saver(tree: Tree) -> Reading:
    """Whether Android's battery saver, or a laptop's low-power profile, is on."""
    said, profile = tree.get(SAVER), tree.get(PROFILE)
    if said in ("0", "1"):
        return Reading(said == "1", "", SAVER)
    if profile:
        return Reading(profile == "low-power", "", PROFILE)
    return unavailable("", SAVER, tree.why(SAVER) if said is None else f"it says: {clip(said, 60)}")


@dataclass(frozen=True)
class Counter:
    """A counter of energy, in µJ: what it says, and after how much it begins again."""

    used: Reading
    range: Reading


def counters(tree: Tree) -> dict[str, Counter]:
    """The processor's counters of energy by zone and name, such as "intel-rapl:0 package-0"."""
    found = {}
    for folder in tree.folders(RAPL):
        name = tree.get(f"{folder}/name")
        paths = f"{folder}/energy_uj", f"{folder}/max_energy_range_uj"
        if name and any(path in tree.texts or path in tree.errors for path in paths):
            used, most = (tree.reading(path, "µJ", whole(tree.get(path) or ""), "a counter") for path in paths)
            found[f"{folder.rpartition('/')[2]} {clip(name, 40)}"] = Counter(used, most)
    return found


def energy(samples: Sequence[dict[str, Counter]]) -> dict[str, Reading]:
    """J that each counter of the first sample went up to the last, wrapped around at its range at most once between two
    samples."""
    found = {}
    for name, first in samples[0].items() if samples else ():
        source, said = first.used.source, [sample.get(name) for sample in samples]
        values = [one.used.value for one in said if one and type(one.used.value) is int]
        if len(values) < len(samples) or len(values) < 2:
            missing = next((one.used.why for one in said if one and one.used.why), "it was not read throughout")
            found[name] = unavailable("J", source, missing)
            continue
        numbers = [int(value) for value in values if value is not None]
        steps = [after - before for before, after in pairwise(numbers)]
        most = first.range.value
        if min(steps) < 0 and (type(most) is not int or most < max(numbers)):
            found[name] = unavailable("J", source, f"it began again, and its range is unavailable: {first.range.why}")
            continue
        joules = sum(step if step >= 0 else step + int(most or 0) for step in steps) / 1e6
        found[name] = Reading(joules, "J", source)
    return found
