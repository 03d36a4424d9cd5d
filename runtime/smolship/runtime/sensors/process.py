"""Memory of a process and of the machine, pressure, load, and how a process is scheduled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from smolship.runtime.errors import clip
from smolship.runtime.sensors.reading import Reading, unavailable, whole
from smolship.runtime.sensors.tree import Tree

MEMINFO = "/proc/meminfo"
IDLE_CLASS = 5  # SCHED_IDLE


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes of a process now, each with where it comes from.

    anonymous  its own, in memory
    file       pages of mapped files, in memory
    shared     shared memory, in memory
    swap       its own, swapped out, compressed memory among it
    resident   all that is in memory
    highest    `resident` at its highest since the process began, swap not counted
    """

    anonymous: Reading
    file: Reading
    shared: Reading
    swap: Reading
    resident: Reading
    highest: Reading


def process_memory(tree: Tree, pid: int | str = "self") -> ProcessMemory:
    status = f"/proc/{pid}/status"

    def line(name: str, zero: bool = False) -> Reading:
        value = _kilobytes(tree.get(status), name)
        if value == 0 and not zero:  # sandboxes say 0 for what they do not count
            return unavailable("bytes", f"{status}, {name}", f"{name} is 0, as of a system that does not count it")
        if value is None:
            return _missing(tree, status, name)
        return Reading(value, "bytes", f"{status}, {name}")

    counted = bool(_kilobytes(tree.get(status), "RssAnon"))
    return ProcessMemory(
        anonymous=line("RssAnon"),
        file=line("RssFile", zero=counted),
        shared=line("RssShmem", zero=counted),
        swap=line("VmSwap", zero=True),
        resident=line("VmRSS"),
        highest=line("VmHWM"),
    )


def peak(samples: Sequence[ProcessMemory]) -> Reading:
    """max(VmHWM, max(VmRSS + VmSwap)): memory that is compressed away is still needed."""
    highest = [n for one in samples if (n := one.highest.number) is not None]
    both = [resident + (one.swap.number or 0) for one in samples if (resident := one.resident.number) is not None]
    if not highest and not both:
        why = samples[-1].highest.why if samples else "no sample was taken"
        return unavailable("bytes", "/proc/PID/status", why)
    source = f"max(VmHWM, max(VmRSS + VmSwap)) of {len(samples)} samples"
    if not any(one.swap.number is not None for one in samples):
        source += ", VmSwap unavailable"
    if not highest:
        source += ", VmHWM unavailable"
    return Reading(int(max(highest + both)), "bytes", source)


def highest(readings: Sequence[Reading]) -> Reading:
    """The highest of the same reading over time; where none has a value, the last of them."""
    numbers = [(n, one) for one in readings if (n := one.number) is not None]
    if not numbers:
        return readings[-1] if readings else unavailable("bytes", "/proc/PID/status", "no sample was taken")
    return max(numbers, key=lambda pair: pair[0])[1]


def _kilobytes(text: str | None, name: str) -> int | None:
    found = re.search(rf"^{name}:\s*([0-9]{{1,15}}) kB\s*$", text or "", re.M)
    return int(found[1]) << 10 if found else None


def _missing(tree: Tree, path: str, name: str) -> Reading:
    return unavailable("bytes", f"{path}, {name}", f"no line {name}" if tree.get(path) else tree.why(path))


@dataclass(frozen=True)
class MachineMemory:
    """Bytes of the machine now. `available`: what a process can get without swapping."""

    total: Reading
    available: Reading
    swap_total: Reading
    swap_free: Reading


def machine_memory(tree: Tree) -> MachineMemory:
    def line(name: str, zero: bool = False) -> Reading:
        value = _kilobytes(tree.get(MEMINFO), name)
        if value is None or (value == 0 and not zero):
            return _missing(tree, MEMINFO, name) if value is None else unavailable("bytes", MEMINFO, f"{name} is 0")
        return Reading(value, "bytes", f"{MEMINFO}, {name}")

    return MachineMemory(line("MemTotal"), line("MemAvailable"), line("SwapTotal", True), line("SwapFree", True))


def pressure(tree: Tree) -> dict[str, Reading]:
    """% of the last 10 seconds in which something waited for the processor, memory or the disk."""
    found = {}
    for what in ("cpu", "memory", "io"):
        path = f"/proc/pressure/{what}"
        said = re.search(r"^some avg10=([0-9]{1,3}(?:\.[0-9]+)?) ", tree.get(path) or "", re.M)
        found[what] = tree.reading(path, "%", float(said[1]) if said else None, "a pressure")
    return found


def running(tree: Tree) -> Reading:
    """Threads that run or want to, at this moment; that which reads is one of them."""
    path = "/proc/loadavg"
    said = re.match(r"(?:[0-9.]+ ){3}([0-9]{1,6})/", tree.get(path) or "")
    return tree.reading(path, "threads", int(said[1]) if said else None, "a load")


@dataclass(frozen=True)
class Scheduling:
    """
    group       the control groups of the process
    background  whether one of them is for background work, or the process is scheduled for idle time only
    allowed     processors that it may use, as the kernel lists them
    nice        -20 to 19, higher is less
    """

    group: Reading
    background: Reading
    allowed: Reading
    nice: Reading


def scheduling(tree: Tree, pid: int | str = "self") -> Scheduling:
    status, stat, cgroup = (f"/proc/{pid}/{name}" for name in ("status", "stat", "cgroup"))
    groups = tree.get(cgroup)
    allowed = re.search(r"^Cpus_allowed_list:\s*([0-9,-]+)\s*$", tree.get(status) or "", re.M)
    # The name in parentheses may hold anything; fields 19 and 41 are the nice value and the class.
    fields = (tree.get(stat) or "").rpartition(")")[2].split()
    nice = whole(fields[16]) if len(fields) > 16 else None
    kind = whole(fields[38]) if len(fields) > 38 else None
    group = tree.reading(cgroup, "", clip("; ".join(groups.splitlines()), 300) if groups else None, "a group")
    if groups is None and kind is None:
        background = unavailable("", cgroup, tree.why(cgroup))
    else:
        background = Reading(_is_background(groups or "") or kind == IDLE_CLASS, "", f"{cgroup}, {stat}")
    return Scheduling(
        group=group,
        background=background,
        allowed=tree.reading(status, "", allowed[1] if allowed else None, "a list of processors"),
        nice=tree.reading(stat, "", nice if nice is not None and -20 <= nice <= 19 else None, "a nice value"),
    )


def _is_background(groups: str) -> bool:
    """Whether a group is one of Android's for background work, or systemd's slice for it."""
    parts = [part for line in groups.splitlines() for part in line.rpartition(":")[2].split("/")]
    return any(part in ("background", "system-background", "restricted", "background.slice", "bg") for part in parts)


def cores(listed: str) -> set[int]:
    """The numbers of a list such as "0-3,6"."""
    found: set[int] = set()
    for first, last in re.findall(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", listed):
        found |= set(range(int(first), int(last or first) + 1))
    return found
