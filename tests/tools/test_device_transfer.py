"""How far a transfer to a device is: in words, on a terminal's bar, and on none."""

from __future__ import annotations

import io
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime.errors import SetupError
from smolship.tools.console import Screen
from smolship.tools.devices import adb, store, transfer
from smolship.tools.devices.store import Store
from smolship.tools.devices.transfer import Transfer
from smolship.tools.devices.uri import parse
from smolship.tools.display import Steps
from tests.tools.local_link import LocalLink

PIECE, MB = 1 << 16, 1_000_000


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_bytes_and_rate_some_times_a_second() -> None:
    clock, told = Clock(), list[tuple[Any, ...]]()
    moving = Transfer(lambda *said: told.append(said), 90 * MB, 10 * MB, clock=clock)
    moving.moved(0)
    assert told == [("10.0 MB of 90.0 MB", 10 * MB, 90 * MB)]
    for _ in range(80):  # of 10 s, at 2 MB/s
        clock.now += 0.125
        moving.moved(int((clock.now - 100) * 2 * MB))
    assert len(told) == 41 and told[-1][0] == "30.0 MB of 90.0 MB, 2.00 MB/s"
    moving.arrived(20 * MB)
    for _ in range(20):  # slower: what is shown is of the last seconds
        clock.now += 1
        moving.arrived(MB // 2)
    assert ", 500 kB/s" in told[-1][0] and moving.done == 40 * MB
    moving.arrived(50 * MB)  # at once, and it is the end: told nonetheless
    assert told[-1][1:] == (90 * MB, 90 * MB)


def test_what_is_short_is_not_told() -> None:
    clock, told = Clock(), list[str]()
    hashing = Transfer(lambda what, *_: told.append(what), 4, what="hashing there", silent_s=1, clock=clock)
    for _ in range(3):
        hashing.arrived(1)
        clock.now += 0.3
    assert told == []
    clock.now += 0.4
    hashing.arrived(1)
    assert told[-1].startswith("hashing there, 4 B of 4 B, ")


def sent(tmp_path: Path, progress: Any) -> None:
    """A file of four pieces, to this machine."""
    (tmp_path / "file").write_bytes(os.urandom(4 * PIECE))
    Store(LocalLink(), f"{tmp_path}/there", PIECE).put({"file": tmp_path / "file"}, progress)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "mount_of", lambda path, mounts: None)
    monkeypatch.setattr(store, "SILENT_S", 0.0)
    monkeypatch.setattr(transfer, "EACH_S", 0.0)


@pytest.mark.usefixtures("at_once")
def test_sending_and_hashing_are_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    progress = lambda *said: told.append(said)  # noqa: E731
    sent(tmp_path, progress)
    moved = [done for what, done, total in told if not what.startswith("hashing") and total == 4 * PIECE]
    hashed = [done for what, done, _ in told if what.startswith("hashing there, ")]
    assert moved == sorted(moved) and moved[0] == 0 and moved[-1] == 4 * PIECE and len(set(moved)) == 5
    assert hashed == [PIECE, 2 * PIECE, 3 * PIECE, 4 * PIECE]
    told.clear()
    Store(LocalLink(), f"{tmp_path}/there", PIECE).put({"file": tmp_path / "file"}, progress)  # all is there
    assert [done for what, done, _ in told if what.startswith("hashing")] == hashed
    assert told[-1][1:] == (4 * PIECE, 4 * PIECE)


@pytest.mark.usefixtures("at_once")
def test_a_bar_on_a_terminal_and_one_line_elsewhere(tmp_path: Path) -> None:
    for terminal in (True, False):
        out = io.StringIO()
        screen = Screen(file=out, force_terminal=terminal, width=140)
        with Steps(screen) as steps:
            sent(tmp_path, partial(steps.update, "send onnx"))
        said = out.getvalue()
        assert "send onnx" in said and "100 %" in said and "262 kB of 262 kB" in said
        if not terminal:
            assert "\x1b" not in said and "\r" not in said and len(said.splitlines()) == 1
        for path in sorted(tmp_path.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()


FAKE = """#!/bin/sh
while [ "$1" = -s ] || [ "$1" = -P ]; do shift 2; done
case "$1" in
version) echo 'Android Debug Bridge version 1.0.41' ;;
devices) printf 'List of devices attached\\none device\\n' ;;
features) echo shell_v2 ;;
shell) shift; if [ "$1" = -T ]; then shift; fi; sh -c "$*" ;;
push)
    [ -t 1 ] || { echo 'no terminal'; exit 1; }
    for n in 0 ' 7' 50 99 100; do printf '\\r[ %s%%] %s\\033[K' "$n" "$3"; done
    case "$2" in *full) echo 'adb: error: failed to copy: No space left on device'; exit 1 ;; esac
    cp "$2" "$3"; printf '\\r%s: 1 file pushed\\033[K\\r\\n' "$2" ;;
esac
"""


def test_adb_tells_a_terminal_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/adb").write_text(FAKE)
    (tmp_path / "bin/adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TERM", "dumb")
    for name in ("ANDROID_SERIAL", "ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
    link, told = adb.connect(parse("adb://one")), list[int]()
    (tmp_path / "content").write_bytes(bytes(1000))
    link.push(tmp_path / "content", f"{tmp_path}/there", told.append)
    assert told and told == sorted(told) and told[-1] == 1000 and set(told) <= {0, 70, 500, 990, 1000}
    assert (tmp_path / "there").read_bytes() == bytes(1000)
    (tmp_path / "full").write_bytes(bytes(10))
    with pytest.raises(SetupError) as caught:
        link.push(tmp_path / "full", f"{tmp_path}/other")
    assert caught.value.parts()["got"] == "adb: error: failed to copy: No space left on device"
    assert not re.search(r"\[ *\d+%\]|\x1b", str(caught.value))
