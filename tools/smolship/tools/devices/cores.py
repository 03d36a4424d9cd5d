"""Processors of a device: what each core is, which ones a run may use, and how many threads it takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BIG_CAPACITY = 0.5  # of the largest: little cores are at 0.25 to 0.45, medium ones above 0.6
BIG_CLOCK = 0.8  # of the highest: little cores are at 0.6 to 0.75; cores of one kind that boost differ less
CPU = "/sys/devices/system/cpu"
IMPLEMENTERS = {0x41: "Arm", 0x42: "Broadcom", 0x48: "HiSilicon", 0x4E: "NVIDIA", 0x51: "Qualcomm", 0x53: "Samsung"}
IMPLEMENTERS |= {0x61: "Apple", 0xC0: "Ampere"}
ARM = {
    0xC07: "Cortex-A7", 0xC08: "Cortex-A8", 0xC09: "Cortex-A9", 0xC0F: "Cortex-A15", 0xD03: "Cortex-A53",
    0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72", 0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77", 0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE", 0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710",
    0xD48: "Cortex-X2", 0xD49: "Neoverse-N2", 0xD4B: "Cortex-A78C", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3",
    0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520", 0xD81: "Cortex-A720", 0xD82: "Cortex-X4", 0xD85: "Cortex-X925",
    0xD87: "Cortex-A725",
}  # fmt: skip


@dataclass(frozen=True)
class Core:
    """
    part      such as "Cortex-A76", or the model's name; None: unavailable
    features  as the kernel names them, such as "asimddp"
    capacity  1,024 for the fastest of the device; max_khz: its highest clock. None: the device does not say
    """

    number: int
    part: str | None
    features: tuple[str, ...]
    capacity: int | None
    max_khz: int | None


def cpu_list(text: str | None) -> tuple[int, ...] | None:
    """The numbers of a kernel's list, such as "0-3,6"; None where it is none."""
    part = r"[0-9]{1,4}(-[0-9]{1,4})?"
    if text is None or len(text) > 4096 or not re.fullmatch(f"{part}(,{part})*", text.strip()):
        return None
    found: set[int] = set()
    for numbers in text.strip().split(","):
        first, _, last = numbers.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def parse_cores(texts: Mapping[str, str]) -> list[Core]:
    """Cores by number, from the texts of /proc/cpuinfo and of files below /sys/devices/system/cpu."""
    rows, shared = _cpuinfo(texts.get("/proc/cpuinfo", ""))
    numbers = set(rows) | set(cpu_list(texts.get(f"{CPU}/online")) or ())
    numbers |= {int(found[1]) for path in texts if (found := re.match(rf"{CPU}/cpu(\d+)/", path))}
    cores = []
    for number in sorted(numbers):
        row = shared | rows.get(number, {})
        features = (row.get("features") or row.get("flags") or row.get("isa") or "").split()
        midr = _number(texts.get(f"{CPU}/cpu{number}/regs/identification/midr_el1"), 16)
        cores.append(
            Core(
                number,
                _part(row, midr),
                tuple(features),
                _number(texts.get(f"{CPU}/cpu{number}/cpu_capacity")),
                _number(texts.get(f"{CPU}/cpu{number}/cpufreq/cpuinfo_max_freq")),
            )
        )
    return cores


def threads(cores: Sequence[Core], online: Sequence[int] | None, allowed: Sequence[int] | None) -> int | None:
    """How many threads a run takes where nothing else is said: the big cores of those that it may use, by capacity,
    else by their highest clock; all where they are alike. None where no core is known."""
    usable = [core for core in cores if online is None or core.number in online]
    usable = [core for core in usable if allowed is None or core.number in allowed]
    for share, values in (
        (BIG_CAPACITY, [core.capacity for core in usable]),
        (BIG_CLOCK, [core.max_khz for core in usable]),
    ):
        known = [value for value in values if value]
        if known and len(known) == len(values):
            return sum(value >= share * max(known) for value in known)
    return len(usable) or None


# What engines choose their kernels by, and die of where they choose wrongly.
TOLD = ("asimd", "asimddp", "i8mm", "sve", "sve2", "bf16", "atomics", "fphp", "asimdhp", "avx2", "avx512f", "avx_vnni")


def processor(cores: Sequence[Core]) -> str:
    """The kinds of cores, each with those of their features that engines choose by, and Arm's that it lacks."""
    kinds = dict.fromkeys((core.part or "a processor without a name", core.features) for core in cores)
    said = []
    for part, features in kinds:
        has = [name for name in TOLD if name in features]
        lacks = [name for name in ("asimddp", "i8mm", "sve", "atomics") if name not in features and "asimd" in features]
        words = ([f"with {', '.join(has)}"] if has else []) + ([f"without {', '.join(lacks)}"] if lacks else [])
        said.append(f"{part} ({'; '.join(words) or 'features unavailable'})")
    return ", ".join(said)


def _cpuinfo(text: str) -> tuple[dict[int, dict[str, str]], dict[str, str]]:
    """Rows by core, and what is said once for all of them; keys in small letters."""
    rows: dict[int, dict[str, str]] = {}
    shared: dict[str, str] = {}
    current = shared
    for line in text.splitlines():
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not line.strip():
            current = shared
        elif key == "processor" and re.fullmatch(r"[0-9]{1,5}", value):
            current = rows.setdefault(int(value), {})
        elif colon:
            current.setdefault(key.lower(), value)
    return rows, shared


def _part(row: Mapping[str, str], midr: int | None) -> str | None:
    implementer, part = _number(row.get("cpu implementer"), 16), _number(row.get("cpu part"), 16)
    if (implementer is None or part is None) and midr is not None:
        implementer, part = midr >> 24 & 0xFF, midr >> 4 & 0xFFF
    if implementer is not None and part is not None:
        maker = IMPLEMENTERS.get(implementer, f"implementer {implementer:#x}")
        return ARM.get(part, f"{maker} part {part:#x}") if implementer == 0x41 else f"{maker} part {part:#x}"
    return row.get("model name") or row.get("cpu model") or row.get("uarch") or row.get("hart isa")


def _number(text: str | None, base: int = 10) -> int | None:
    try:
        return int((text or "").strip(), base)
    except ValueError:
        return None
