"""Memory of a device and the time of its processors, from its texts: what the machine has, and what the session that
we get there may take of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from smolship.runtime.sensors.reading import whole

# Of control groups, version 2 and 1: what a group may take, and the file that says what it takes.
LIMITS = {
    "memory.max": "memory.current",
    "memory.high": "memory.current",
    "memory.limit_in_bytes": "memory.usage_in_bytes",
}
NONE = 1 << 60  # bytes from which on version 1 means no limit; version 2 says "max"
ADDRESSES = "/proc/self/limits"


def kilobytes(texts: Mapping[str, str], key: str) -> int | None:
    """A line of /proc/meminfo, in bytes."""
    found = re.search(rf"^{key}\s*:\s*([0-9]{{1,15}}) kB\s*$", texts.get("/proc/meminfo", ""), re.M)
    return int(found[1]) * 1024 if found else None


def zram(texts: Mapping[str, str]) -> int | None:
    """Bytes of the swaps that lie in memory."""
    rows = [line.split() for line in texts.get("/proc/swaps", "").splitlines()]
    if not rows or rows[0][:1] != ["Filename"]:
        return None
    sizes = [row[2] for row in rows[1:] if len(row) > 2 and "zram" in row[0] and re.fullmatch(r"[0-9]{1,15}", row[2])]
    return sum(int(size) * 1024 for size in sizes)


def allowance(texts: Mapping[str, str]) -> tuple[int, str] | None:
    """What processes of the session may still take, and which limit says so: the tightest of its control groups' and
    of `ulimit -v`. None where nothing limits them."""
    return min(_allowances(texts), default=None)


def _allowances(texts: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    for path, text in texts.items():
        folder, _, name = path.rpartition("/")
        most = whole(text) if name in LIMITS else None
        if most is not None and most < NONE:
            used = whole(texts.get(f"{folder}/{LIMITS[name]}", "")) or 0
            yield max(0, most - max(0, used - _cached(texts.get(f"{folder}/memory.stat", "")))), path
    found = re.search(r"^Max address space +([0-9]{1,19}) ", texts.get(ADDRESSES, ""), re.M)
    if found:
        yield int(found[1]), "ulimit -v"


def processors(texts: Mapping[str, str]) -> tuple[float, str] | None:
    """Of how many processors the session has the time, and which control group says so; None where none does."""
    found = []
    for path, text in texts.items():
        folder, _, name = path.rpartition("/")
        words = text.split() if name == "cpu.max" else [text, texts.get(f"{folder}/cpu.cfs_period_us", "")]
        if name in ("cpu.max", "cpu.cfs_quota_us") and len(words) == 2:
            quota, period = map(whole, words)
            if quota and period and quota > 0 and period > 0:
                found.append((quota / period, path))
    return min(found, default=None)


def _cached(stat: str) -> int:
    """Bytes of files that the kernel gives back when others want them; version 1 counts its own and all of them."""
    return max(map(int, re.findall(r"^(?:total_)?inactive_file ([0-9]{1,15})$", stat, re.M)), default=0)
