"""What the files and commands of a machine say: a tree of texts.

The path of a command's output is "$ " and its words. A text that cannot be had has an error's name in its place, such
as ENOENT, EINVAL or ENODATA; EMPTY, where reading gave nothing and the reader could not say why. A pattern that nothing
matches has one, too.

A dump of a device is made by `dump.sh` and has a line for each line of a text:

    =PATH<TAB>LINE    a line of the text
    !PATH<TAB>ERROR   there is none, and why
    ~PATH<TAB>TEXT    an implausible value, which was read again
    @SECONDS          a sample begins; seconds since the device started
    .                 the sample or the dump is complete
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from smolship.runtime.errors import InputError, clip
from smolship.runtime.sensors.reading import Reading, Value, unavailable

ZONES = "/sys/class/thermal/thermal_zone*/"
POLICIES = "/sys/devices/system/cpu/cpufreq/policy*/"
# Read once a second; PID stands for the process that is measured.
OFTEN = (
    "/proc/uptime",
    f"{ZONES}type",
    f"{ZONES}temp",
    f"{POLICIES}cpuinfo_max_freq",
    f"{POLICIES}scaling_cur_freq",
    f"{POLICIES}scaling_max_freq",
    f"{POLICIES}scaling_governor",
    f"{POLICIES}scaling_driver",
    f"{POLICIES}affected_cpus",
    "/proc/meminfo",
    "/proc/pressure/*",
    "/proc/loadavg",
    "/proc/PID/status",
    "/proc/PID/stat",
    "/proc/PID/cgroup",
    "/sys/class/powercap/*/name",
    "/sys/class/powercap/*/energy_uj",
    "/sys/class/powercap/*/max_energy_range_uj",
)
ONCE = (
    f"{POLICIES}cpuinfo_min_freq",
    f"{POLICIES}scaling_min_freq",
    f"{POLICIES}related_cpus",
    "/sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq",
    "/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq",
    "/sys/devices/system/cpu/cpu*/cpufreq/scaling_max_freq",
    "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    "/sys/devices/system/cpu/cpu*/cpufreq/scaling_driver",
    "/sys/devices/system/cpu/cpu*/cpufreq/affected_cpus",
    "/sys/devices/system/cpu/online",
    "/sys/class/power_supply/*/type",
    "/sys/class/power_supply/*/scope",
    "/sys/class/power_supply/*/online",
    "/sys/class/power_supply/*/capacity",
    "/sys/class/power_supply/*/status",
    "/sys/class/power_supply/*/temp",
    "/sys/class/power_supply/*/voltage_now",
    "/sys/firmware/acpi/platform_profile",
    "/proc/PID/smaps_rollup",
    "/proc/sys/kernel/random/boot_id",
    "/proc/device-tree/model",
    "/proc/device-tree/serial-number",
    "/sys/class/dmi/id/product_name",
    "/sys/class/dmi/id/product_serial",
    "/etc/machine-id",
)
COMMANDS_OFTEN = ("vcgencmd get_throttled", "vcgencmd measure_temp")
COMMANDS = (
    *COMMANDS_OFTEN,
    "dumpsys thermalservice",
    "dumpsys battery",
    "dumpsys power",
    "settings get global low_power",
    *(f"getprop ro.{name}" for name in ("product.model", "soc.model", "serialno", "build.version.sdk")),
    *(f"getprop ro.{name}" for name in ("kernel.qemu", "boot.qemu", "hardware")),
)
FOLDERS = ":/usr/sbin:/usr/bin:/sbin:/bin:/opt/vc/bin:/system/bin:/vendor/bin"  # behind PATH
LIMIT = 1 << 18  # characters of one text
SECONDS = 5.0  # of one command


@dataclass
class Tree:
    """
    texts    path -> text, without the newline at its end
    errors   path -> the error's name, or a command's words
    again    path -> the implausible text that was there before it was read again
    seconds  since the machine started, where the dump is a sample
    whole    whether the dump came to its end
    """

    texts: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    whole: bool = True

    def get(self, path: str) -> str | None:
        return self.texts.get(path)

    def why(self, path: str) -> str:
        """Why there is no text."""
        return self.errors.get(path) or ("ENOENT" if self.whole else "the dump was cut off")

    def folders(self, pattern: str) -> list[str]:
        """Folders of which some file is known, in the order of the numbers in their names."""
        paths = (path for path in (*self.texts, *self.errors) if path.startswith("/") and "*" not in path)
        known = {path.rpartition("/")[0] for path in paths}
        return sorted(fnmatch.filter(known, pattern.rstrip("/")), key=natural)

    def reading(self, path: str, unit: str, value: Value | None, expected: str) -> Reading:
        """`value` that was found in the text of `path`; where that is None, with the reason."""
        if value is not None:
            return Reading(value, unit, path)
        text = self.get(path)
        return unavailable(unit, path, self.why(path) if text is None else f"not {expected}: {clip(text, 80)!r}")


def natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts thermal_zone10 behind thermal_zone9."""
    return [(int(part or 0), name) for name, part in re.findall(r"(\D*)(\d{0,18})", text)]


def read_tree(sysroot: Path = Path("/"), pid: int | Literal["self"] = "self", *, often: bool = False) -> Tree:
    """The texts of this machine; of a captured one, where `sysroot` is a folder that lies like its root. Commands'
    outputs lie there as files in "commands", named like the commands. `often`: only what changes from second to
    second."""
    tree = Tree()
    files, commands = (OFTEN, COMMANDS_OFTEN) if often else (OFTEN + ONCE, COMMANDS)
    for pattern in files:
        pattern = pattern.replace("PID", str(pid)).lstrip("/")
        found = sorted(sysroot.glob(pattern)) if "*" in pattern else [sysroot / pattern]
        for file in found:
            _read(tree, file, "/" + file.relative_to(sysroot).as_posix())
        if not found:
            folder = sysroot / pattern.partition("*")[0].rpartition("/")[0]
            tree.errors[f"/{pattern}"] = "EACCES" if folder.is_dir() and not os.access(folder, os.R_OK) else "ENOENT"
    for command in commands:
        if sysroot != Path("/"):
            _read(tree, sysroot / "commands" / command, f"$ {command}")
        else:
            _run(tree, command)
    return tree


def _read(tree: Tree, file: Path, path: str) -> None:
    text, error = _text(file)
    if path.endswith("/temp") and error != "ENOENT" and not _plausible(text):
        tree.again[path] = text or error
        text, error = _text(file)
    if error:
        tree.errors[path] = error
    else:
        tree.texts[path] = text


def _text(file: Path) -> tuple[str, str]:
    """A file's text, and the error's name where there is none."""
    try:
        with file.open("rb") as opened:
            return clean(opened.read(LIMIT).decode("utf-8", "replace")), ""
    except OSError as error:
        return "", errno.errorcode.get(error.errno or 0, "EIO")


VALUES = tuple(f"$ {name} " for name in ("getprop", "settings", "getconf", "uname"))  # what prints one line


def value_of(path: str, text: str) -> str:
    """A text; of a command that prints one value, that alone: a loader or a locale may have had its say before."""
    return text.rpartition("\n")[2] if path.startswith(VALUES) else text


def clean(text: str) -> str:
    """Without NUL, CR, and the newlines at its end."""
    return text.replace("\0", " " if "\0" in text.rstrip("\0\n") else "").replace("\r", "").rstrip(" \n")


def _plausible(text: str) -> bool:
    """Whether it may be a temperature, in °C or in a thousandth of it."""
    return bool(re.fullmatch(r"-?[0-9]{1,6}", text)) and -30_000 <= int(text) <= 125_000


def _run(tree: Tree, command: str) -> None:
    words = command.split()
    program = shutil.which(words[0], path=os.environ.get("PATH", os.defpath) + FOLDERS)
    if not program:
        tree.errors[f"$ {command}"] = "not installed"
        return
    try:
        done = subprocess.run(
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        tree.errors[f"$ {command}"] = str(error)
        return
    text = clean(done.stdout[:LIMIT].decode("utf-8", "replace"))
    tree.texts[f"$ {command}"] = value_of(f"$ {command}", text)


def functions() -> str:
    """Those of the shell that write files and commands' outputs as lines of a dump."""
    return (Path(__file__).parent / "dump.sh").read_text()


def script(pid: str, *, often: bool = False) -> str:
    """The POSIX script that writes a dump of the machine it runs on to standard output; `often`: a sample, of what
    changes from second to second, by the shell's own commands where the machine has no vcgencmd. `pid` is a process'
    number, or what gives it in the shell, such as "$pid"."""
    if not re.fullmatch(r"[0-9]+|self|\$\{?[A-Za-z_]\w*\}?", pid):
        raise InputError("not a process' number", got=pid, expected="digits, self, or a variable of the shell")
    files, commands = (OFTEN, COMMANDS_OFTEN) if often else (OFTEN + ONCE, COMMANDS)
    lines = [functions(), f"PATH=${{PATH-}}{FOLDERS}", "smolship_begin" if often else ""]
    lines.append("smolship_files \\\n" + " \\\n".join(path.replace("PID", pid) for path in files))
    lines += [f"smolship_command {command}" for command in commands]
    return "\n".join([line for line in lines if line] + ["smolship_end", ""])


def parse_dump(dump: bytes) -> Tree:
    """The tree of a whole dump; of its first sample, where it has several. Lines that are no dump's are passed over: a
    start file may print. Raises InputError where no line is."""
    trees = parse_samples(dump)
    if not trees:
        raise InputError("not a dump of sensors", got=clip(dump[:80].decode("utf-8", "replace")), expected="=PATH …")
    return trees[0]


def parse_samples(dump: bytes) -> list[Tree]:
    """The trees of the samples, in order. The last one's `whole` is False where it was cut off."""
    lines = dump.decode("utf-8", "replace").replace("\r", "").split("\n")
    return list(_samples(lines[:-1]))  # behind the last newline lies nothing, or half a line


def _samples(lines: Sequence[str]) -> Iterator[Tree]:
    tree: Tree | None = None
    kept: dict[str, list[str]] = {}
    for line in lines:
        kind, (path, tab, text) = line[:1], line[1:].partition("\t")
        if kind == "@" and re.fullmatch(r"@[0-9.]*", line):
            if tree:
                yield _finished(tree, kept)
            tree, kept = Tree(whole=False), {}
            if re.fullmatch(r"[0-9]+(\.[0-9]+)?", path):
                tree.seconds = float(path)
        elif line == "." and tree:
            tree.whole = True
            yield _finished(tree, kept)
            tree, kept = None, {}
        elif kind in ("=", "!", "~") and tab and path[:1] in ("/", "$"):
            tree = tree or Tree(whole=False)
            if kind == "=":
                kept.setdefault(path, []).append(text)
            else:
                (tree.errors if kind == "!" else tree.again)[path] = text
    if tree:
        yield _finished(tree, kept)


def _finished(tree: Tree, kept: dict[str, list[str]]) -> Tree:
    if kept and not tree.whole:  # of the last text, nobody knows whether it had further lines
        path, _ = kept.popitem()
        tree.errors[path] = tree.why("")
    tree.texts = {path: value_of(path, clean("\n".join(lines))) for path, lines in kept.items()}
    return tree
