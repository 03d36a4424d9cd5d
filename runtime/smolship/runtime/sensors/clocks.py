"""Clocks of the processor: groups of cores that share one, their governors, and what they are capped to."""

from __future__ import annotations

from dataclasses import dataclass

from smolship.runtime.sensors.reading import Reading, unavailable, whole
from smolship.runtime.sensors.tree import POLICIES, Tree

PER_CORE = "/sys/devices/system/cpu/cpu*/cpufreq"
EMPTY = "EMPTY"  # the reason of a dump where a file has nothing
CAP = 0.15  # of the hardware's highest clock: more is taken from a run that nobody can compare
# Their "powersave" is the usual one, which follows the load.
DYNAMIC = frozenset({"intel_pstate", "amd-pstate-epp", "amd_pstate_epp"})


@dataclass(frozen=True)
class Policy:
    """Cores that share a clock.

    cpus            their numbers, as the kernel lists them
    hardware_max    kHz that they can
    hardware_min
    cap             kHz that they may now, at most
    floor           and at least
    current         kHz now
    governor        what chooses
    driver          what sets
    """

    cpus: Reading
    hardware_max: Reading
    hardware_min: Reading
    cap: Reading
    floor: Reading
    current: Reading
    governor: Reading
    driver: Reading

    @property
    def taken(self) -> float | None:
        """The share of the hardware's highest clock that the cap takes."""
        highest, cap = self.hardware_max.number, self.cap.number
        return None if not highest or cap is None else max(0.0, round(1 - cap / highest, 6))

    @property
    def offline(self) -> bool:
        """Whether all of its cores are switched off: the kernel then lists none."""
        return self.cpus.value is None and self.cpus.why in (EMPTY, f"not a text: {''!r}")

    @property
    def slow(self) -> bool:
        """Whether its governor keeps it at its lowest clock."""
        return self.governor.value == "powersave" and self.driver.value not in DYNAMIC


def policies(tree: Tree) -> dict[str, Policy]:
    """By name, such as "policy0"; "cpu0" where the kernel only shows each core. Empty where it shows no clock."""
    folders = tree.folders(POLICIES)
    if folders:
        return {folder.rpartition("/")[2]: _policy(tree, folder) for folder in folders}
    found, seen = {}, set()
    for folder in tree.folders(PER_CORE):
        shared = tree.get(f"{folder}/affected_cpus")
        if not shared or shared not in seen:
            seen.add(shared)
            found[folder.split("/")[-2]] = _policy(tree, folder)
    return found


def _policy(tree: Tree, folder: str) -> Policy:
    def clock(name: str) -> Reading:
        number = whole(tree.get(f"{folder}/{name}") or "")
        return tree.reading(f"{folder}/{name}", "kHz", number if number and number > 0 else None, "a clock")

    def text(name: str) -> Reading:
        return tree.reading(f"{folder}/{name}", "", tree.get(f"{folder}/{name}") or None, "a text")

    return Policy(
        cpus=text("affected_cpus"),
        hardware_max=clock("cpuinfo_max_freq"),
        hardware_min=clock("cpuinfo_min_freq"),
        cap=clock("scaling_max_freq"),
        floor=clock("scaling_min_freq"),
        current=clock("scaling_cur_freq"),
        governor=text("scaling_governor"),
        driver=text("scaling_driver"),
    )


def governor(found: dict[str, Policy]) -> Reading:
    """The governors of all policies in one text: one name where they agree."""
    said = {name: policy.governor for name, policy in found.items()}
    names = dict.fromkeys(str(one.value) for one in said.values() if one.value)
    source = f"{POLICIES}scaling_governor"
    if not names:
        whys = [one.why for one in said.values()]
        return unavailable("", source, whys[0] if whys else "the kernel shows no clocks")
    each = ", ".join(f"{name} {one.value or 'unavailable'}" for name, one in said.items())
    return Reading(next(iter(names)) if len(names) == 1 else each, "", source)
