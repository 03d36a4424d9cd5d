"""ADBLink with the real adb client against an adbd of our own: a private server, a private HOME."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smolship.runtime.errors import InputError, SetupError
from smolship.tools.devices import adb
from smolship.tools.devices.link import LinkLost
from smolship.tools.devices.uri import parse
from tests.device.adb_server import adb_server
from tests.device.adbd import Adbd, Quirks
from tests.device.phone import enter, make_root

pytestmark = pytest.mark.real
Phone = Callable[..., Adbd]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("phone"))


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a server of this test's own, which ends with it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    with adb_server(tmp_path / "home") as number:
        yield number


@pytest.fixture
def phone(root: Path) -> Iterator[Phone]:
    started: list[Adbd] = []

    def start(**quirks: object) -> Adbd:
        started.append(Adbd(root, enter(root), replace(Quirks(), **quirks)))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for each in started:
        each.close()


def link(port: int, device: Adbd) -> adb.ADBLink:
    return adb.connect(parse(f"adb://{device.serial}"), server_port=port)


@pytest.mark.parametrize("shell_v2", [True, False])
def test_scripts_and_files(port: int, phone: Phone, tmp_path: Path, shell_v2: bool) -> None:
    device = phone(shell_v2=shell_v2)
    connected = link(port, device)
    assert connected.shell_v2 == shell_v2
    done = connected.run("getprop ro.product.model; echo gone >&2; exit 7", limit_s=20)
    assert (done.status, done.out.strip(), done.err.strip()) == (7, b"Pixel 8", b"gone")
    content = tmp_path / "a name $with; 'quotes'"
    content.write_bytes(bytes(range(256)) * 8192 + b"\r\n\n\r")
    told: list[int] = []
    connected.push(content, "/data/local/tmp/smolship/file", told.append)
    assert told == sorted(told) and told[-1] == content.stat().st_size
    connected.pull("/data/local/tmp/smolship/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content.read_bytes()
    left = [path.name for path in (device.root / "data/local/tmp").rglob("*") if path.suffix in (".part", ".err")]
    assert not left


def test_the_root_is_a_phones(port: int, phone: Phone) -> None:
    connected = link(port, phone())
    done = connected.run("ls -d /tmp /usr /etc; command -v python3 bash; touch /system/x || echo refused", limit_s=20)
    assert done.out.strip() == b"refused"


def test_feed_and_lines(port: int, phone: Phone) -> None:
    got: list[bytes] = []
    done = link(port, phone()).run("cat; echo end", feed=[b"one\n", b"two\n"], lines=got.append, limit_s=20)
    assert done.status == 0 and [line for line in got if line] == [b"one", b"two", b"end"]


def test_a_full_disk_and_a_folder_that_is_not_ours(port: int, phone: Phone, tmp_path: Path) -> None:
    connected = link(port, phone(room=1000))
    content = tmp_path / "file"
    content.write_bytes(bytes(5000))
    with pytest.raises(SetupError, match="No space left"):
        connected.push(content, "/data/local/tmp/big")
    with pytest.raises(SetupError, match="Read-only"):
        connected.push(content, "/system/big")
    assert b"big" not in connected.run("ls /data/local/tmp", limit_s=20).out


def test_a_cable_pulled_in_a_script(port: int, phone: Phone) -> None:
    device = phone()
    connected = link(port, device)

    def pull_it(line: bytes) -> None:
        device.close()

    start = time.monotonic()
    with pytest.raises(LinkLost, match="before the script did"):
        connected.run("echo begun; sleep 60", lines=pull_it, limit_s=60)
    assert time.monotonic() - start < 30


def test_a_cable_pulled_in_a_push_of_a_phone_on_the_network(port: int, phone: Phone, tmp_path: Path) -> None:
    device = phone()
    connected = link(port, device)
    content = tmp_path / "file"
    content.write_bytes(os.urandom(4 << 20))
    device.quirks.cut_after = 1 << 20
    connected.push(content, "/data/local/tmp/again")
    assert device.quirks.cut_after is None  # it was cut
    assert (device.root / "data/local/tmp/again").read_bytes() == content.read_bytes()


def test_two_phones_and_none_named(port: int, phone: Phone) -> None:
    first, second = phone(), phone()
    link(port, first), link(port, second)
    with pytest.raises(InputError, match="several phones") as caught:
        adb.connect(parse("adb://"), server_port=port)
    assert first.serial in str(caught.value) and second.serial in str(caught.value)


def test_a_phone_that_does_not_accept_the_key(port: int, phone: Phone) -> None:
    with pytest.raises(SetupError, match="Allow USB debugging"):
        link(port, phone(unauthorized=True))


def test_a_phone_that_does_not_answer(port: int, phone: Phone) -> None:
    with pytest.raises(SetupError) as caught:
        link(port, phone(offline=True))
    assert caught.value.exit_code == 3 and "connect" in str(caught.value)


def test_a_link_lost_between_scripts_comes_back(port: int, phone: Phone) -> None:
    device = phone()
    connected = link(port, device)
    device.cut()
    time.sleep(0.3)
    assert connected.run("echo again", limit_s=20).out.strip() == b"again"


def test_nobody_listens(port: int, phone: Phone) -> None:
    device = phone()
    device.close()
    with pytest.raises(SetupError, match="refused"):
        link(port, device)


def test_the_callers_input_is_left_alone(port: int, phone: Phone) -> None:
    read, write = os.pipe()
    kept = os.dup(0)
    try:
        os.write(write, b"the caller's")
        os.dup2(read, 0)
        link(port, phone()).run("cat; echo end", limit_s=20)
        assert os.read(0, 100) == b"the caller's"
    finally:
        os.dup2(kept, 0)
        for number in (read, write, kept):
            os.close(number)
