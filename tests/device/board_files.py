"""What tells that a board is a Raspberry Pi: /proc/cpuinfo, /sys, vcgencmd. Written from the kernel's formats with a
Pi's values, not read from one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SERIAL = "10000000c0ffee42"


@dataclass(frozen=True)
class Model:
    """A board: its name, its revision code, its processor (part, variant, revision), and clocks in kHz."""

    name: str
    revision: str
    compatible: str
    part: int
    variant: int
    step: int
    features: str
    least_khz: int
    most_khz: int
    cores: int = 4


MODELS = {  # by the processor's name, which is the emulator's
    "cortex-a72": Model(
        name="Raspberry Pi 4 Model B Rev 1.5",
        revision="c03115",
        compatible="raspberrypi,4-model-b\0brcm,bcm2711\0",
        part=0xD08,
        variant=0,
        step=3,
        features="fp asimd evtstrm crc32 cpuid",
        least_khz=600_000,
        most_khz=1_800_000,
    ),
    "cortex-a76": Model(
        name="Raspberry Pi 5 Model B Rev 1.0",
        revision="c04170",
        compatible="raspberrypi,5-model-b\0brcm,bcm2712\0",
        part=0xD0B,
        variant=4,
        step=1,
        features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
        least_khz=1_500_000,
        most_khz=2_400_000,
    ),
}
VCGENCMD = """#!/bin/sh
# Answers from files of /run/vcgencmd; without one, as the program does where it may not ask the firmware.
if [ -f "/run/vcgencmd/$1" ]; then cat "/run/vcgencmd/$1"; else echo "VCHI initialization failed"; exit 255; fi
"""


def cpuinfo(model: Model) -> str:
    rows = []
    for core in range(model.cores):
        rows += [f"processor\t: {core}", "BogoMIPS\t: 108.00", f"Features\t: {model.features}"]
        rows += ["CPU implementer\t: 0x41", "CPU architecture: 8", f"CPU variant\t: {model.variant:#x}"]
        rows += [f"CPU part\t: {model.part:#x}", f"CPU revision\t: {model.step}", ""]
    rows += [f"Revision\t: {model.revision}", f"Serial\t\t: {SERIAL}", f"Model\t\t: {model.name}"]
    return "\n".join(rows) + "\n"


def write_sys(folder: Path, model: Model) -> None:
    """/sys: one thermal zone in m°C, processors with clocks in kHz, the device tree's names."""
    cores = f"0-{model.cores - 1}\n"
    midr = 0x41000000 | model.variant << 20 | 0xF << 16 | model.part << 4 | model.step
    texts = {
        "class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "class/thermal/thermal_zone0/temp": "48850\n",
        "class/hwmon/hwmon0/name": "cpu_thermal\n",
        "class/hwmon/hwmon0/temp1_input": "48850\n",
        "class/hwmon/hwmon1/name": "rpi_volt\n",
        "class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
        "devices/system/cpu/cpufreq/policy0/affected_cpus": " ".join(map(str, range(model.cores))) + "\n",
        "devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": f"{model.most_khz}\n",
        "devices/system/cpu/cpufreq/policy0/cpuinfo_min_freq": f"{model.least_khz}\n",
        "devices/system/cpu/cpufreq/policy0/scaling_cur_freq": f"{model.most_khz}\n",
        "devices/system/cpu/cpufreq/policy0/scaling_driver": "cpufreq-dt\n",
        "devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
        "devices/system/cpu/cpufreq/policy0/scaling_max_freq": f"{model.most_khz}\n",
        "devices/system/cpu/cpufreq/policy0/scaling_min_freq": f"{model.least_khz}\n",
        "firmware/devicetree/base/compatible": model.compatible,
        "firmware/devicetree/base/model": model.name + "\0",
        "firmware/devicetree/base/serial-number": SERIAL + "\0",
        **{f"devices/system/cpu/{name}": cores for name in ("online", "possible", "present")},
    }
    for core in range(model.cores):
        place = f"devices/system/cpu/cpu{core}"
        texts[f"{place}/cpu_capacity"] = "1024\n"
        texts[f"{place}/topology/core_id"] = f"{core}\n"
        texts[f"{place}/topology/physical_package_id"] = "0\n"
        texts[f"{place}/regs/identification/midr_el1"] = f"{midr:#018x}\n"
    write_files(folder, texts)
    for core in range(model.cores):
        (folder / f"devices/system/cpu/cpu{core}/cpufreq").symlink_to("../cpufreq/policy0")


def write_vcgencmd(folder: Path) -> None:
    (folder / "measure_temp").write_text("temp=48.8'C\n")
    (folder / "get_throttled").write_text("throttled=0x0\n")


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Texts by their paths, below a folder."""
    for name, text in files.items():
        path = folder / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
