"""How the texts are had: read here, read from a captured folder, or written by a device's shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from smolship.runtime.errors import InputError
from smolship.runtime.sensors import tree as tree_module
from smolship.runtime.sensors.snapshot import snapshot
from smolship.runtime.sensors.tree import parse_dump, parse_samples, read_tree, script
from tests.runtime.sensor_trees import PHONE, PI_4, ZONE, write

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SHELLS = [("dash",), ("bash", "--posix"), ("busybox", "ash"), ("mksh",), ("ksh",), ("sh",)]
SHELLS = [words for words in SHELLS if shutil.which(words[0])]


def test_a_captured_folder_reads_as_the_machine_did(tmp_path: Path) -> None:
    found = snapshot(read_tree(write(PI_4, tmp_path), 77), 77)
    assert found.temperatures["cpu-thermal"].value == 48.686 and found.throttled.value == 0x50000
    assert found.process.anonymous.value == 200_000 << 10 and found.battery.level.value is None


def test_nul_cr_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    write({"/proc/device-tree/model": ""}, tmp_path)
    (tmp_path / "proc/device-tree/model").write_bytes(b"Raspberry \xff Pi\r\0\0")
    assert read_tree(tmp_path).texts["/proc/device-tree/model"] == "Raspberry � Pi"


def test_a_temperature_is_read_again_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, answers = f"{ZONE}0/temp", {"temp": [("", "EINVAL"), ("45000", "")], "type": [("cpu", "")]}
    write({path: "", f"{ZONE}0/type": ""}, tmp_path)
    monkeypatch.setattr(tree_module, "_text", lambda file: answers.get(file.name, [("", "ENOENT")]).pop(0))
    monkeypatch.setattr(tree_module, "OFTEN", (f"{ZONE}*/type", f"{ZONE}*/temp"))
    monkeypatch.setattr(tree_module, "ONCE", ())
    monkeypatch.setattr(tree_module, "COMMANDS", ())
    found = read_tree(tmp_path)
    assert (found.texts[path], found.again[path]) == ("45000", "EINVAL")
    answers |= {"temp": [("-650788984", ""), ("", "EINVAL")], "type": [("cpu", "")]}
    found = read_tree(tmp_path)
    assert (found.errors[path], found.again[path]) == ("EINVAL", "-650788984")


def test_a_file_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        write(PI_4, root)
        (root / "proc/meminfo").chmod(0)
        user = os.geteuid()
        if user == 0:  # who reads everything
            os.seteuid(65534)
        try:
            found = read_tree(root)
        finally:
            os.seteuid(user)
    assert found.errors["/proc/meminfo"] == "EACCES" and "/proc/uptime" in found.texts


@linux
def test_this_machine() -> None:
    found = snapshot(read_tree())
    assert found.process.resident.value and found.memory.available.value and found.seconds.value
    assert found.scheduling.allowed.value


def tree_of(text: str, root: Path, shell: tuple[str, ...], path: str = "") -> bytes:
    """What the script writes on a machine whose root is `root`."""
    text = re.sub(r"(?m)(^|<)(?=/(?:proc|sys|etc)/)", lambda found: f"{found[1]}{root}", text)
    env = {"PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"], "LC_ALL": "C"}
    done = subprocess.run([*shell], input=text.encode(), capture_output=True, env=env)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    return done.stdout.replace(str(root).encode(), b"")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_the_script_says_what_is_there(shell: tuple[str, ...], tmp_path: Path) -> None:
    root, tools = tmp_path / "root", tmp_path / "tools"
    texts = {p: t for p, t in PHONE.items() if p.startswith("/")} | {"/etc/machine-id": "back\\slash \\n %s $(x) `y`"}
    write(texts, root)
    (root / "proc/device-tree").mkdir()
    (root / "proc/device-tree/model").write_bytes(b"A board\0")
    (root / "sys/class/thermal/thermal_zone2/temp").write_text("")
    tools.mkdir()
    for name, body in (
        (
            "dumpsys",
            'case $1 in battery) printf "%s\\r\\n" "Current Battery Service state:" "  level: 84";; *) exit 20;; esac',
        ),
        ("vcgencmd", 'echo "VCHI initialization failed" >&2; exit 255'),
        ("getprop", 'read x && echo "$x"; echo "$1"'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    found = parse_dump(b"Welcome!\n=not a dump\n" + tree_of(script("77"), root, shell, str(tools)))
    assert found.whole
    for path, text in texts.items():
        if not text.startswith("<"):
            assert found.texts[path] == text.rstrip("\n"), path
    assert found.texts["/proc/device-tree/model"] == "A board"
    assert found.errors["/sys/class/thermal/thermal_zone2/temp"] == "EMPTY"
    assert found.again["/sys/class/thermal/thermal_zone4/temp"] == "-650788984"
    assert found.texts["$ dumpsys battery"] == "Current Battery Service state:\n  level: 84"
    assert found.texts["$ getprop ro.serialno"] == "ro.serialno", "a command reads nothing of ours"
    assert found.errors["/sys/class/powercap/*/name"] == "ENOENT"
    assert found.errors["/proc/77/smaps_rollup"] == "ENOENT" and found.errors["$ settings get global low_power"]
    seen = snapshot(found, 77)
    assert seen.temperatures["BIG (2)"].value == 53.0 and seen.battery.level.value == 84.0
    assert "VCHI" in seen.throttled.why and seen.policies["policy4"].taken == 0.0


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_samples_follow_one_another(shell: tuple[str, ...], tmp_path: Path) -> None:
    root = write({p: t for p, t in PHONE.items() if p.startswith("/")}, tmp_path)
    one = tree_of("pid=77\n" + script("$pid", often=True), root, shell)
    first, second, cut = parse_samples(one + one.replace(b"1000.50", b"1001.50") + one[: len(one) // 2])
    assert (first.seconds, second.seconds, cut.seconds) == (1000.5, 1001.5, 1000.5)
    assert first.whole and second.whole and not cut.whole
    assert snapshot(second, 77).process.resident.value == 600_000 << 10
    assert snapshot(cut, 77).memory.total.value is None or not cut.whole
    assert "cut off" in cut.why("/nowhere")
    crlf = parse_samples(one.replace(b"\n", b"\r\n"))
    assert crlf[0].texts == first.texts


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_a_command_that_hangs_holds_nobody(shell: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "vcgencmd").write_text("#!/bin/sh\necho half a line; exec sleep 4321\n")
    (tmp_path / "vcgencmd").chmod(0o755)
    text = script("1", often=True).replace("timeout 5", "timeout 0.2")
    found = parse_dump(tree_of(text, tmp_path, shell, str(tmp_path)))
    said = found.texts["$ vcgencmd get_throttled"].split("\n")  # busybox' shell adds a word of its own
    assert found.whole and (said[0], said[-1]) == ("half a line", "no end within 5 s")
    assert snapshot(found).throttled.value is None


@linux
@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_files_of_this_kernel_by_the_shell_s_own_reading(shell: tuple[str, ...]) -> None:
    """Where a process wakes or sleeps meanwhile, a line of its status gets longer, and a shell that reads in pieces may
    lose one: a second look has it."""
    for _ in range(3):
        done = subprocess.run([*shell], input=script(str(os.getpid())).encode(), capture_output=True)
        found = parse_dump(done.stdout)
        seen = snapshot(found, os.getpid())
        if seen.process.resident.value:
            break
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert found.texts["/proc/sys/kernel/random/boot_id"] == boot
    assert seen.process.resident.value and seen.scheduling.nice.value is not None and seen.memory.available.value


def test_a_dump_that_was_cut_off_has_no_half_text() -> None:
    whole = b"@7.0\n=/a\t1\n=/sys/class/thermal/thermal_zone0/temp\t45000\n.\n"
    (tree,) = parse_samples(whole)
    assert tree.whole and tree.texts["/sys/class/thermal/thermal_zone0/temp"] == "45000"
    for end in (1, 3, 5, 40):
        (tree,) = parse_samples(whole[:-end])
        assert not tree.whole and "/sys/class/thermal/thermal_zone0/temp" not in tree.texts
        assert "cut off" in tree.why("/sys/class/thermal/thermal_zone0/temp")


def test_what_is_no_dump_is_refused() -> None:
    for text in (b"", b"bash: no such file\n", b"=relative\ttext\n"):
        with pytest.raises(InputError, match="not a dump"):
            parse_dump(text)
    assert not parse_dump(b"=/proc/uptime\t5.0 1\n").whole
    with pytest.raises(InputError, match="process"):
        script("1; reboot")
