"""Machines as their sensors describe them: path -> text, or an errno's name in angle brackets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from smolship.runtime.sensors.tree import Tree

BOOT = "735f1b47-5660-4085-9284-94eb3f878c64"
STATUS = """Name:\tsmolship-run
VmPeak:\t  900000 kB
VmHWM:\t  610000 kB
VmRSS:\t  600000 kB
RssAnon:\t  200000 kB
RssFile:\t  399000 kB
RssShmem:\t    1000 kB
VmSwap:\t       0 kB
Cpus_allowed_list:\t0-3
"""
STAT = "77 (a (b) c) R 1 77 77 0 -1 4194304 99 0 0 0 0 0 0 0 20 0 4 0 654 29 382 " + "1 " * 16 + "0 0 0"
MEMINFO = """MemTotal:        8000000 kB
MemAvailable:    6000000 kB
SwapTotal:             0 kB
SwapFree:              0 kB
"""
FULL = "full avg10=0.00 avg60=0.00 avg300=0.00 total=0"
ZONE = "/sys/class/thermal/thermal_zone"


def policy(
    number: int, hardware: int, cap: int, governor: str = "ondemand", cpus: str = "0 1 2 3", driver: str = "cpufreq-dt"
) -> dict[str, str]:
    folder = f"/sys/devices/system/cpu/cpufreq/policy{number}"
    return {
        f"{folder}/cpuinfo_max_freq": str(hardware),
        f"{folder}/cpuinfo_min_freq": "600000",
        f"{folder}/scaling_max_freq": str(cap),
        f"{folder}/scaling_min_freq": "600000",
        f"{folder}/scaling_cur_freq": str(cap),
        f"{folder}/scaling_governor": governor,
        f"{folder}/scaling_driver": driver,
        f"{folder}/affected_cpus": cpus,
    }


def zones(*pairs: tuple[str, str]) -> dict[str, str]:
    """(type, temp) of zones 0 and on."""
    found = {}
    for i, (kind, temp) in enumerate(pairs):
        found |= {f"{ZONE}{i}/type": kind, f"{ZONE}{i}/temp": temp}
    return found


def process(pid: int = 77) -> dict[str, str]:
    return {f"/proc/{pid}/status": STATUS, f"/proc/{pid}/stat": STAT, f"/proc/{pid}/cgroup": "0::/user.slice"}


BASE = {
    "/proc/uptime": "1000.50 3000.00",
    "/proc/meminfo": MEMINFO,
    "/proc/loadavg": "0.10 0.10 0.05 1/180 4242",
    "/proc/sys/kernel/random/boot_id": BOOT,
    **process(),
}
PI_4 = {
    **BASE,
    **zones(("cpu-thermal", "48686")),
    **policy(0, 1800000, 1800000),
    "/proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4",
    "/proc/device-tree/serial-number": "10000000abcdef01",
    "/etc/machine-id": "0123456789abcdef0123456789abcdef",
    "$ vcgencmd get_throttled": "throttled=0x50000",
    "$ vcgencmd measure_temp": "temp=48.3'C",
}
PI_5 = {
    **BASE,
    **zones(("cpu-thermal", "61850")),
    **policy(0, 2400000, 2400000),
    "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0",
    "/proc/pressure/cpu": f"some avg10=0.51 avg60=0.20 avg300=0.10 total=99\n{FULL}",
    "/proc/pressure/memory": f"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n{FULL}",
    "/proc/pressure/io": "<EOPNOTSUPP>",
    "$ vcgencmd get_throttled": "Can't open device file: /dev/vcio\nTry creating a device file with: sudo mknod …",
    "$ vcgencmd measure_temp": "VCHI initialization failed",
}
THERMAL = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 2
\tkilled: false
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=37.0, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=36.0, mType=3, mName=SKIN, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 3  connected: yes
Current temperatures from HAL:
\tTemperature{mValue=66.5, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=0.0, mType=1, mName=GPU, mStatus=0}
\tTemperature{mValue=NaN, mType=9, mName=NPU, mStatus=0}
\tTemperature{mValue=38.25, mType=3, mName=SKIN, mStatus=1}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=3, mName=SKIN, mHotThrottlingThresholds=[NaN, 38.0, 40.0], mColdThrottlingThresholds=[NaN]}
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 0
  Charge counter: 2861500
  status: 2
  health: 2
  present: true
  level: 84
  scale: 100
  voltage: 4063
  temperature: 326
  technology: Li-ion
  batterySWSelfDischarging: false
  LED Charging: true
  current now: 321
LLB CAL:
  level: 3
"""
PHONE = {
    **BASE,
    **zones(
        ("BIG", "52000"),
        ("MID", "47000"),
        ("LITTLE", "<EINVAL>"),
        ("battery", "32600"),
        ("modem", "-650788984"),
        ("skin", "<ENODATA>"),
        ("pa", "0"),
        ("BIG", "53000"),
    ),
    **policy(0, 1950000, 1950000, "energy_step", "0 1 2 3"),
    **policy(4, 2600000, 2600000, "energy_step", "4 5 6"),
    **policy(7, 3200000, 3200000, "energy_step", "7"),
    "/proc/77/cgroup": "5:cpuset:/foreground\n4:cpu:/foreground\n0::/uid_2000/pid_77",
    "$ vcgencmd get_throttled": "<not installed>",
    "$ dumpsys thermalservice": THERMAL,
    "$ dumpsys battery": BATTERY,
    "$ dumpsys power": "POWER MANAGER (dumpsys power)\n  mWakefulness=Awake\nDisplay Power: state=ON",
    "$ settings get global low_power": "0",
    "$ getprop ro.product.model": "SM-S942B",
    "$ getprop ro.soc.model": "",
    "$ getprop ro.serialno": "R5CX00ABCDE",
}
LAPTOP = {
    **BASE,
    **zones(("acpitz", "27800"), ("x86_pkg_temp", "55000"), ("iwlwifi_1", "<ENODATA>")),
    **policy(0, 4700000, 4700000, "powersave", "0", "intel_pstate"),
    "/sys/class/power_supply/BAT0/type": "Battery",
    "/sys/class/power_supply/BAT0/capacity": "71",
    "/sys/class/power_supply/BAT0/status": "Discharging",
    "/sys/class/power_supply/BAT0/voltage_now": "15412000",
    "/sys/class/power_supply/AC/type": "Mains",
    "/sys/class/power_supply/AC/online": "0",
    "/sys/class/power_supply/hidpp_battery_0/type": "Battery",
    "/sys/class/power_supply/hidpp_battery_0/scope": "Device",
    "/sys/class/power_supply/hidpp_battery_0/capacity": "5",
    "/sys/class/powercap/intel-rapl:0/name": "package-0",
    "/sys/class/powercap/intel-rapl:0/energy_uj": "262143000000",
    "/sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850",
    "/sys/class/powercap/intel-rapl:0:0/name": "core",
    "/sys/class/powercap/intel-rapl:0:0/energy_uj": "<EACCES>",
    "/sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "262143328850",
    "/sys/firmware/acpi/platform_profile": "balanced",
    "/sys/class/dmi/id/product_name": "ThinkPad",
}
CONTAINER: dict[str, str] = {}


def tree(texts: Mapping[str, str], **changes: str) -> Tree:
    """`changes` are of single paths, given by **{path: text}."""
    found = Tree()
    for path, text in {**texts, **changes}.items():
        if text.startswith("<"):
            found.errors[path] = text.strip("<>")
        else:
            found.texts[path] = text.rstrip("\n")
    return found


def write(texts: Mapping[str, str], root: Path) -> Path:
    """The same as files below `root`; what has an error is not there."""
    for path, text in texts.items():
        file = root / ("commands/" + path[2:] if path.startswith("$ ") else path.lstrip("/"))
        file.parent.mkdir(parents=True, exist_ok=True)
        if not text.startswith("<"):
            file.write_text(text)
    return root
