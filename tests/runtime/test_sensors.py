"""Readings of captured machines: right where they can be had, with a reason where not, and never 0 instead."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from smolship.runtime.sensors import clocks, heat, process, supply
from smolship.runtime.sensors.marks import gate, marks
from smolship.runtime.sensors.reading import Reading
from smolship.runtime.sensors.snapshot import Snapshot, identity, model, snapshot, soc
from tests.runtime.sensor_trees import (
    BATTERY,
    CONTAINER,
    LAPTOP,
    PHONE,
    PI_4,
    PI_5,
    STATUS,
    THERMAL,
    ZONE,
    policy,
    tree,
    zones,
)


def celsius(*temps: str) -> list[float | None]:
    found = heat.temperatures(tree(zones(*((f"zone{i}", temp) for i, temp in enumerate(temps)))))
    return [reading.value for reading in found.values()]


def readings(value: Any) -> list[Reading]:
    if isinstance(value, Reading):
        return [value]
    inner = [getattr(value, f.name) for f in fields(value)] if is_dataclass(value) else []
    if isinstance(value, dict):
        inner = list(value.values())
    return [reading for one in inner for reading in readings(one)]


@pytest.mark.parametrize("machine", [PI_4, PI_5, PHONE, LAPTOP, CONTAINER])
def test_every_reading_has_a_value_or_a_reason_and_a_source(machine: dict[str, str]) -> None:
    found = readings(snapshot(tree(machine), 77))
    assert len(found) > 25
    for reading in found:
        assert (reading.value is None) == bool(reading.why) and reading.source, reading
        assert Reading.from_json(vars(reading), "f", "r") == reading


@pytest.mark.parametrize("machine", [PI_4, PHONE, LAPTOP])
@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        " ",
        "-1",
        "9" * 5000,
        "nan",
        "inf",
        "1e999",
        "0x",
        "None",
        "\ud800",
        "٣",
        "-\n-",
        "{}[]()",
        "<EIO>",
        "1 2 3",
        "=",
    ],
)
def test_nonsense_in_one_file_breaks_no_reading(machine: dict[str, str], nonsense: str) -> None:
    calm = snapshot(tree(machine), 77)
    for path in machine:
        one = snapshot(tree(machine, **{path: nonsense}), 77)
        for reading in readings(one):
            assert (reading.value is None) == bool(reading.why), (path, reading)
            assert Reading.from_json(vars(reading), "f", path) == reading
        assert isinstance(marks(calm, [one], calm), list) and isinstance(gate(one, calm), list)


def test_a_container_with_nothing_says_nothing_and_no_zero() -> None:
    empty = snapshot(tree(CONTAINER))
    assert [one for one in readings(empty) if one.value is not None] == [empty.emulated]
    assert empty.policies == {} and empty.counters == {} and empty.kept == {}
    assert "there are none" in str(empty.temperatures["zones"]) and empty.boot_id.why == "ENOENT"


@pytest.mark.parametrize(
    ("temps", "expected"),
    [
        (["65"], [65.0]),
        (["65000"], [65.0]),
        (["-5000", "21500"], [-5.0, 21.5]),
        (["-5", "21"], [-5.0, 21.0]),
        (["5000", "65000"], [5.0, 65.0]),  # no zone by itself would be known to be 5 °C
        (["45.5"], [45.5]),
        (["65000", "65"], [65.0, None]),
        (["65000", "-650788984"], [65.0, None]),
        (["65", "-650788984"], [65.0, None]),
        (["65000", "<EINVAL>", "<ENODATA>", "<EACCES>"], [65.0, None, None, None]),
        (["65000", "-40000", "127000", "-30000", "125000"], [65.0, None, None, -30.0, 125.0]),
        (["-273000", "-127"], [None, None]),
        (["45", "47", "46", "37234"], [45.0, 47.0, 46.0, None]),  # older phones: each driver has its own
        (["45", "47", "32767"], [45.0, 47.0, None]),  # the largest number of 16 bits
        (["45500", "61500", "290", "87"], [45.5, 61.5, None, None]),  # a battery's, in a tenth; a charge in %
        (["65000", "0", "-0"], [65.0, None, None]),
        (["0"], [None]),
        (["650"], [None]),  # a tenth of a °C? a thousandth?
        (["65000", "", "n/a", "6 5", "1e3", "９"], [65.0, *[None] * 5]),
        (["9" * 40], [None]),
    ],
)
def test_the_unit_is_settled_over_all_zones_and_a_bad_one_loses_only_itself(
    temps: list[str], expected: list[float | None]
) -> None:
    assert celsius(*temps) == expected


def test_zones_go_by_type_in_the_order_of_their_numbers() -> None:
    pairs = [("cpu", f"{40 + i}000") for i in range(11)]
    found = heat.temperatures(tree(zones(*pairs)))
    assert list(found)[:2] == ["cpu", "cpu (2)"] and found["cpu (11)"].value == 50.0
    nameless = heat.temperatures(tree({f"{ZONE}3/temp": "41000"}))
    assert nameless["thermal_zone3"].value == 41.0
    phone = heat.temperatures(tree(PHONE))
    assert {name: r.value for name, r in phone.items() if r.value} == {
        "BIG": 52,
        "MID": 47,
        "battery": 32.6,
        "BIG (2)": 53,
    }
    assert (phone["LITTLE"].why, phone["skin"].why) == ("EINVAL", "ENODATA") and "absent" in phone["pa"].why
    hidden = heat.temperatures(tree({f"{ZONE}*/temp": "<EACCES>"}))
    assert [reading.why for reading in hidden.values()] == ["EACCES"]
    assert heat.hottest(phone) == 53.0 and heat.hottest(heat.temperatures(tree({}))) is None


def test_the_hal_is_read_and_not_its_cache() -> None:
    found = heat.hal_temperatures(tree(PHONE))
    assert {name: r.value for name, r in found.items()} == {
        "CPU0, CPU": 66.5,
        "GPU, GPU": None,
        "NPU, NPU": None,
        "SKIN, skin": 38.25,
    }
    assert heat.thermal_status(tree(PHONE)).value == 0, "0 is a status"


def test_limits_of_a_battery_are_no_temperatures() -> None:
    """Phones list them among temperatures: volts, amperes, the charge in %."""
    lines = "".join(
        f"\tTemperature{{mValue={value}, mType={kind}, mName={name}, mStatus=0}}\n"
        for name, kind, value in (("socd", 8, 100.0), ("vbat", 6, 4.21), ("ibat", 7, 1.5), ("SOC", 13, 41.0))
    )
    text = THERMAL.replace("Current cooling", f"{lines}Current cooling")
    phone = snapshot(tree(PHONE, **{heat.SERVICE: text}), 77)
    found = {name: reading.value for name, reading in phone.hal_temperatures.items()}
    assert found["SOC, SoC"] == 41.0 and found["CPU0, CPU"] == 66.5
    assert found["socd, a battery's charge"] is found["vbat, a battery's voltage"] is None
    assert "no temperature" in phone.hal_temperatures["ibat, a battery's current"].why
    assert gate(phone) == ["66.5 °C, and not yet 60.0 °C or less"]
    names = ("vbat", "pm8350b-ibat-lvl0", "bcl-lvl1", "smpl_gm", "ocp_cpu1", "vdroop2", "batoilo", "VBATT_low")
    zone = heat.temperatures(tree(zones(*((name, "7200") for name in names), ("cpu-0-0", "52000"), ("vbus", "31000"))))
    assert {name: r.value for name, r in zone.items() if r.value} == {"cpu-0-0": 52.0, "vbus": 31.0}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (THERMAL.replace("HAL Ready: true", "HAL Ready: false"), "HAL Ready: false"),
        ("Can't find service: thermalservice", "no thermal service: Can't find service"),
        ("<not installed>", "not installed"),
        (THERMAL.partition("Current temp")[0], "no section"),
    ],
)
def test_without_a_hal_there_is_no_temperature_of_it(text: str, why: str) -> None:
    machine = tree(PHONE, **{heat.SERVICE: text})
    (reading,) = heat.hal_temperatures(machine).values()
    assert reading.value is None and why in reading.why
    if "no section" not in why:
        assert heat.thermal_status(machine).value is None


def test_a_status_set_by_hand_is_none() -> None:
    override = THERMAL.replace("IsStatusOverride: false", "IsStatusOverride: true")
    assert "by hand" in heat.thermal_status(tree(PHONE, **{heat.SERVICE: override})).why
    updates = BATTERY.replace("state:", "state:\n  (UPDATES STOPPED -- use 'reset' to restart)")
    assert "by hand" in supply.battery(tree(PHONE, **{supply.SERVICE: updates})).level.why


def test_throttling() -> None:
    assert heat.throttled(tree(PI_4)).value == 0x50000
    forbidden = heat.throttled(tree(PI_5))
    assert forbidden.value is None and "group video" in forbidden.why and "vcio" in forbidden.why
    assert heat.throttled(tree(PHONE)).why == "not installed"
    for text in ("", "throttled=", "throttled=0x", "error=1 error_msg=x", "0x0"):
        assert heat.throttled(tree({heat.THROTTLED: text})).value is None
    warned = "sh: warning: setlocale: LC_ALL: cannot change locale\n"
    assert heat.throttled(tree({heat.THROTTLED: f"{warned}throttled=0x50005"})).value == 0x50005
    assert heat.soc_temperature(tree({heat.MEASURED: f"{warned}temp=48.3'C"})).value == 48.3
    assert heat.soc_temperature(tree(PI_4)).value == 48.3 and heat.soc_temperature(tree(PI_5)).value is None

    def said(before: int, during: list[int], after: int) -> list[str]:
        bits = [Reading(n, "bits", "") for n in (before, *during, after)]
        return heat.throttling(bits[0], bits[1:-1], bits[-1])

    assert said(0x50000, [0x50000], 0x50000) == []  # of some time before
    assert said(0x50000, [0x50005], 0x50005) == ["the board says: under-voltage", "the board says: throttled"]
    assert said(0, [0, 0], 0x20000) == [
        "the board says: frequency capped, at some time between the beginning and the end"
    ]
    assert heat.throttling(forbidden, [forbidden], Reading(0x20000, "bits", "")) == []


def test_clocks() -> None:
    phone = clocks.policies(tree(PHONE))
    assert list(phone) == ["policy0", "policy4", "policy7"] and phone["policy7"].cpus.value == "7"
    assert phone["policy4"].taken == 0 and clocks.governor(phone).value == "energy_step"
    capped = clocks.policies(tree(policy(0, 2400000, 1500000)))["policy0"]
    assert capped.taken == pytest.approx(0.375) and not capped.slow
    assert clocks.policies(tree(policy(0, 2400000, 600000, "powersave")))["policy0"].slow
    assert not clocks.policies(tree(LAPTOP))["policy0"].slow  # intel_pstate's powersave follows the load
    broken = clocks.policies(tree({**policy(0, 2400000, 0), **policy(4, -1, 5)}))
    assert broken["policy0"].taken is None and broken["policy4"].taken is None
    mixed = clocks.policies(tree({**policy(0, 1, 1, "schedutil"), **policy(4, 1, 1, "performance")}))
    assert clocks.governor(mixed).value == "policy0 schedutil, policy4 performance"


def test_clocks_of_kernels_that_show_each_core() -> None:
    found = {}
    for core, shared in enumerate(("0 1", "0 1", "2")):
        texts = {k.rpartition("/")[2]: v for k, v in policy(0, 1500000, 1200000, cpus=shared).items()}
        found |= {f"/sys/devices/system/cpu/cpu{core}/cpufreq/{k}": v for k, v in texts.items()}
    assert list(clocks.policies(tree(found))) == ["cpu0", "cpu2"]


def test_battery() -> None:
    found = supply.battery(tree(PHONE))
    values = [found.level.value, found.state.value, found.temperature.value, found.voltage.value, found.plugged.value]
    assert values == [84.0, "charging", 32.6, 4.063, True]
    laptop = supply.battery(tree(LAPTOP))
    assert (laptop.level.value, laptop.state.value, laptop.plugged.value) == (71.0, "discharging", False)
    assert laptop.temperature.why == "ENOENT" and laptop.voltage.value == pytest.approx(15.412)
    assert "no battery" in supply.battery(tree(PI_5)).level.why
    assert "denied" in supply.battery(tree({supply.SERVICE: "Permission denied"})).level.why
    assert supply.battery(tree({"/sys/class/power_supply/battery/type": "<EACCES>"})).level.why == "EACCES"
    mouse = {path: text for path, text in LAPTOP.items() if "BAT0" not in path}
    assert supply.battery(tree(mouse)).level.value is None
    absent = BATTERY.replace("present: true", "present: false")
    assert "present: false" in supply.battery(tree({supply.SERVICE: absent})).level.why


def test_batteries_of_laptops() -> None:
    bay = "/sys/class/power_supply/BAT1"
    second = {f"{bay}/type": "Battery", f"{bay}/capacity": "9", f"{bay}/status": "Charging"}
    both = supply.battery(tree({**LAPTOP, **second}))
    assert both.level.value is None and "71.0 %, 9.0 %" in both.level.why and both.state.value == "discharging"
    empty = {path.replace("BAT0", "BAT1"): text for path, text in LAPTOP.items()}
    empty |= {"/sys/class/power_supply/BAT0/type": "Battery", "/sys/class/power_supply/BAT0/capacity": "<ENODEV>"}
    assert supply.battery(tree(empty)).level.value == 71.0
    usb = "/sys/class/power_supply/ucsi-source-psy-USBC000:001"
    for online, plugged in (("0", False), ("1", True), ("2", True), ("x", False)):  # 2: its voltage is negotiated
        charger = {f"{usb}/type": "USB", f"{usb}/online": online}
        assert supply.battery(tree({**LAPTOP, **charger})).plugged.value is plugged


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("temperature: -2147483648", "temperature"),
        ("temperature: 0", "temperature"),
        ("level: -1", "level"),
        ("level: 200", "level"),
        ("level: x", "level"),
        ("voltage: 0", "voltage"),
        ("voltage: 4", "voltage"),
        ("voltage: 4063000", "voltage"),
        ("voltage: -4063", "voltage"),
        ("status: 1", "state"),
        ("status: 99", "state"),
    ],
)
def test_nonsense_of_a_battery_is_none(line: str, field: str) -> None:
    name = line.partition(":")[0]
    text = "\n".join(f"  {line}" if row.strip().startswith(f"{name}:") else row for row in BATTERY.splitlines())
    assert getattr(supply.battery(tree({supply.SERVICE: text})), field).value is None


@pytest.mark.parametrize("volts", ["15412", "15412000000", "-1", "0"])
def test_a_driver_that_tells_another_unit(volts: str) -> None:
    found = supply.battery(tree(LAPTOP | {"/sys/class/power_supply/BAT0/voltage_now": volts}))
    assert found.voltage.value is None and found.voltage.why and found.level.value == 71.0


def test_a_scale_that_is_not_100() -> None:
    text = BATTERY.replace("scale: 100", "scale: 168")
    assert supply.battery(tree({supply.SERVICE: text})).level.value == pytest.approx(50.0)


def test_screen_and_saver() -> None:
    assert supply.screen(tree(PHONE)).value == "on" and supply.saver(tree(PHONE)).value is False
    assert supply.screen(tree({supply.POWER: "  mWakefulness=Dozing"})).value == "off"
    assert supply.screen(tree(PI_4)).value is None and supply.saver(tree(PI_4)).value is None
    assert (
        supply.saver(tree({supply.SAVER: "1"})).value is True
        and "null" in supply.saver(tree({supply.SAVER: "null"})).why
    )
    assert supply.saver(tree(LAPTOP)).value is False
    assert supply.saver(tree({supply.PROFILE: "low-power"})).value is True


def test_energy_wraps_around() -> None:
    path = "/sys/class/powercap/intel-rapl:0/energy_uj"
    samples = [supply.counters(tree(LAPTOP, **{path: str(n)})) for n in (262143000000, 262143300000, 671150, 1671150)]
    found = supply.energy(samples)
    assert found["intel-rapl:0 package-0"].value == pytest.approx(0.3 + 0.7 + 1.0)
    assert found["intel-rapl:0:0 core"].why == "EACCES"
    endless = {p: t for p, t in LAPTOP.items() if "max_energy" not in p}
    samples = [supply.counters(tree(endless, **{path: str(n)})) for n in (500, 100)]
    assert "its range is unavailable" in supply.energy(samples)["intel-rapl:0 package-0"].why
    assert supply.energy(samples[:1])["intel-rapl:0 package-0"].value is None
    gap = supply.energy([samples[0], {}, samples[0]])
    assert gap["intel-rapl:0 package-0"].value is None and supply.energy([]) == {}


def test_memory_of_a_process_counts_what_is_swapped_out() -> None:
    def memory(rss: int, swap: int, highest: int) -> process.ProcessMemory:
        text = f"VmHWM:\t{highest} kB\nVmRSS:\t{rss} kB\nRssAnon:\t5 kB\nRssFile:\t3 kB\nVmSwap:\t{swap} kB\n"
        return process.process_memory(tree({"/proc/77/status": text}), 77)

    samples = [memory(4_000_000, 500_000, 5_100_000), memory(5_000_000, 1_280_000, 5_124_000), memory(1, 1, 5_124_000)]
    assert process.peak(samples).value == 6_280_000 << 10
    assert process.peak([memory(10, 0, 90)]).value == 90 << 10
    assert process.highest([one.swap for one in samples]).value == 1_280_000 << 10
    found = process.process_memory(tree(PI_4), 77)
    assert (found.anonymous.value, found.file.value, found.shared.value, found.swap.value) == (
        200_000 << 10, 399_000 << 10, 1_000 << 10, 0)  # fmt: skip
    assert found.swap.source == "/proc/77/status, VmSwap"


def test_memory_that_is_not_counted_is_unavailable() -> None:
    no_swap = process.process_memory(tree({"/proc/7/status": STATUS.replace("VmSwap", "Other")}), 7)
    assert no_swap.swap.why == "no line VmSwap" and "VmSwap unavailable" in process.peak([no_swap]).source
    sandbox = "VmHWM:\t0 kB\nVmRSS:\t0 kB\nRssAnon:\t0 kB\nRssFile:\t0 kB\n"
    found = process.process_memory(tree({"/proc/7/status": sandbox}), 7)
    assert {one.value for one in readings(found)} == {None}
    assert process.peak([found]).value is None and process.peak([]).value is None
    gone = process.process_memory(tree({}), 7)
    assert gone.resident.why == "ENOENT" and process.highest([gone.resident]).value is None


def test_memory_of_the_machine_and_pressure() -> None:
    found = process.machine_memory(tree(PI_5))
    assert found.available.value == 6_000_000 << 10 and found.swap_total.value == 0
    old = process.machine_memory(tree({"/proc/meminfo": "MemTotal: 5 kB"}))
    assert old.available.why == "no line MemAvailable"
    pressure = process.pressure(tree(PI_5))
    assert pressure["cpu"].value == 0.51 and pressure["io"].why == "EOPNOTSUPP"
    assert process.running(tree(PI_5)).value == 1


def test_scheduling() -> None:
    found = process.scheduling(tree(PHONE), 77)
    assert (found.background.value, found.nice.value, found.allowed.value) == (False, 0, "0-3")
    for group in ("5:cpuset:/background", "5:cpuset:/system-background", "1:cpu:/a/background.slice/b"):
        assert process.scheduling(tree(PHONE, **{"/proc/77/cgroup": group}), 77).background.value is True
    idle = PHONE["/proc/77/stat"].removesuffix("0 0 0") + "5 0 0"
    assert process.scheduling(tree(PHONE, **{"/proc/77/stat": idle}), 77).background.value is True
    assert process.scheduling(tree({}), 77).background.value is None
    assert process.cores("0-2,7") == {0, 1, 2, 7} == process.cores("0-2,7\n")


def test_identity_is_the_board_s_else_the_system_s() -> None:
    assert (identity(tree(PI_4)).value, model(tree(PI_4)).value) == (
        "10000000abcdef01",
        "Raspberry Pi 4 Model B Rev 1.4",
    )
    assert (identity(tree(PHONE)).value, model(tree(PHONE)).value) == ("R5CX00ABCDE", "SM-S942B")
    cloned = tree(PI_4, **{"/proc/device-tree/serial-number": "0000000000000000", "$ getprop ro.serialno": "unknown"})
    assert identity(cloned).source == "/etc/machine-id"
    assert identity(tree({})).value is None and soc(tree(PHONE)).value is None
    assert identity(tree({"/proc/cpuinfo": "Revision\t: a020d3\nSerial\t\t: 00000000abcdef99\n"})).value.endswith("99")
    assert identity(tree({"/etc/machine-id": "uninitialized"})).value is None


@pytest.mark.parametrize(
    "form", ["System Serial Number", "xxxxxxxx", "0123456789", "..........", "Not Applicable", "System Product Name"]
)
def test_forms_that_nobody_has_filled_in(form: str) -> None:
    dmi = {f"/sys/class/dmi/id/{name}": form for name in ("product_serial", "board_serial", "product_name")}
    found = identity(tree({**dmi, "/etc/machine-id": PI_4["/etc/machine-id"]}))
    assert (found.value, found.source) == (PI_4["/etc/machine-id"], "/etc/machine-id")
    assert model(tree(dmi)).value is None and model(tree(PI_4)).value


def test_the_machine_says_that_it_is_emulated() -> None:
    assert snapshot(tree({"$ getprop ro.kernel.qemu": "1"})).emulated.value is True
    assert snapshot(tree({"/proc/device-tree/model": "linux,dummy-virt"})).emulated.value is True
    for path, word in (("ro.boot.qemu", "1"), ("ro.hardware", "ranchu"), ("ro.product.model", "sdk_gphone64_x86_64")):
        found = snapshot(tree({**PHONE, f"$ getprop {path}": word})).emulated
        assert (found.value, found.source) == (True, f"$ getprop {path}")
    assert snapshot(tree({**PHONE, "$ getprop ro.hardware": "qcom"})).emulated.value is False
    assert snapshot(tree(PI_5)).emulated.value is False


def test_what_was_said_is_kept() -> None:
    found: Snapshot = snapshot(tree(PHONE), 77)
    assert found.kept["dumpsys thermalservice"].startswith("IsStatusOverride") and "dumpsys power" not in found.kept
    assert found.seconds.value == 1000.5
