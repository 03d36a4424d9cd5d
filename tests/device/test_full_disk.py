"""A device's disk that is really full: what is said, what is left there, and that the next run goes on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smolship.runtime.errors import InputError, SetupError
from smolship.tools.cli import run
from smolship.tools.devices import showing, store
from smolship.tools.devices.facts import read_device
from smolship.tools.devices.job import Job
from smolship.tools.devices.runners import Runner
from smolship.tools.devices.store import Store
from smolship.tools.devices.uri import parse
from tests.device.board import board
from tests.device.board_root import UID
from tests.device.disks import disk, fill
from tests.tools.local_link import LocalLink
from tests.tools.test_device_job import LEADS, PLAN, SHELLS, gone

pytestmark = pytest.mark.real
PIECE = 1 << 16


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with disk(tmp_path, 16) as point:
        yield point


class Counting(LocalLink):
    """Pushes through the device's shell, as over SSH: a full disk is told by its programs."""

    def push(self, content, to, sent=lambda count: None):  # type: ignore[no-untyped-def]
        self.pushed.append(to)
        done = self.run(f"cat >{to}.part && mv {to}.part {to}", feed=[content.read_bytes()], limit_s=60)
        if done.status:
            self.run(f"rm -f {to}.part", limit_s=60)
            raise SetupError("push: a file cannot be written there", got=done.err.decode())


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
@pytest.mark.parametrize("room", [0, 100_000, 1_000_000, 1_000_000 + PIECE // 2])
def test_it_runs_out_on_the_way_and_the_next_run_goes_on(
    small: Path, tmp_path: Path, room: int, shell: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `df` says nothing, or another program takes the room meanwhile."""
    content = tmp_path / "content"
    content.write_bytes(os.urandom(30 * PIECE))
    link = Counting(shell)
    kept = Store(link, f"{small}/device", PIECE)
    kept.put({})
    ballast = fill(small, room)
    with monkeypatch.context() as patch:
        patch.setattr(store, "free_bytes", lambda df: None)
        with pytest.raises(SetupError) as caught:
            kept.put({"model": content})
    parts = caught.value.parts()
    assert caught.value.exit_code == 3 and "push: the device's disk is full" in str(parts["what"])
    assert "No space left" in str(parts["got"]) and "goes on" in str(parts["todo"])
    assert not list((small / "device/files").iterdir()), "a file that is not whole passes for one"
    left = list((small / "device/parts").iterdir())
    assert all("." not in path.name for path in left), left
    ballast.unlink()
    sent = len(link.pushed)
    folder = kept.put({"model": content})
    assert (Path(folder) / "model").read_bytes() == content.read_bytes()
    again = len(link.pushed) - sent
    assert again <= 30 - max(0, room // PIECE - 3), f"{again} pieces were sent again"
    assert not list((small / "device/parts").iterdir())


def test_room_is_asked_for_first(small: Path, tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(os.urandom(30 * PIECE))
    link = Counting()
    fill(small, 1_000_000)
    with pytest.raises(SetupError, match="not enough space on the device") as caught:
        Store(link, f"{small}/device", PIECE).put({"model": tmp_path / "content"})
    assert link.pushed == [] and "nothing was sent" in str(caught.value)


def test_copies_that_find_no_room_are_not_left(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without links of any kind, as on most cards."""
    (tmp_path / "content").write_bytes(os.urandom(20 * PIECE))
    kept = Store(Counting(), f"{small}/device", PIECE)
    kept.put({"model": tmp_path / "content"})
    ballast = fill(small, 10 * PIECE)
    monkeypatch.setattr(store, "SCRIPT", store.SCRIPT.replace("ln ", "false "))
    before = sorted((small / "device/ready").iterdir())
    with pytest.raises(SetupError, match="the device's disk is full"):
        kept.put({"model": tmp_path / "content"})
    assert sorted((small / "device/ready").iterdir()) == before
    ballast.unlink()
    assert (Path(kept.put({"model": tmp_path / "content"})) / "model").stat().st_size == 20 * PIECE


def job(small: Path, code: str, shell: tuple[str, ...]) -> Job:
    runner = Runner("fake", {}, [sys.executable, "-E", "-c", f"import sys, os, time, json\n{LEADS}{code}"])
    (small / "runs").mkdir(exist_ok=True)
    return Job(LocalLink(shell), str(small / "runs"), str(small), str(small), runner, "0" * 64)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
def test_no_room_for_the_files_of_a_run(small: Path, shell: tuple[str, ...]) -> None:
    """The plan is there, and then nothing more can be written: nothing is started, and nothing waits."""
    where = job(small, "open('/tmp/never', 'w')", shell)
    ran = []
    before = where.link.push

    def push(content: Path, to: str) -> None:
        before(content, to)
        ran.append(fill(small))

    where.link.push = push  # type: ignore[method-assign,assignment]
    start = time.monotonic()
    with pytest.raises(SetupError, match="the run's files cannot be written there; nothing was started") as caught:
        where.execute(PLAN, lambda *a: None)
    assert time.monotonic() - start < 20 and "devices clean" in str(caught.value)
    assert not (small / "runs/lock").exists()
    ran[0].unlink()
    quick = job(small, "print(json.dumps({'error': ['InputError', 'ran']})); sys.exit(2)", shell)
    with pytest.raises(InputError, match="ran"):
        quick.execute(PLAN, lambda *a: None)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
def test_a_disk_that_becomes_full_while_it_runs(small: Path, shell: tuple[str, ...]) -> None:
    """The runner's own error is told, though its status cannot be written."""
    code = f"""
f = open({str(small / "ballast")!r}, 'wb', buffering=0)
for size in (65536, 1):
    try:
        while True: f.write(b'x' * size)
    except OSError: pass
time.sleep(2.5)
try:
    with open('result', 'w') as made: made.write('x' * 5000)
except OSError as error:
    print(json.dumps({{'error': ['SetupError', f'the result cannot be written: {{error.strerror}}']}}))
    sys.exit(3)
"""
    where = job(small, code, shell)
    start = time.monotonic()
    with pytest.raises(SetupError, match="the result cannot be written: No space left on device"):
        where.execute(PLAN, lambda *a: None)
    assert time.monotonic() - start < 30 and not (small / "runs/lock").exists()
    for name in ("pid", "alive"):
        if (found := list((small / "runs").glob(f"*/{name}"))) and (words := found[0].read_text().split()):
            assert gone(int(words[0]))


def test_a_full_disk_is_cleaned(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing more can be written, no program can be tried, and what is ours takes the room."""
    monkeypatch.setattr(showing, "link_to", lambda address: LocalLink())
    kept = Store(LocalLink(), f"{small}/smolship/device", PIECE)
    kept.put({})
    fill(small / "smolship/device")
    monkeypatch.setattr(showing, "look", lambda link, address: read_device(link, (f"{small}/smolship",)))
    with pytest.raises(SetupError, match="no folder on the device can take our files"):
        showing.described(parse("ssh://test"))
    assert showing.cleaned(parse("ssh://test"))["folders"] == [f"{small}/smolship/device"]
    assert list(small.iterdir()) == []


def test_an_emulated_board_whose_disk_is_full(tiny_bundle, tmp_path, capsys, monkeypatch):  # type: ignore[no-untyped-def]
    """The commands, with one folder: refused before anything is sent; out of room on the way, where `df` is not asked;
    and then done."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(__file__).parents[2] / ".cache"))
    bundle = str(tiny_bundle("llama", "int4"))
    with disk(tmp_path, 40) as homes:
        (homes / "pi").mkdir()
        os.chown(homes / "pi", UID, UID)
        with board(home=homes) as pi:
            monkeypatch.setenv("PATH", str(pi.clients), prepend=":")
            ask = ["parity", bundle, "-t", "executorch", "--quick", "--device", f"{pi.uri}/home/pi/.cache"]
            ballast, ours = fill(homes, 12 << 20), homes / "pi/.cache/smolship/device"
            assert run(ask) == 3 and "not enough space on the device" in (said := capsys.readouterr().err)
            assert "nothing was sent" in said and not list((ours / "files").iterdir())
            with monkeypatch.context() as patch:
                patch.setattr(store, "free_bytes", lambda df: None)
                assert run(ask) == 3 and "the device's disk is full" in (said := capsys.readouterr().err)
            assert "No space left" in said and "goes on with what has arrived" in said
            kept = {path: path.stat().st_ino for path in (ours / "files").iterdir()}
            assert not [path for path in (ours / "parts").iterdir() if "." in path.name]
            ballast.unlink()
            assert run(ask) == 0, capsys.readouterr().err
            assert kept and {path: path.stat().st_ino for path in kept} == kept  # not sent again
