"""What a device is: one script writes texts there, everything else happens here.

What cannot be read is None, and `missing` says why; it is never 0.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smolship.runtime.errors import SetupError, clip
from smolship.runtime.sensors.snapshot import EMULATORS, IDS, MODELS, SERIALS, emulator, first_told, identified
from smolship.runtime.sensors.tree import functions, value_of
from smolship.tools.devices.cores import CPU, Core, cpu_list, parse_cores, threads
from smolship.tools.devices.elf import Elf, page_size, parse_elf
from smolship.tools.devices.link import Link, LinkLost, device_path, quote
from smolship.tools.devices.meminfo import allowance, kilobytes, processors, zram
from smolship.tools.devices.mounts import Mount, free_bytes, mount_of
from smolship.tools.devices.pythons import PYTHON, PYTHONS, Python, read_libc, read_pythons

FOLDERS = ("~/.cache/smolship", "/data/local/tmp/smolship", "/var/tmp/smolship", "/tmp/smolship")
NAMES = (
    "sha256sum shasum openssl cksum od dd df tar gzip python3 pip3 setsid timeout taskset nice renice ionice ps "
    "getconf ldd busybox toybox vcgencmd dumpsys getprop settings llama-bench llama-server"
)
TOOLS = tuple(NAMES.split())
LIMIT_S = 60.0
MOST = 16 << 20  # bytes of all texts
SIZE = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True)
class Folder:
    """A folder that might take our files. `why` is empty where a program ran in it; `free`: bytes."""

    path: str
    why: str
    free: int | None
    mount: Mount | None

    def __str__(self) -> str:
        free = "unavailable" if self.free is None else f"{self.free:,}"
        return f"{self.path}: {self.why or 'good'}, {free} bytes free, {self.mount or 'mount unavailable'}"


@dataclass(frozen=True)
class DeviceFacts:
    """
    machine      of /bin/sh's ELF header, such as "aarch64"; bits: 32 or 64; loader: its interpreter
    kernel_machine  what uname says, which is the kernel's
    page_size    bytes
    libc         such as ("glibc", "2.36")
    pythons      the first is the best: python3, else the newest
    memory_*     bytes; `memory_allowance`: what the session may still take, and which limit says so, where one does
    zram_total   of the swap, that lies in memory
    quota        of how many processors the session has the time, and which control group says so, where one does
    online, allowed  numbers of cores; threads: how many a run takes where nothing else is said
    identity     the board's serial number, else the machine's id; identity_of: which
    label        the host name: cards are cloned, so it names no device
    emulated     by Android's own word, or since a user-mode emulator runs its shell; None where neither says
    clock_s      that the device's clock is ahead of this machine's
    tools        absolute path by name, None where it was not found in `searched`
    missing      the reason for each reading that is None
    """

    machine: str | None
    bits: int | None
    loader: str | None
    kernel_machine: str | None
    kernel: str | None
    page_size: int | None
    libc: tuple[str, str | None] | None
    pythons: tuple[Python, ...]
    memory_total: int | None
    memory_available: int | None
    swap_total: int | None
    memory_allowance: tuple[int, str] | None
    zram_total: int | None
    quota: tuple[float, str] | None
    cores: tuple[Core, ...]
    online: tuple[int, ...] | None
    allowed: tuple[int, ...] | None
    threads: int | None
    model: str | None
    soc: str | None
    system: str | None
    identity: str | None
    identity_of: str | None
    label: str | None
    boot_id: str | None
    emulated: bool | None
    clock_s: float | None
    tools: dict[str, str | None]
    searched: str
    folders: tuple[Folder, ...]
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Python | None:
        return self.pythons[0] if self.pythons else None

    def most_threads(self) -> int | None:
        """How many a run may take at most."""
        usable = [n for n in self.online or self.allowed or () if self.allowed is None or n in self.allowed]
        return len(usable) or len(self.cores) or None

    def good_folders(self, uri: str) -> list[Folder]:
        """Those that run programs and are not in memory, in their order. Raises SetupError with all that were tried
        where there is none."""
        found = [one for one in self.folders if not one.why and not (one.mount and one.mount.in_memory)]
        if found:
            return found
        raise SetupError(
            f"{uri}: probe: no folder on the device can take our files",
            got="; ".join(map(str, self.folders)) or "no folder was tried",
            expected="a folder that is not in memory, where programs may run",
            todo=f"make one on a file system without noexec, and name it: {uri}/FOLDER",
        )


def read_device(link: Link, folders: Sequence[str] = FOLDERS) -> DeviceFacts:
    """Ask a device. `folders` are tried in this order, by running a program there and loading a library; "~/" is the
    user's home.

    Raises SetupError where the answer is none, and what the link raises."""
    texts: list[str] = []
    arrived: list[float] = []
    size = 0

    def take(line: bytes) -> None:
        nonlocal size
        size += len(line)
        if size > MOST:
            raise SetupError(f"{link.uri}: probe: the device says too much", expected=f"at most {MOST:,} bytes")
        text = line.decode("utf-8", "replace")
        if text.startswith("=date\t"):
            arrived.append(time.time())
        texts.append(text)

    try:
        done = link.run(script(folders), lines=take, limit_s=LIMIT_S)
    except LinkLost:
        raise
    except SetupError as error:
        raise _stuck(link.uri, error, texts) from None
    tree, reasons = parse_texts(texts)
    if "end" not in tree:
        said = clip(done.err.decode("utf-8", "replace")) or f"{len(texts)} lines, status {done.status}"
        raise SetupError(f"{link.uri}: probe: the device did not say what it is", got=said, expected="a POSIX shell")
    return parse_facts(tree, reasons, arrived[0] if arrived else time.time())


def _stuck(uri: str, error: SetupError, texts: Sequence[str]) -> SetupError:
    """The refusal of a device on which something cannot be read to its end, such as a sensor whose driver hangs."""
    last = clip(texts[-1][1:].partition("\t")[0], 120) if texts else ""
    return SetupError(
        f"{uri}: probe: the device did not say what it is",
        got=f"{error.parts()['got'] or error}; " + (f"the last that it told was {last}" if last else "it told nothing"),
        expected=f"all of it within {LIMIT_S:.0f} s",
        todo="see there what takes so long behind that: a file whose reading hangs, or a program" if last else None,
    )


def script(folders: Sequence[str]) -> str:
    """The script that writes the texts."""
    for folder in folders:
        device_path(folder.removeprefix("~"))
    lists = {"folders": " ".join(folders), "tools": " ".join(TOOLS), "pythons": " ".join(PYTHONS), "python": PYTHON}
    texts = functions(), (Path(__file__).parent / "probe.sh").read_text()
    return "".join([*(f"{name}={quote(value)}\n" for name, value in lists.items()), *texts])


def parse_texts(lines: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Texts by name, and reasons of those that there are none of. NUL and CR are taken out."""
    kept: dict[str, list[str]] = {}
    reasons = {}
    for line in lines:
        kind, (name, tab, text) = line[:1], line[1:].partition("\t")
        text = text.replace("\0", "").replace("\r", "").rstrip()
        if kind == "=" and tab:
            kept.setdefault(name, []).append(text)
        elif kind == "!" and tab:
            reasons[name] = clip(text, 200)
    return {name: value_of(name, "\n".join(texts).strip("\n")) for name, texts in kept.items()}, reasons


def parse_facts(texts: Mapping[str, str], reasons: Mapping[str, str], host_time: float) -> DeviceFacts:
    """
    texts, reasons  of `parse_texts`
    host_time       seconds since 1970 at which the device's date arrived
    """
    missing: dict[str, str] = {}

    def need(name: str, value: Any, *sources: str) -> Any:
        """`value`; where it is None, the reason is that of the sources."""
        if value is None:
            said = [
                f"{source}: {reasons.get(source) or ('not as expected' if source in texts else 'no answer')}"
                for source in sources
            ]
            missing[name] = clip("; ".join(said), 400)
        return value

    elf = parse_elf(_bytes(texts.get("elf", "")))
    online, allowed = (
        cpu_list(texts.get(f"{CPU}/online")),
        cpu_list(_value(texts, "/proc/self/status", "Cpus_allowed_list")),
    )
    cores = tuple(parse_cores(texts))
    most, quota = threads(cores, online, allowed), processors(texts)
    libc = read_libc(texts, elf)
    identity, identity_of = identified(texts) or (None, None)
    model = first_told(texts, MODELS) or (_value(texts, "/proc/cpuinfo", "Model"),)
    date = texts.get("date", "")
    emulated = bool(re.search(r"(^|/)qemu-", texts.get("exe", "")) or emulator(texts)) or (
        False if any(name in texts for name in EMULATORS) else None
    )
    mounts = texts.get("/proc/mounts", "")
    return DeviceFacts(
        machine=need("machine", elf and elf.machine, "elf"),
        bits=need("bits", elf and elf.bits, "elf"),
        loader=need("loader", elf and elf.interpreter, "elf"),
        kernel_machine=need("kernel_machine", texts.get("$ uname -m"), "$ uname -m"),
        kernel=need("kernel", texts.get("/proc/sys/kernel/osrelease") or texts.get("$ uname -r"), "$ uname -r"),
        page_size=need("page_size", _page(texts, elf), "$ getconf PAGESIZE", "/proc/self/auxv"),
        libc=need("libc", libc, "elf", "$ ldd --version"),
        pythons=tuple(read_pythons(texts, libc)) or need("python", None, "tool python3") or (),
        memory_total=need("memory_total", kilobytes(texts, "MemTotal"), "/proc/meminfo"),
        memory_available=need("memory_available", kilobytes(texts, "MemAvailable"), "/proc/meminfo"),
        swap_total=need("swap_total", kilobytes(texts, "SwapTotal"), "/proc/meminfo"),
        memory_allowance=allowance(texts),
        zram_total=need("zram_total", zram(texts), "/proc/swaps"),
        quota=quota,
        cores=cores or need("cores", None, "/proc/cpuinfo") or (),
        online=need("online", online, f"{CPU}/online"),
        allowed=need("allowed", allowed, "/proc/self/status"),
        threads=need("threads", most and min(most, math.ceil(quota[0]) if quota else most), "/proc/cpuinfo"),
        model=need("model", model[0], *MODELS),
        soc=need("soc", _soc(texts), "$ getprop ro.soc.model", *NAMES_OF_TREE),
        system=need("system", _system(texts), "/etc/os-release", "$ getprop ro.build.version.release"),
        identity=need("identity", identity, *SERIALS, *IDS),
        identity_of=identity_of,
        label=need("label", texts.get("/proc/sys/kernel/hostname"), "/proc/sys/kernel/hostname"),
        boot_id=need("boot_id", texts.get("/proc/sys/kernel/random/boot_id"), "/proc/sys/kernel/random/boot_id"),
        emulated=need("emulated", emulated, *EMULATORS),
        clock_s=need("clock_s", int(date) + 0.5 - host_time if re.fullmatch(r"[0-9]{1,12}", date) else None, "date"),
        tools={name: texts.get(f"tool {name}") for name in TOOLS},
        searched=texts.get("PATH", ""),
        folders=tuple(_folders(texts, reasons, mounts)),
        missing=missing,
    )


NAMES_OF_TREE = ("/proc/device-tree/compatible", "/sys/firmware/devicetree/base/compatible")


def _soc(texts: Mapping[str, str]) -> str | None:
    """The last of a device tree's names is that of the chip, such as "brcm,bcm2712"."""
    words = next((texts[name] for name in NAMES_OF_TREE if texts.get(name)), "").split()
    return texts.get("$ getprop ro.soc.model") or (words[-1] if words else _value(texts, "/proc/cpuinfo", "Hardware"))


def _value(texts: Mapping[str, str], name: str, key: str) -> str | None:
    found = re.search(rf"^{re.escape(key)}\s*[:=]\s*(.+)$", texts.get(name, ""), re.MULTILINE)
    return found[1].strip() if found else None


def _bytes(text: str) -> bytes:
    digits = "".join(text.split())
    return bytes.fromhex(digits) if re.fullmatch(r"([0-9a-fA-F]{2})*", digits) else b""


def _page(texts: Mapping[str, str], elf: Elf | None) -> int | None:
    said = texts.get("$ getconf PAGESIZE", "")
    if SIZE.fullmatch(said) and int(said) >= 4096:
        return int(said)
    return page_size(_bytes(texts.get("/proc/self/auxv", "")), elf.bits if elf else 64)


def _system(texts: Mapping[str, str]) -> str | None:
    if android := texts.get("$ getprop ro.build.version.release"):
        return f"Android {android}"
    return (_value(texts, "/etc/os-release", "PRETTY_NAME") or "").strip("\"'") or None


def _folders(texts: Mapping[str, str], reasons: Mapping[str, str], mounts: str) -> Iterator[Folder]:
    for path in texts.get("tried", "").splitlines():
        why = "" if texts.get(f"folder {path}") == "runs" else reasons.get(f"folder {path}", "no answer")
        real = texts.get(f"real {path}") or path
        yield Folder(path, why, free_bytes(texts.get(f"df {path}", "")), mount_of(real, mounts))
