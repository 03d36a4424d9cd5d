"""What a device is, from texts as devices give them, and from this machine."""

from __future__ import annotations

import os
import platform
import struct
import sys
import time
from pathlib import Path

import pytest

from smolship.runtime.errors import SetupError
from smolship.tools.devices.channel import unfinished
from smolship.tools.devices.cores import cpu_list, parse_cores, threads
from smolship.tools.devices.elf import page_size, parse_elf
from smolship.tools.devices.facts import DeviceFacts, parse_facts, parse_texts, read_device
from smolship.tools.devices.opening import limited
from smolship.tools.devices.pythons import wheel_platforms
from tests.tools.test_store import Here

NOW = 1_780_000_000.0
CPU = "/sys/devices/system/cpu"


def elf(machine: int, bits: int, interpreter: str = "", order: str = "<") -> str:
    """The first bytes of a program, as `od` prints them."""
    wide, name = bits == 64, interpreter.encode() + b"\0"
    table = 64 if wide else 52
    start = table + (56 if wide else 32)
    head = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    if wide:
        head += struct.pack(order + "HHIQQQIHHHHHH", 3, machine, 1, 0, table, 0, 0, 64, 56, 1, 64, 0, 0)
        head += struct.pack(order + "IIQQQQQQ", 3 if interpreter else 1, 4, start, 0, 0, len(name), len(name), 1)
    else:
        head += struct.pack(order + "HHIIIIIHHHHHH", 3, machine, 1, 0, table, 0, 0, 52, 32, 1, 40, 0, 0)
        head += struct.pack(order + "IIIIIIII", 3 if interpreter else 1, start, 0, 0, len(name), len(name), 4, 1)
    return "\n".join(
        " " + " ".join(f"{byte:02x}" for byte in (head + name)[at : at + 16]) for at in range(0, len(head + name), 16)
    )


def arm_cores(parts: list[int], features: str, implementer: int = 0x41) -> str:
    return "\n".join(
        f"processor\t: {number}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: {implementer:#x}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part:#x}\nCPU revision\t: 3\n"
        for number, part in enumerate(parts)
    )


def facts(texts: dict[str, str], reasons: dict[str, str] | None = None) -> DeviceFacts:
    """By the lines that the script would print."""
    lines = [f"={name}\t{line}" for name, text in texts.items() for line in text.split("\n")]
    lines += [f"!{name}\t{reason}" for name, reason in (reasons or {}).items()]
    return parse_facts(*parse_texts(lines), NOW)


PI4 = {
    "date": str(int(NOW) - 90),
    "PATH": "/usr/bin:/bin:/usr/sbin:/sbin:/opt/vc/bin",
    "elf": elf(183, 64, "/lib/ld-linux-aarch64.so.1"),
    "/proc/sys/kernel/osrelease": "6.12.34+rpt-rpi-v8",
    "/proc/sys/kernel/hostname": "raspberrypi",
    "/proc/sys/kernel/random/boot_id": "735f1b47-5660-4085-9284-94eb3f878c64",
    "$ uname -m": "aarch64",
    "$ getconf PAGESIZE": "4096",
    "$ getconf GNU_LIBC_VERSION": "glibc 2.36",
    "/proc/meminfo": "MemTotal:        3884344 kB\nMemFree:          223000 kB\nMemAvailable:    3204100 kB\n"
    "SwapTotal:        524284 kB\nSwapFree:         524284 kB",
    "/proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    "/var/swap                               file\t\t524284\t\t0\t\t-2",
    "/proc/cpuinfo": arm_cores([0xD08] * 4, "fp asimd evtstrm crc32 cpuid")
    + "\nHardware\t: BCM2835\nRevision\t: c03115\n"
    "Serial\t\t: 10000000abcdef01\nModel\t\t: Raspberry Pi 4 Model B Rev 1.5",
    "/proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.5\0",
    "/proc/device-tree/serial-number": "10000000abcdef01\0",
    "/proc/device-tree/compatible": "raspberrypi,4-model-b brcm,bcm2711 ",
    f"{CPU}/online": "0-3",
    "/proc/self/status": "Name:\tsh\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3",
    **{f"{CPU}/cpu{n}/cpufreq/cpuinfo_max_freq": "1800000" for n in range(4)},
    "/etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"',
    "/etc/machine-id": "3d1219c7c4c5404aaa1f6d2a48adfda4",
    "tool vcgencmd": "/usr/bin/vcgencmd",
    "python python3": '{"executable": "/usr/bin/python3", "version": [3, 11, 2], "implementation": "cpython", '
    '"platform": "linux-aarch64", '
    '"soabi": "cpython-311-aarch64-linux-gnu", "bits": 64, "free_threaded": false, '
    '"pip": false, "ensurepip": false, "venv": true, "managed": true}',
    "/proc/mounts": "/dev/mmcblk0p2 / ext4 rw,noatime 0 0\ntmpfs /tmp tmpfs rw,nosuid,nodev 0 0\n"
    "/dev/sda1 /var/tmp ext4 rw,noexec 0 0",
    "tried": "/home/pi/.cache/smolship\n/var/tmp/smolship\n/tmp/smolship",
    "folder /home/pi/.cache/smolship": "runs",
    "folder /tmp/smolship": "runs",
    "real /home/pi/.cache/smolship": "/home/pi/.cache/smolship",
    "df /home/pi/.cache/smolship": "Filesystem 1024-blocks Used Available Capacity Mounted on\n"
    "/dev/root 30000000 20000000 1000000 96% /",
    "df /tmp/smolship": "Filesystem 1024-blocks Used Available Capacity Mounted on\ntmpfs 9000000 0 9000000 0% /tmp",
}

PYTHON = PI4["python python3"]


def test_a_pi_4() -> None:
    found = facts(PI4, {"folder /var/tmp/smolship": "Permission denied", "tool dumpsys": "not in PATH"})
    assert (found.machine, found.bits, found.loader) == ("aarch64", 64, "/lib/ld-linux-aarch64.so.1")
    assert (found.page_size, found.libc, found.kernel) == (4096, ("glibc", "2.36"), "6.12.34+rpt-rpi-v8")
    assert (found.memory_total, found.memory_available) == (3884344 * 1024, 3204100 * 1024)
    assert (found.swap_total, found.zram_total) == (524284 * 1024, 0)
    assert [core.part for core in found.cores] == ["Cortex-A72"] * 4 and "asimddp" not in found.cores[0].features
    assert (found.threads, found.most_threads(), found.online, found.allowed) == (4, 4, (0, 1, 2, 3), (0, 1, 2, 3))
    assert (found.model, found.soc) == ("Raspberry Pi 4 Model B Rev 1.5", "brcm,bcm2711")
    assert (found.identity, found.identity_of) == ("10000000abcdef01", "/proc/device-tree/serial-number")
    assert (found.label, found.system) == ("raspberrypi", "Debian GNU/Linux 12 (bookworm)")
    assert found.clock_s == -89.5 and found.boot_id == "735f1b47-5660-4085-9284-94eb3f878c64"
    assert (
        found.python
        and found.python.path == "/usr/bin/python3"
        and found.python.tag == "cp311"
        and found.python.managed
    )
    assert found.python.platforms[0] == "manylinux_2_36_aarch64" and found.python.platforms[-2:] == (
        "manylinux2014_aarch64",
        "linux_aarch64",
    )
    assert (
        found.tools["vcgencmd"] == "/usr/bin/vcgencmd"
        and found.tools["dumpsys"] is None
        and "/opt/vc/bin" in found.searched
    )
    assert [one.path for one in found.good_folders("ssh://pi")] == ["/home/pi/.cache/smolship"]
    none = facts(PI4 | {"folder /home/pi/.cache/smolship": "no"}, {"folder /var/tmp/smolship": "Permission denied"})
    with pytest.raises(SetupError) as error:  # /tmp lies in memory
        none.good_folders("ssh://pi")
    for word in ("1,024,000,000 bytes free", "noexec", "Permission denied", "tmpfs on /tmp", "ssh://pi/FOLDER"):
        assert word in str(error.value)


GROUP = "/sys/fs/cgroup/user.slice/user-1000.slice"
V1 = "/sys/fs/cgroup/memory/docker/0123"


@pytest.mark.parametrize(
    ("texts", "left"),
    [
        ({}, None),
        ({f"{GROUP}/memory.max": "max", f"{GROUP}/memory.current": "5"}, None),
        ({f"{GROUP}/memory.max": "1000", f"{GROUP}/memory.current": "300"}, (700, f"{GROUP}/memory.max")),
        (
            {f"{GROUP}/memory.max": "1000", f"{GROUP}/memory.high": "800", f"{GROUP}/memory.current": "300"}
            | {"/sys/fs/cgroup/user.slice/memory.max": "900"},
            (500, f"{GROUP}/memory.high"),
        ),
        (
            {f"{GROUP}/memory.max": "1000", f"{GROUP}/memory.current": "900"}
            | {f"{GROUP}/memory.stat": "anon 1\ninactive_file 600\nactive_file 7"},
            (700, f"{GROUP}/memory.max"),
        ),
        ({f"{GROUP}/memory.max": "100", f"{GROUP}/memory.current": "101"}, (0, f"{GROUP}/memory.max")),
        (
            {f"{V1}/memory.limit_in_bytes": "9223372036854771712", f"{V1}/memory.usage_in_bytes": "5"}
            | {"/proc/self/limits": "Max cpu time 1 2 seconds\nMax address space   4000   8000  bytes"},
            (4000, "ulimit -v"),
        ),
        (
            {f"{V1}/memory.limit_in_bytes": "1000", f"{V1}/memory.usage_in_bytes": "900"}
            | {f"{V1}/memory.stat": "inactive_file 1\ntotal_inactive_file 400"},
            (500, f"{V1}/memory.limit_in_bytes"),
        ),
        ({"/proc/self/limits": "Max address space     unlimited            unlimited            bytes"}, None),
        ({f"{GROUP}/memory.max": "9" * 5000, f"{V1}/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_memory_that_a_session_may_take(texts: dict[str, str], left: tuple[int, str] | None) -> None:
    assert facts(PI4 | texts).memory_allowance == left


@pytest.mark.parametrize(
    ("texts", "quota", "count"),
    [
        ({f"{GROUP}/cpu.max": "max 100000"}, None, 4),
        ({f"{GROUP}/cpu.max": "150000 100000"}, (1.5, f"{GROUP}/cpu.max"), 2),
        ({f"{GROUP}/cpu.max": "50000 100000", "/sys/fs/cgroup/cpu.max": "800000 100000"}, (0.5, f"{GROUP}/cpu.max"), 1),
        ({f"{GROUP}/cpu.max": "800000 100000"}, (8.0, f"{GROUP}/cpu.max"), 4),
        ({f"{V1}/cpu.cfs_quota_us": "-1", f"{V1}/cpu.cfs_period_us": "100000"}, None, 4),
        ({f"{V1}/cpu.cfs_quota_us": "200000", f"{V1}/cpu.cfs_period_us": "100000"}, (2.0, f"{V1}/cpu.cfs_quota_us"), 2),
        ({f"{GROUP}/cpu.max": "1 0", f"{V1}/cpu.cfs_quota_us": "5"}, None, 4),
        ({f"{GROUP}/cpu.max": "9" * 40}, None, 4),
    ],
)
def test_time_of_processors_that_a_session_may_take(
    texts: dict[str, str], quota: tuple[float, str] | None, count: int
) -> None:
    found = facts(PI4 | texts)
    assert (found.quota, found.threads) == (quota, count)
    assert [one.split()[1] for one in limited("ssh://pi", found)] == ([quota[1]] if quota else [])


def test_a_pi_5_has_pages_of_16_kb_and_no_serial_in_cpuinfo() -> None:
    texts = PI4 | {
        "$ getconf PAGESIZE": "16384",
        "/proc/cpuinfo": arm_cores(
            [0xD0B] * 4,
            "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
        ),
        "/proc/device-tree/compatible": "raspberrypi,5-model-b brcm,bcm2712",
        "/proc/swaps": "Filename Type Size Used Priority\n/dev/zram0 partition 2097136 0 100",
    }
    del texts["/proc/device-tree/serial-number"]
    found = facts(texts)
    assert found.page_size == 16384 and found.cores[3].part == "Cortex-A76" and "asimddp" in found.cores[0].features
    assert (found.zram_total, found.soc) == (2097136 * 1024, "brcm,bcm2712")
    assert (found.identity, found.identity_of) == ("3d1219c7c4c5404aaa1f6d2a48adfda4", "/etc/machine-id")


def test_32_bits_on_a_kernel_of_64() -> None:
    python = PI4["python python3"].replace('"bits": 64', '"bits": 32')
    found = facts(PI4 | {"elf": elf(40, 32, "/lib/ld-linux-armhf.so.3"), "python python3": python})
    assert (found.machine, found.bits, found.kernel_machine) == ("arm", 32, "aarch64")
    assert (
        found.python
        and found.python.platforms[-1] == "linux_armv7l"
        and "manylinux_2_28_armv7l" in found.python.platforms
    )


PHONE = {
    "date": str(int(NOW)),
    "elf": elf(183, 64, "/system/bin/linker64"),
    "$ uname -m": "aarch64",
    "$ uname -r": "5.10.149-android12-9",
    "/proc/meminfo": "MemTotal:       11534336 kB\nMemAvailable:    4812345 kB\nSwapTotal:       8388604 kB",
    "/proc/cpuinfo": arm_cores([0xD46] * 4 + [0xD47] * 3 + [0xD48], "fp asimd asimddp sve i8mm bf16")
    + "\nHardware\t: Qualcomm Technologies, Inc SM8450",
    f"{CPU}/online": "0-7",
    "/proc/self/status": "Cpus_allowed_list:\t0-7",
    **{f"{CPU}/cpu{n}/cpu_capacity": str(v) for n, v in enumerate([325] * 4 + [871] * 3 + [1024])},
    **{
        f"{CPU}/cpu{n}/cpufreq/cpuinfo_max_freq": str(v)
        for n, v in enumerate([1785600] * 4 + [2496000] * 3 + [2995200])
    },
    "$ getprop ro.product.model": "SM-S901B\r",
    "$ getprop ro.soc.model": "SM8450",
    "$ getprop ro.serialno": "R5CT30ABCDE\r",
    "$ getprop ro.build.version.release": "14",
    "$ getprop ro.build.version.sdk": "34",
    "$ getprop ro.kernel.qemu": "",
}


def test_a_phone_with_big_and_little_cores() -> None:
    found = facts(
        PHONE,
        {
            "/proc/sys/kernel/random/boot_id": "may not be read",
            "/proc/swaps": "may not be read",
            "tool python3": "not in /system/bin",
        },
    )
    assert (found.machine, found.libc, found.system) == ("aarch64", ("bionic", "34"), "Android 14")
    assert (found.model, found.soc, found.identity) == ("SM-S901B", "SM8450", "R5CT30ABCDE")
    assert found.threads == 4 and found.most_threads() == 8
    assert [core.part for core in found.cores][3:5] == ["Cortex-A510", "Cortex-A710"]
    assert found.boot_id is None and "may not be read" in found.missing["boot_id"]
    assert found.zram_total is None and "may not be read" in found.missing["zram_total"]
    assert found.python is None and "/system/bin" in found.missing["python"]
    assert found.page_size is None and found.emulated is False


@pytest.mark.parametrize(
    ("exe", "emulated"),
    [("/usr/bin/qemu-aarch64-static", True), ("/usr/bin/qemu-arm (deleted)", True), ("/usr/bin/dash", False)],
)
def test_a_shell_that_an_emulator_runs(exe: str, emulated: bool) -> None:
    assert facts(PHONE | {"exe": exe}).emulated is emulated


@pytest.mark.parametrize("said", ["ro.boot.qemu 1", "ro.hardware ranchu", "ro.product.model sdk_gphone64_arm64"])
def test_an_emulator_of_android(said: str) -> None:
    name, _, word = said.partition(" ")
    assert facts(PHONE | {f"$ getprop {name}": word}).emulated is True and facts(PHONE).emulated is False


def test_threads_of_a_phone_that_tells_clocks_only_or_nothing() -> None:
    clocks = {name: text for name, text in PHONE.items() if not name.endswith("cpu_capacity")}
    assert facts(clocks).threads == 4
    assert facts({name: text for name, text in clocks.items() if "cpufreq" not in name}).threads == 8


@pytest.mark.parametrize(
    ("online", "allowed", "count"),
    [
        ("0-7", "0-3", 4),
        ("0-5", "0-7", 2),
        ("0-7", "0,4", 1),
        ("0-7", "0-3,7", 1),
        ("0-3", "0-7", 4),
        (None, "4-6", 3),
        ("0-2", None, 3),
    ],
)
def test_threads_are_never_beyond_allowed_and_online(online: str | None, allowed: str | None, count: int) -> None:
    cores = parse_cores(PHONE)
    assert threads(cores, cpu_list(online), cpu_list(allowed)) == count


def test_an_x86_laptop() -> None:
    rows = "\n".join(
        f"processor\t: {n}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz\n"
        f"flags\t\t: fpu avx avx2 fma\n"
        for n in range(8)
    )
    found = facts(
        {
            "elf": elf(62, 64, "/lib64/ld-linux-x86-64.so.2"),
            "/proc/cpuinfo": rows,
            f"{CPU}/online": "0-7",
            "/proc/self/status": "Cpus_allowed_list:\t0-7",
            **{f"{CPU}/cpu{n}/cpufreq/cpuinfo_max_freq": "4000000" if n < 7 else "3900000" for n in range(8)},
            "/sys/class/dmi/id/product_name": "XPS 13 9370",
            "/sys/class/dmi/id/product_serial": "To be filled by O.E.M.",
            "/sys/class/dmi/id/board_serial": "Default string",
            "/etc/machine-id": "0123456789abcdef0123456789abcdef",
            "$ ldd --version": "ldd (Ubuntu GLIBC 2.39-0ubuntu8.4) 2.39\nCopyright (C) 2024",
        },
        {"$ getconf GNU_LIBC_VERSION": "getconf is not in /bin"},
    )
    assert (found.threads, found.model, found.libc) == (8, "XPS 13 9370", ("glibc", "2.39"))
    assert found.identity_of == "/etc/machine-id" and found.cores[0].features == ("fpu", "avx", "avx2", "fma")
    assert (
        found.cores[0].capacity is None
        and found.memory_total is None
        and "/proc/meminfo" in found.missing["memory_total"]
    )


def test_a_container_of_alpine() -> None:
    found = facts(
        {
            "elf": elf(62, 64, "/lib/ld-musl-x86_64.so.1"),
            "/proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu\n\n"
            "processor\t: 1\nmodel name\t: AMD EPYC\nflags\t\t: fpu\n",
            f"{CPU}/online": "0-63",
            "/proc/self/status": "Cpus_allowed_list:\t1",
            "/proc/meminfo": "MemTotal:       24684092 kB",
            "$ ldd --version": "musl libc (x86_64)\nVersion 1.2.4\nDynamic Program Loader",
            "/proc/mounts": "overlay / overlay rw,relatime 0 0",
            "python python3": PI4["python python3"].replace("aarch64", "x86_64"),
            "tried": "/root/.cache/smolship",
            "folder /root/.cache/smolship": "runs",
        },
        {"/etc/machine-id": "no such file"},
    )
    assert (found.libc, found.threads, found.most_threads()) == (("musl", "1.2.4"), 1, 1)
    assert found.memory_available is None and found.memory_total == 24684092 * 1024
    assert found.identity is None and "no such file" in found.missing["identity"]
    assert found.python and found.python.platforms[0] == "musllinux_1_2_x86_64"
    assert found.good_folders("ssh://a")[0].path == "/root/.cache/smolship"


@pytest.mark.parametrize(
    "serial", ["", "0000000000000000", "unknown", "None", "Not Specified", "System Serial Number", "XXXXXXXX", "N/A"]
)
def test_serials_that_are_none(serial: str) -> None:
    found = facts({"/proc/device-tree/serial-number": serial, "/etc/machine-id": "uninitialized"})
    assert found.identity is None


def test_nothing_is_known() -> None:
    found = facts({})
    values = {
        name: value
        for name, value in vars(found).items()
        if name not in ("missing", "tools", "searched", "identity_of", "memory_allowance", "quota")
    }
    assert all(value in (None, ()) for value in values.values())
    assert all(found.missing[name] for name, value in values.items() if value is None)


def test_an_old_kernel_says_features_once() -> None:
    text = "Processor\t: ARMv7 Processor rev 4 (v7l)\nprocessor\t: 0\nBogoMIPS\t: 38.40\n\n"
    text += "processor\t: 1\nBogoMIPS\t: 38.40\n\nFeatures\t: neon vfpv4\nCPU implementer\t: 0x41\nCPU part\t: 0xc07\n"
    cores = parse_cores({"/proc/cpuinfo": text})
    assert [(core.number, core.part, core.features) for core in cores] == [
        (n, "Cortex-A7", ("neon", "vfpv4")) for n in (0, 1)
    ]


def test_a_core_that_cpuinfo_leaves_out() -> None:
    cores = parse_cores(
        {"/proc/cpuinfo": arm_cores([0xD03], "fp"), f"{CPU}/cpu4/regs/identification/midr_el1": "0x00000000410fd080"}
    )
    assert [(core.number, core.part) for core in cores] == [(0, "Cortex-A53"), (4, "Cortex-A72")]


@pytest.mark.parametrize(
    ("text", "numbers"), [("0", (0,)), ("0-2,5", (0, 1, 2, 5)), ("", None), ("a", None), (None, None), ("0-", None)]
)
def test_lists_of_cores(text: str | None, numbers: tuple[int, ...] | None) -> None:
    assert cpu_list(text) == numbers


def test_headers_of_programs() -> None:
    with Path(sys.executable).open("rb") as file:
        found = parse_elf(file.read(2048))
    assert found and found.machine == platform.machine() and found.bits == 64 and found.libc == "glibc"
    for machine, bits, loader, order, name, libc in (
        (40, 32, "/lib/ld-linux-armhf.so.3", "<", "arm", "glibc"),
        (183, 64, "", "<", "aarch64", None),
        (21, 64, "/lib64/ld64.so.2", ">", "ppc64", "glibc"),
        (999, 64, "/lib/ld-musl-x.so.1", "<", "ELF machine 999", "musl"),
    ):
        one = parse_elf(bytes.fromhex(elf(machine, bits, loader, order)))
        assert one and (one.machine, one.bits, one.interpreter, one.libc) == (name, bits, loader or None, libc)
    whole = bytes.fromhex(elf(183, 64, "/lib/ld"))
    assert [parse_elf(whole[:n]) is None for n in (0, 4, 51, 52, len(whole))] == [True, True, True, False, False]
    assert parse_elf(b"#!/bin/sh" + bytes(99)) is None


def test_the_page_size_of_an_auxiliary_vector() -> None:
    assert page_size(Path("/proc/self/auxv").read_bytes(), 64) == os.sysconf("SC_PAGESIZE")
    assert page_size(struct.pack("<8I", 16, 1, 6, 16384, 9, 1, 0, 0), 32) == 16384
    assert page_size(b"", 64) is None and page_size(struct.pack("<QQ", 6, 5), 64) is None
    assert facts({"elf": elf(183, 64), "/proc/self/auxv": struct.pack("<QQ", 6, 16384).hex()}).page_size == 16384


def test_wheels_of_other_systems() -> None:
    assert wheel_platforms("linux-x86_64", ("bionic", "34")) == ("linux_x86_64",)
    assert wheel_platforms("macosx-14.0-arm64", None) == ("macosx_14_0_arm64",)
    assert "manylinux1_x86_64" in wheel_platforms("linux-x86_64", ("glibc", "2.36"))
    for version in ("2." + "9" * 40, "2.1000", "9" * 40 + ".1"):  # each would have tags down to the oldest
        assert wheel_platforms("linux-x86_64", ("glibc", version)) == ("linux_x86_64",)


@pytest.mark.parametrize("shell", [("/bin/sh",), ("bash", "--posix")])
def test_this_machine(shell: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = read_device(Here("/usr/bin:/bin", shell), ("~/.cache/smolship", str(tmp_path / "no" / "more" / "parent")))
    assert found.machine == platform.machine() and found.kernel == os.uname().release and found.bits == 64
    assert found.page_size == os.sysconf("SC_PAGESIZE") and found.allowed == tuple(sorted(os.sched_getaffinity(0)))
    assert found.libc and f"{found.libc[0]} {found.libc[1]}" == os.confstr("CS_GNU_LIBC_VERSION")
    assert found.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert found.clock_s is not None and abs(found.clock_s) < 3
    assert found.tools["dd"] in ("/usr/bin/dd", "/bin/dd") and found.tools["dumpsys"] is None
    good, bad = found.folders
    assert good.path == f"{tmp_path}/.cache/smolship" and not good.why and good.free and good.mount
    assert bad.why == f"there is no {tmp_path}/no"
    assert list(tmp_path.iterdir()) == []
    assert found.threads and found.memory_available and found.pythons


def test_a_folder_where_programs_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody's"))
    (tmp_path / "file").write_bytes(b"")
    found = read_device(Here(), ("/proc/smolship", f"{tmp_path}/file", "~/a", f"{tmp_path}/good"))
    assert [bool(folder.why) for folder in found.folders] == [True, True, True, False]
    assert found.good_folders("ssh://a")[0].path == f"{tmp_path}/good"


class _Unmapped(Here):
    """Its loader starts programs, and maps none that lies in a folder of ours, as on a file system without mmap."""

    loader = 'case $1 in */probe-*) echo $1: failed to map segment; exit 127 ;; esac; exec "$@"'

    def __init__(self, folder: Path):
        super().__init__()
        (folder / "ld-linux.so.2").write_text(f"#!/bin/sh\n{self.loader}\n")
        (folder / "ld-linux.so.2").chmod(0o755)
        self.maps = folder / "maps"
        self.maps.write_text(
            f"55e0-55e1 r-xp 00000000 08:01 1   /bin/sh\n7f0-7f1 r-xp 0 0:0 2 {folder}/ld-linux.so.2\n"
        )

    def run(self, script: str, **kind: object):  # type: ignore[no-untyped-def]
        assert "/proc/self/maps" in script
        return super().run(script.replace("/proc/self/maps", str(self.maps)), **kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("home", ["", ".", "a/b"])
def test_a_home_that_is_no_path(home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    found = read_device(Here(), ("~/.cache/smolship", f"{tmp_path}/good"))
    assert found.folders[0].why.startswith("HOME is no path") and found.good_folders("ssh://a")[0].path.endswith("good")


def test_a_folder_where_programs_run_and_libraries_cannot_be_loaded(tmp_path: Path) -> None:
    (folder,) = read_device(_Unmapped(tmp_path), (f"{tmp_path}/good",)).folders
    assert folder.why.startswith("a library that lies there cannot be loaded") and "failed to map" in folder.why
    assert not (tmp_path / "good").exists()


def test_a_loader_that_starts_no_programs_says_nothing_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Unmapped, "loader", "echo This is a helper program; exit 1")
    (folder,) = read_device(_Unmapped(tmp_path), (f"{tmp_path}/good",)).folders
    assert not folder.why


def test_a_device_that_says_nothing() -> None:
    with pytest.raises(SetupError, match="did not say"):
        read_device(_Cut())


def test_a_device_that_hangs_over_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensor whose driver does not answer: what was told before it is named."""

    class Hanging(Here):
        def run(self, script: str, *, lines=None, limit_s: float, **kind: object):  # type: ignore[no-untyped-def]
            lines(b"=/sys/class/thermal/thermal_zone3/type\tbad \x1b[31m")
            raise unfinished(self.uri, limit_s, "")

    with pytest.raises(SetupError, match="did not say what it is") as error:
        read_device(Hanging())
    assert "the last that it told was /sys/class/thermal/thermal_zone3/type" in str(error.value)
    assert "60 s" in str(error.value) and "reading hangs" in str(error.value)


class _Cut(Here):
    """Answers end in the middle."""

    def run(self, script: str, **kind: object):  # type: ignore[no-untyped-def]
        return super().run("printf '=date\\t1\\n'; exit 1", **kind)  # type: ignore[arg-type]


class _Endless(Here):
    """It never stops."""

    def run(self, script: str, **kind: object):  # type: ignore[no-untyped-def]
        return super().run("while :; do printf '=a\\t%01000d\\n' 1; done", **kind)  # type: ignore[arg-type]


def test_a_device_that_says_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smolship.tools.devices.facts.MOST", 100_000)
    with pytest.raises(SetupError, match="too much"):
        read_device(_Endless())


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, "{}", "[]", "1", PYTHON.replace("64", '"64"'), PYTHON.replace("/usr/bin", "bin")]
)
def test_an_interpreter_that_answers_nonsense(text: str) -> None:
    assert facts(PI4 | {"python python3": text}).python is None


def test_numbers_that_are_none() -> None:
    huge = "9" * 5000
    texts = PI4 | {"$ getconf PAGESIZE": huge, "/proc/swaps": f"Filename\n/dev/zram0 partition {huge}", "date": huge}
    texts |= {f"{CPU}/online": f"0-{huge}", f"{CPU}/cpu0/cpu_capacity": huge, "/proc/meminfo": f"MemTotal: {huge} kB"}
    found = facts(texts | {"df /tmp/smolship": f"a\ntmpfs 1 1 {huge} 1% /tmp", "$ uname -m": "²"})
    assert (found.page_size, found.zram_total, found.clock_s, found.online, found.memory_total) == (
        None,
        0,
        *[None] * 3,
    )


def test_the_clock_is_read_when_the_date_arrives() -> None:
    start = time.time()
    found = read_device(Here(), ())
    assert found.clock_s is not None and abs(found.clock_s) <= 1.0 + time.time() - start
