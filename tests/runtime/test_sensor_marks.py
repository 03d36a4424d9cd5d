"""What makes a latency not judgeable, and what a repetition waits for."""

from __future__ import annotations

import pytest

from smolship.runtime.sensors.marks import gate, marks
from smolship.runtime.sensors.snapshot import Snapshot, snapshot
from smolship.runtime.sensors.supply import SERVICE
from smolship.runtime.timing import agree
from tests.runtime.sensor_trees import (
    BATTERY,
    CONTAINER,
    LAPTOP,
    PHONE,
    PI_4,
    PI_5,
    STATUS,
    THERMAL,
    policy,
    tree,
    zones,
)

CAP = policy(0, 2400000, 1500000)
HAL = "$ dumpsys thermalservice"


def seen(texts: dict[str, str], **changes: str) -> Snapshot:
    return snapshot(tree(texts, **changes), 77)


@pytest.mark.parametrize("machine", [PI_4, PI_5, PHONE, LAPTOP, CONTAINER])
def test_a_quiet_run_has_no_mark(machine: dict[str, str]) -> None:
    one = seen(machine)
    assert marks(one, [one, one], one) == []
    assert marks(one, [], one, emulated=True) == ["the device is emulated"]


@pytest.mark.parametrize(
    ("machine", "change", "expected"),
    [
        (PI_5, CAP, "the clock of policy0 is capped 38% below what it can"),
        (PI_5, policy(0, 2400000, 2040000), None),  # 15 %, and not above
        (PI_5, policy(0, 2400000, 2400000, "performance"), "the governor changed from ondemand to performance"),
        (PI_4, {"$ vcgencmd get_throttled": "throttled=0x50008"}, "the board says: soft temperature limit"),
        (
            PHONE,
            {HAL: THERMAL.replace("Status: 0", "Status: 3")},
            "the thermal status changed from 0 (none) to 3 (severe)",
        ),
        (PHONE, {"/proc/77/cgroup": "5:cpuset:/background"}, "the process was scheduled as background work"),
        (PHONE, {"/proc/77/cgroup": "5:cpuset:/top-app"}, "the scheduling group of the process changed"),
        (
            PHONE,
            {"/proc/77/status": STATUS.replace("0-3", "0-1")},
            "the processors that it may use changed from 0-3 to 0-1",
        ),
        (PHONE, {"$ settings get global low_power": "1"}, "the battery saver is on"),
        (PHONE, {SERVICE: BATTERY.replace("USB powered: true", "USB powered: false")}, "the power supply changed"),
        (PHONE, {"$ dumpsys power": "Display Power: state=OFF"}, "the screen's state changed"),
        (
            PHONE,
            {"/proc/77/status": STATUS.replace("       0 kB", "  900 kB")},
            "parts of the process were swapped out",
        ),
        (
            PI_5,
            {"/proc/77/stat": PI_5["/proc/77/stat"].replace(" 20 0 4", " 20 10 4")},
            "its nice value changed from 0 to 10",
        ),
        (
            PHONE,
            policy(4, 2600000, 1300000, "energy_step", ""),
            "the processors of policy4 that are on changed from 4 5 6 to none",
        ),
        (
            PHONE,
            policy(4, 2600000, 2600000, "energy_step", "4"),
            "the processors of policy4 that are on changed from 4 5 6 to 4",
        ),
    ],
)
def test_a_change_during_or_after_the_run_is_a_mark(
    machine: dict[str, str], change: dict[str, str], expected: str | None
) -> None:
    calm, other = seen(machine), seen(machine, **change)
    for found in (marks(calm, [calm, other], calm), marks(calm, [calm], other)):
        assert found == ([expected] if expected else []), found


def test_what_held_from_the_beginning_is_a_mark_too() -> None:
    def always(machine: dict[str, str], **change: str) -> list[str]:
        one = seen(machine, **change)
        return marks(one, [one], one)

    slow = policy(0, 1800000, 1800000, "powersave")
    assert always(PI_4, **slow) == ["the governor of policy0 is powersave: its lowest clock"]
    assert always(PHONE, **{HAL: THERMAL.replace("Status: 0", "Status: 1")}) == ["the thermal status was 1 (light)"]
    assert always(PI_4, **{"$ vcgencmd get_throttled": "throttled=0x50005"}) == [
        "the board says: under-voltage",
        "the board says: throttled",
    ]
    low = BATTERY.replace("level: 84", "level: 9")
    assert always(PHONE, **{SERVICE: low}) == []  # it is plugged in
    assert always(PHONE, **{SERVICE: low.replace("USB powered: true", "USB powered: false")}) == [
        "the battery is low: 9 %"
    ]
    assert always(PI_5, **{"/proc/77/stat": PI_5["/proc/77/stat"].replace(" 20 0 4", " 39 19 4")}) == [
        "its nice value is 19: others go first"
    ]
    assert always(PHONE, **{"$ getprop ro.kernel.qemu": "1"}) == ["the device is emulated"]


def test_a_cap_of_cores_that_the_process_may_not_use_is_none_of_its() -> None:
    far, near = policy(7, 3200000, 800000, "energy_step", "7"), policy(0, 1950000, 800000, "energy_step", "0 1 2 3")
    assert marks(seen(PHONE), [seen(PHONE, **far)], seen(PHONE)) == []
    assert len(marks(seen(PHONE), [seen(PHONE, **near)], seen(PHONE))) == 1


@pytest.mark.parametrize("nothing", ["", "<EMPTY>"])
def test_a_cap_of_cores_that_are_off_is_none_of_the_run_s(nothing: str) -> None:
    """As a file of this machine, and as a device's shell says it."""
    one = seen(PHONE, **policy(4, 2600000, 1300000, "powersave", nothing))
    assert one.policies["policy4"].offline and marks(one, [one], one) == []
    assert not any("clock" in reason for reason in gate(one))


def test_bits_of_the_past_do_not_condemn_and_new_ones_do() -> None:
    old, new = seen(PI_4), seen(PI_4, **{"$ vcgencmd get_throttled": "throttled=0x70000"})
    assert marks(old, [old], old) == []
    assert marks(old, [], new) == ["the board says: frequency capped, at some time between the beginning and the end"]


def test_a_restart_is_seen() -> None:
    other = seen(PI_5, **{"/proc/sys/kernel/random/boot_id": "00000000-0000-4000-8000-000000000000"})
    assert marks(seen(PI_5), [], other) == ["the device restarted"]
    assert marks(seen(PI_5), [], seen(CONTAINER)) == []


@pytest.mark.parametrize("machine", [PI_4, PI_5, PHONE, LAPTOP, CONTAINER])
def test_a_cool_and_idle_machine_may_go_on(machine: dict[str, str]) -> None:
    if machine is PHONE:  # its processor has 66.5 °C from the beginning
        assert "66.5 °C" in gate(seen(machine))[0]
    else:
        assert gate(seen(machine)) == (["61.9 °C, and not yet 60.0 °C or less"] if machine is PI_5 else [])
    assert gate(seen(machine), seen(machine)) == []


def test_what_is_waited_for() -> None:
    first = seen(PI_5)
    assert gate(seen(PI_5, **zones(("cpu-thermal", "66900"))), first) == ["66.9 °C, and not yet 66.8 °C or less"]
    assert "capped 38%" in gate(seen(PI_5, **CAP), first)[0]
    assert gate(seen(PI_5, **CAP), seen(PI_5, **CAP)) == []  # it will not get better
    assert gate(seen(PI_5, **{"/proc/loadavg": "0.1 0.1 0.1 5/180 1"}), first) == ["5 threads are running"]
    busy = "some avg10=55.00 avg60=0.20 avg300=0.10 total=99"
    assert "waited for the processor for 55 %" in gate(seen(PI_5, **{"/proc/pressure/cpu": busy}), first)[0]
    status = THERMAL.replace("Status: 0", "Status: 2")
    assert gate(seen(PHONE, **{HAL: status}), seen(PHONE)) == ["the thermal status is 2 (moderate)"]
    assert "throttled" in gate(seen(PI_4, **{"$ vcgencmd get_throttled": "throttled=0x4"}))[0]


def test_repetitions_are_warm_when_the_last_two_agree() -> None:
    assert not agree([]) and not agree([100.0]) and not agree([100.0, 106.0])
    assert agree([200.0, 100.0, 104.0]) and not agree([100.0, 101.0, 150.0])
