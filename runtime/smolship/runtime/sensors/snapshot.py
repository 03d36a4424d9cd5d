"""All readings of a machine at one time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
MODELS = (
    "$ getprop ro.product.model",
    "/proc/device-tree/model",
    "/sys/firmware/devicetree/base/model",
    "/sys/class/dmi/id/product_name",
)
SERIALS = (
    "/proc/device-tree/serial-number",
    "/sys/firmware/devicetree/base/serial-number",
    "$ getprop ro.serialno",
    "/sys/class/dmi/id/product_serial",
    "/sys/class/dmi/id/board_serial",
)
# By what Android's emulator says of itself: since version 12 in other words.
EMULATORS = {
    "$ getprop ro.kernel.qemu": "1",
    "$ getprop ro.boot.qemu": "1",
    "$ getprop ro.hardware": "goldfish|ranchu|cutf_cvm|vbox86",
}
EMULATED = re.compile(
    r"linux,dummy-virt|\bQEMU\b|\bemulator\b|\bsdk_g?phone|Android SDK built for|\bCuttlefish\b", re.I
)
CPUS = "/proc/cpuinfo"  # with the serial number of older Raspberry Pis
IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")  # of the system: another one after each installation
# What makers leave: zeros, one character over and over, digits in their order, forms to be filled in.
FORMS = re.compile(
    r"(.?)\1*|0?123456789(0|abcdef)?|none|unknown|undefined|invalid|empty|n/?a|o\.?e\.?m\.?|to be filled.*"
    r"|default string|not (specified|applicable|available)|(system|chassis|base board) (serial|product).*",
    re.I,
)


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
    return _first(tree, MODELS)


def soc(tree: Tree) -> Reading:
    """The processor's name by Android."""
    return _first(tree, ("$ getprop ro.soc.model",))


def identity(tree: Tree) -> Reading:
    """The board's serial number, else the system's id, which is another after each installation."""
    if found := identified(tree.texts):
        return Reading(clip(found[0], 120), "", found[1])
    return _none(tree, (*SERIALS, *IDS))


def identified(texts: Mapping[str, str]) -> tuple[str, str] | None:
    """What a machine is known by, and the path of the text that says it."""
    serial = re.search(r"^Serial\s*:\s*(\S+)\s*$", texts.get(CPUS, ""), re.M)
    ids = {path: text for path in IDS if re.fullmatch(r"[0-9a-f]{32}", text := texts.get(path, ""))}
    serials = {**texts, CPUS: serial[1] if serial else ""}
    return first_told(serials, (*SERIALS[:2], CPUS, *SERIALS[2:])) or first_told(ids, IDS)


def first_told(texts: Mapping[str, str], paths: Sequence[str]) -> tuple[str, str] | None:
    """The first text that says something, and its path."""
    for path in paths:
        text = " ".join(texts.get(path, "").split())
        if text and not FORMS.fullmatch(text):
            return text, path
    return None


def emulated(tree: Tree) -> Reading:
    """Whether Android's emulator or a virtual board says so; False only says that neither does."""
    said = emulator(tree.texts)
    return Reading(bool(said), "", said or "model, getprop")


def emulator(texts: Mapping[str, str]) -> str | None:
    """The path of the text that says that it is one; None where none does."""
    name, path = first_told(texts, MODELS) or ("", "")
    said = next((path for path, word in EMULATORS.items() if re.fullmatch(word, texts.get(path, ""))), None)
    return said or (path if EMULATED.search(name) else None)


def _first(tree: Tree, paths: Sequence[str]) -> Reading:
    if found := first_told(tree.texts, paths):
        return Reading(clip(found[0], 120), "", found[1])
    return _none(tree, paths)


def _none(tree: Tree, paths: Sequence[str]) -> Reading:
    whys = [f"{path}: {'nothing that names it' if tree.get(path) else tree.why(path)}" for path in paths]
    return unavailable("", paths[0], "; ".join(whys))
