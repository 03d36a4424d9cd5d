"""The commands on an emulated arm64 phone over adb: what runs there brings its own loader and libraries."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smolship.runtime.errors import SetupError
from smolship.runtime.process import roots
from smolship.tools.cli import run
from smolship.tools.devices import adb, adb_pulse, store, sums
from smolship.tools.devices.build import build_carried, programs
from smolship.tools.devices.link import LinkLost
from smolship.tools.devices.opening import runners
from smolship.tools.devices.uri import parse
from tests.device.adb_server import adb_server
from tests.device.adbd import Adbd, Quirks
from tests.device.arm_phone import ArmPhone, arm_phone

pytestmark = pytest.mark.real
CACHE = Path(__file__).parents[2] / ".cache"
PAGE = 1 << 14  # bytes, of phones since Android 15
Start = Callable[..., Adbd]


@pytest.fixture(scope="module")
def phone() -> Iterator[ArmPhone]:
    with arm_phone() as running:
        yield running


@pytest.fixture
def start(phone: ArmPhone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """start(...) -> adb's side of the phone with such quirks, at a server of this test's own."""
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    started: list[Adbd] = []
    with adb_server(tmp_path / "home") as port:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))

        def begin(**quirks: object) -> Adbd:
            started.append(phone.adbd(replace(Quirks(), **quirks)))  # type: ignore[arg-type]
            return started[-1]

        yield begin
        for each in started:
            each.quirks.frozen = False
            each.close()


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tmp_path_factory) -> Path:  # type: ignore[no-untyped-def]
    """At a name that a shell would read."""
    return shutil.copytree(tiny_bundle("llama", "int4"), tmp_path_factory.mktemp("b") / "a b;$(touch x)'\"\n")


def said(capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(list(command))
    return (code, *capsys.readouterr())


def uri(device: Adbd) -> str:
    return f"adb://{device.serial}"


def ours(phone: ArmPhone) -> Path:
    return phone.tmp / "smolship/device"


def until(what: Callable[[], object], seconds: float) -> bool:
    over = time.monotonic() + seconds
    while not what():
        if time.monotonic() > over:
            return False
        time.sleep(0.1)
    return True


def test_parity_and_bench(capsys, bundle, start, phone):  # type: ignore[no-untyped-def]
    there = uri(start())
    code, out, err = said(capsys, "devices", "list", there, "--json")
    (found,) = json.loads(out)
    assert code == 0 and found["model"] == "Pixel 8" and found["system"] == "Android 15", err
    assert found["machine"] == "aarch64" and found["libc"] is None and found["python"] is None
    ask = ("parity", str(bundle), "-t", "executorch", "--quick", "--device", there, "--json")
    code, out, err = said(capsys, *ask)
    assert code == 0, out + err
    (report,) = json.loads(out)
    assert report["passed"] and "aarch64-with-glibc" in report["host"]
    code, out, err = said(capsys, "bench", str(bundle), "-t", "executorch", "--repeats", "1", "--device", there)
    assert code == 0 and "decode after" in out, err
    assert "a b" not in str(list(phone.tmp.rglob("*")))


def test_all_that_is_sent_fits_large_pages(start) -> None:  # type: ignore[no-untyped-def]
    found = programs(build_carried("aarch64", runners()))
    assert all(one.machine == "aarch64" and one.align is not None and one.align >= PAGE for one in found.values())
    needed = {name for one in found.values() for name in one.needed}
    assert "ld-linux-aarch64.so.1" in found and "libc.so.6" in found and needed <= set(found)


def test_a_file_larger_than_its_shell_counts(start) -> None:  # type: ignore[no-untyped-def]
    """mksh's numbers have 32 bits: 3 GB would be less than nothing."""
    link, big = adb.connect(parse(uri(start()))), "/data/local/tmp/big"
    length = 3 * (1 << 30) + 5
    hole = f"dd if=/dev/null of={big} bs=1 seek={length}; echo end | dd of={big} bs=65536 seek=49152 conv=notrunc"
    asked = f"( {hole} ) 2>/dev/null\necho $((1 << 31)); size {big}; skipped {big} 49152 1; rm {big}"
    skipped = 'skipped() { dd if="$1" bs=65536 skip=$(($3 * $2)) count=1 2>/dev/null | sum; }'
    done = link.run("\n".join([sums.SCRIPT, store.SCRIPT, skipped, asked]), limit_s=120)
    _, most, size, row = done.out.decode().splitlines()
    assert int(most) < 0, "the shell counts further: nothing is tried here"
    assert size == str(length) and row.split()[0] == hashlib.sha256(b"end\n\0").hexdigest()


def test_what_needs_python_is_refused(capsys, bundle, start):  # type: ignore[no-untyped-def]
    there = uri(start())
    code, _, err = said(capsys, "parity", str(bundle), "-t", "onnx", "--device", there)
    assert code == 3 and "needs Python there" in err and "executorch" in err
    code, _, err = said(capsys, "devices", "setup", there)
    assert code == 3 and "no Python there" in err and "ExecuTorch" in err


def test_an_old_phone_and_a_command_that_is_killed(capsys, bundle, start, phone):  # type: ignore[no-untyped-def]
    """Android 6: a terminal in between, and no exit status. kill -9 while the runner computes leaves nothing there."""
    there = uri(start(shell_v2=False, terminal=True))
    lock = ours(phone) / "runs/lock"
    line = [sys.executable, "-m", "smolship.tools.cli", "parity", str(bundle), "-t", "executorch", "--device", there]
    process = subprocess.Popen(line, env=os.environ | {"PYTHONPATH": roots()}, stderr=subprocess.PIPE)
    assert until(lambda: (lock / "holder").exists() or process.poll() is not None, 300)  # 15 files, a second a call
    assert lock.exists() and until(phone.commands, 5), process.communicate()[1]
    process.kill()
    process.communicate()
    assert until(lambda: not lock.exists(), 45)
    assert until(lambda: not phone.commands(), 10), phone.commands()
    code, out, err = said(capsys, "parity", str(bundle), "-t", "executorch", "--quick", "--device", there)
    assert code == 0, out + err


def test_a_cable_pulled_while_it_sends_and_while_it_runs(capsys, bundle, start, phone):  # type: ignore[no-untyped-def]
    ask = ("parity", str(bundle), "-t", "executorch", "--quick", "--device")
    stale = "mkdir -p $D/runs/lock && echo 1 another-boot host-1 >$D/runs/lock/holder"  # the phone lost its power
    subprocess.run([*phone.enter, f"D=/data/local/tmp/smolship/device; {stale}"], check=True)
    assert said(capsys, "devices", "clean", uri(start()))[0] == 0
    assert not list(phone.tmp.rglob("*"))
    code, _, err = said(capsys, *ask, uri(start(cut_after=6_000_000, leaves=True)))
    assert code == 3 and "push" in err, err
    files = list((ours(phone) / "files").iterdir())
    assert files and not phone.commands()
    kept = {path: path.stat().st_ino for path in files}

    device, before = start(), adb.ADBLink.run

    def pulled(self, script, **given):  # type: ignore[no-untyped-def]
        if "LOCK=" not in script:
            return before(self, script, **given)
        hand = given.pop("lines")

        def line(raw: bytes) -> None:
            hand(raw)
            if b"started" in raw:
                device.close()

        return before(self, script, lines=line, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adb.ADBLink, "run", pulled)
        code, _, err = said(capsys, *ask, uri(device))
    assert code == 3 and "the link was lost while it ran" in err, err
    assert {path: path.stat().st_ino for path in kept} == kept  # not sent again
    assert until(lambda: not phone.commands(), 45), phone.commands()
    assert not (ours(phone) / "runs/lock").exists()


def test_what_is_told_before_anything_runs(capsys, bundle, start, phone, monkeypatch):  # type: ignore[no-untyped-def]
    ask = ("parity", str(bundle), "-t", "executorch", "--quick", "--device")
    first = start()
    assert said(capsys, "devices", "clean", uri(first))[0] == 0
    second = start(room=1000)
    code, _, err = said(capsys, *ask, uri(second))
    assert code == 3 and "No space left" in err
    code, _, err = said(capsys, *ask, "adb://")
    assert code == 2 and "several phones" in err and uri(first) in err and uri(second) in err
    code, _, err = said(capsys, *ask, uri(start(unauthorized=True)))
    assert code == 3 and "Allow USB debugging" in err
    code, out, err = said(capsys, "devices", "list")
    assert code == 0 and "Allow USB debugging" in " ".join(out.split())
    monkeypatch.setenv("ANDROID_SERIAL", first.serial)
    code, out, err = said(capsys, "devices", "list", "adb://", "--json")
    assert code == 0 and f"ANDROID_SERIAL names the phone: {first.serial}" in err
    over = time.monotonic() + 10  # busybox' `timeout` leaves a process that looks once a second whether it is needed
    while phone.commands() and time.monotonic() < over:
        time.sleep(0.5)
    assert not phone.commands()


def test_a_silent_phone_is_lost_and_a_busy_one_is_not(start, monkeypatch, tmp_path):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(adb_pulse, "QUIET_S", 0.2)
    monkeypatch.setattr(adb_pulse, "ANSWER_S", 1.5)
    device = start()
    link = adb.connect(parse(uri(device)))
    assert link.run("sleep 2; echo slow", limit_s=60).out == b"slow\n"

    def freeze(line: bytes) -> None:
        device.quirks.frozen = True

    began = time.monotonic()
    with pytest.raises(LinkLost, match="silent"):
        link.run("echo on; sleep 50", lines=freeze, limit_s=60)
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    with pytest.raises(SetupError, match="push: the phone is silent"):
        link.push(tmp_path / "file", "/data/local/tmp/file")
    assert time.monotonic() - began < 25
