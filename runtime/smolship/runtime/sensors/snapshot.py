"""All readings of a machine at one time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from smolship.runtime.errors import clip
from smolship.runtime.sensors import clocks, heat, process, supply
from smolship.runtime.sensors.clocks import Policy
from smolship.runtime.sensors.process import MachineMemory, ProcessMemory, Scheduling
from smolship.runtime.sensors.reading import Reading, unavailable
from smolship.runtime.sensors.supply import Battery, Counter
from smolship.runtime.sensors.tree import Tree

BOOT = "/proc/sys/kernel/random/boot_id"
KEPT = (heat.SERVICE, supply.SERVICE, heat.THROTTLED)  # outputs that are kept as they are
UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"


@dataclass(frozen=True)
class Snapshot:
    """
    seconds       since the machine started
    temperatures  °C by zone's type; hal_temperatures: by Android's names
    pressure      % by cpu, memory, io
    counters      of energy
    emulated      whether the machine says itself that it is no real one
    kept          outputs of commands as they were, by their words
    """

    seconds: Reading
    boot_id: Reading
    temperatures: dict[str, Reading]
    hal_temperatures: dict[str, Reading]
    soc_temperature: Reading
    thermal_status: Reading
    throttled: Reading
    policies: dict[str, Policy]
    governor: Reading
    battery: Battery
    screen: Reading
    saver: Reading
    memory: MachineMemory
    process: ProcessMemory
    scheduling: Scheduling
    pressure: dict[str, Reading]
    running: Reading
    counters: dict[str, Counter]
    emulated: Reading
    kept: dict[str, str]


def snapshot(tree: Tree, pid: int | str = "self") -> Snapshot:
    """What the tree says, of the machine and of the process `pid`."""
    policies = clocks.policies(tree)
    return Snapshot(
        seconds=seconds(tree),
        boot_id=boot_id(tree),
        temperatures=heat.temperatures(tree),
        hal_temperatures=heat.hal_temperatures(tree),
        soc_temperature=heat.soc_temperature(tree),
        thermal_status=heat.thermal_status(tree),
        throttled=heat.throttled(tree),
        policies=policies,
        governor=clocks.governor(policies),
        battery=supply.battery(tree),
        screen=supply.screen(tree),
        saver=supply.saver(tree),
        memory=process.machine_memory(tree),
        process=process.process_memory(tree, pid),
        scheduling=process.scheduling(tree, pid),
        pressure=process.pressure(tree),
        running=process.running(tree),
        counters=supply.counters(tree),
        emulated=emulated(tree),
        kept={path[2:]: text for path in KEPT if (text := tree.get(path)) is not None},
    )


def seconds(tree: Tree) -> Reading:
    """Since the machine started."""
    said = re.match(r"[0-9]{1,12}(\.[0-9]+)?", tree.get("/proc/uptime") or "")
    number = float(said[0]) if said else tree.seconds
    return tree.reading("/proc/uptime", "s", number, "a time")


def boot_id(tree: Tree) -> Reading:
    """Another one after each start of the machine."""
    text = tree.get(BOOT) or ""
    return tree.reading(BOOT, "", text if re.fullmatch(UUID, text) else None, "a UUID")


def model(tree: Tree) -> Reading:
    """The machine's name by its makers."""
    return _first(tree, ("$ getprop ro.product.model", "/proc/device-tree/model", "/sys/class/dmi/id/product_name"))


def soc(tree: Tree) -> Reading:
    """The processor's name by Android."""
    return _first(tree, ("$ getprop ro.soc.model",))


def identity(tree: Tree) -> Reading:
    """The board's serial number, else the system's id, which is another after each installation."""
    return _first(
        tree,
        (
            "/proc/device-tree/serial-number",
            "$ getprop ro.serialno",
            "/sys/class/dmi/id/product_serial",
            "/etc/machine-id",
        ),
    )


def emulated(tree: Tree) -> Reading:
    """Whether Android's emulator or a virtual board says so; False only says that neither does."""
    path, name = "$ getprop ro.kernel.qemu", model(tree).text or ""
    if tree.get(path) == "1" or re.search(r"linux,dummy-virt|\bQEMU\b|\bemulator\b", name, re.I):
        return Reading(True, "", path if tree.get(path) == "1" else model(tree).source)
    return Reading(False, "", "model, getprop")


def _first(tree: Tree, paths: tuple[str, ...]) -> Reading:
    """The first that says something; makers leave "unknown", zeros and forms to be filled in."""
    for path in paths:
        text = " ".join((tree.get(path) or "").split())
        if text and not re.fullmatch(r"0+|unknown|none|n/?a|default string|to be filled.*|not specified", text, re.I):
            return Reading(clip(text, 120), "", path)
    return unavailable("", paths[0], "; ".join(f"{path}: {tree.why(path)}" for path in paths if tree.get(path) is None))
