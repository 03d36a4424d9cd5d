"""adb's device list, refusals and frames, against a small program in adb's place."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from smolship.runtime.errors import InputError, SetupError
from smolship.tools.devices import adb
from smolship.tools.devices.adb_server import REMEDIES, Listed, parse_devices, server_version, unusable
from smolship.tools.devices.link import LinkLost
from smolship.tools.devices.uri import parse

LISTED = """* daemon not running; starting now at tcp:5037
* daemon started successfully
adb server version (40) doesn't match this client (41); killing...
List of devices attached
41021FDJH000PL         device usb:1-4 product:shiba model:Pixel_8 device:shiba transport_id:3
0123                   no permissions (user in plugdev group; are your udev rules wrong?); see \
[http://developer.android.com/tools/device/hardware.html] usb:1-1 transport_id:1
R58M\tunauthorized usb:1-2 transport_id:2
192.168.1.7:5555       offline transport_id:4
adb-R58M-x (2)._adb-tls-connect._tcp device product:a model:b device:c transport_id:5
7a                     authorizing transport_id:6
8a                     recovery transport_id:7
9a                     sideload transport_id:8\r
(no serial number)     unauthorized usb:1-7 transport_id:9
MY PHONE 2             device usb:1-9 product:a model:b transport_id:11
9b                     detached transport_id:10

"""
FAKE = """#!/bin/sh
echo "$*" >>"$FAKE/calls"
while [ "$1" = -s ] || [ "$1" = -P ]; do shift 2; done
case "$1" in
version) echo 'Android Debug Bridge version 1.0.41' ;;
devices) cat "$FAKE/listed" ;;
features) cat "$FAKE/features" ;;
connect) cp "$FAKE/after" "$FAKE/listed" ;;
shell) shift; if [ "$1" = -T ]; then shift; sh -c "$*"; exit; fi
    sh -c "$*" 2>&1 | sed -u 's/$/\\r/'; exit 0 ;;
push) echo '1 file pushed'; head -c "$(cat "$FAKE/arrives")" "$2" >"$3" ;;
esac
"""
Fake = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """fake(listed, ...) puts the program in PATH; its folder has the `calls` made."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/adb").write_text(FAKE)
    (tmp_path / "bin/adb").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    for name in ("ANDROID_SERIAL", "ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(adb, "SCRATCH", str(tmp_path))

    def write(*listed: str, features: str = "shell_v2\ncmd\n", after: str = "", arrives: int = 1 << 30) -> Path:
        head = "List of devices attached\n"
        (tmp_path / "listed").write_text(head + "".join(line + "\n" for line in listed))
        (tmp_path / "after").write_text(head + after + "\n")
        (tmp_path / "features").write_text(features)
        (tmp_path / "arrives").write_text(str(arrives))
        return tmp_path

    return write


def test_the_list_of_devices() -> None:
    found = parse_devices(LISTED)
    assert [device.serial for device in found] == [
        "41021FDJH000PL",
        "0123",
        "R58M",
        "192.168.1.7:5555",
        "adb-R58M-x (2)._adb-tls-connect._tcp",
        "7a",
        "8a",
        "9a",
        "(no serial number)",
        "MY PHONE 2",
        "9b",
    ]
    states = [device.state.partition(" (")[0] for device in found]
    assert ", ".join(states) == (
        "device, no permissions, unauthorized, offline, device, authorizing, recovery, sideload, unauthorized, "
        "device, detached"
    )
    assert found[0].model == "Pixel_8" and found[1].facts == {"usb": "1-1", "transport_id": "1"}


def test_serials_of_the_network() -> None:
    """As `adb devices` shows them, and as URIs have them."""
    second, v6 = "adb-R58M-x (2)._adb-tls-connect._tcp", "[fe80::1%wlan0]:5555"
    for uri, serial in (
        (f"adb://{second}", second),
        ("adb://adb-R58M-x%20(2)._adb-tls-connect._tcp", second),
        (f"adb://{v6}", v6),
        ("adb://[fe80::1%25wlan0]:5555/data/local/tmp", v6),
    ):
        assert parse(uri).serial == serial and adb.WIRELESS.fullmatch(serial)
    for uri in ("adb://a b", "adb://a (2) b", "adb://-s", "adb://(2)", "adb://a;b", "adb:// (2)", "adb://a\n"):
        with pytest.raises(InputError, match="a serial as"):
            parse(uri)


def test_each_state_has_its_own_remedy() -> None:
    assert len(set(REMEDIES.values())) == len(REMEDIES)
    for device in parse_devices(LISTED):
        if device.state != "device":
            error = unusable("adb://", device)
            assert error.exit_code == 3 and (error.parts()["todo"] or "") in REMEDIES.values()


def test_no_adb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="apt install adb"):
        adb.devices()


def test_which_phone(fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake("one device usb:1-1 model:A", "two unauthorized usb:1-2")
    with pytest.raises(InputError, match=r"one \(device, A\), two \(unauthorized\)"):
        adb.connect(parse("adb://"))
    assert adb.connect(parse("adb://one")).serial == "one"
    with pytest.raises(SetupError, match="no such phone"):
        adb.connect(parse("adb://three"))
    monkeypatch.setenv("ANDROID_SERIAL", "two")
    assert adb.connect(parse("adb://one")).serial == "one" and capsys.readouterr().err == ""
    with pytest.raises(SetupError, match="accept this computer's key"):
        adb.connect(parse("adb://"))
    assert "ANDROID_SERIAL" in capsys.readouterr().err


def test_phones_that_adb_cannot_tell_apart(fake: Fake) -> None:
    clones = ("0123456789ABCDEF connecting usb:1-1", "0123456789ABCDEF device usb:1-2 model:B")
    calls = fake(*clones) / "calls"
    with pytest.raises(SetupError, match="several phones have that serial") as error:
        adb.connect(parse("adb://0123456789ABCDEF"))
    assert "at 1-1" in str(error.value) and "at 1-2" in str(error.value) and "-s" not in calls.read_text()
    fake("????????????           no permissions; see [http://developer.android.com] usb:1-1")  # nor is its number known
    with pytest.raises(SetupError, match="udev rules"):
        adb.connect(parse("adb://"))
    fake("(no serial number) device usb:1-1 transport_id:4")
    with pytest.raises(SetupError, match="adb -t 4 tcpip 5555"):
        adb.connect(parse("adb://"))


def test_a_serial_with_a_space(fake: Fake) -> None:
    fake("MY PHONE 2             device usb:1-9 transport_id:11")
    with pytest.raises(SetupError, match="adb -t 11 tcpip 5555") as error:
        adb.connect(parse("adb://"))
    assert "MY PHONE 2" in str(error.value)


def test_a_phone_on_the_network_is_connected_again(fake: Fake) -> None:
    folder = fake("10.0.0.9:5555 offline", after="10.0.0.9:5555 device")
    assert adb.connect(parse("adb://10.0.0.9:5555")).serial == "10.0.0.9:5555"
    calls = (folder / "calls").read_text()
    assert calls.count("connect 10.0.0.9:5555") == 1 and "kill-server" not in calls


@pytest.mark.parametrize("features", ["shell_v2\ncmd\n", "cmd\n"])
def test_scripts_are_framed(fake: Fake, features: str) -> None:
    fake("one device", features=features)
    link = adb.connect(parse("adb://one"))
    done = link.run("printf '%s\\n' 'a b' \"c'd\"; echo wrong >&2; exit 9", limit_s=10)
    assert (done.status, done.out, done.err) == (9, b"a b\nc'd\n", b"wrong\n")
    got: list[bytes] = []
    assert link.run("read word; echo got $word", feed=[b"it\n"], lines=got.append, limit_s=10).status == 0
    assert [line for line in got if line] == [b"got it"]


def test_an_end_without_a_mark_is_a_lost_link(fake: Fake) -> None:
    fake("one device")
    with pytest.raises(LinkLost, match="before the script did"):
        adb.connect(parse("adb://one")).run("kill -9 $PPID; kill -9 $$", limit_s=10)


def test_time_is_limited(fake: Fake) -> None:
    fake("one device")
    with pytest.raises(SetupError, match="in time"):
        adb.connect(parse("adb://one")).run("sleep 5", limit_s=0.2)


def test_the_size_there_decides(fake: Fake, tmp_path: Path) -> None:
    folder = fake("one device", arrives=10)
    content = tmp_path / "content"
    content.write_bytes(bytes(100))
    with pytest.raises(SetupError, match="10 bytes arrived"):
        adb.connect(parse("adb://one")).push(content, str(folder / "there"))
    assert not list(folder.glob("there*"))


def test_a_server_of_another_version(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake("one device")
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = server.getsockname()

        def answer() -> None:
            for _ in range(2):
                link, _ = server.accept()
                with link:
                    assert link.recv(64) == b"000chost:version"
                    link.sendall(b"OKAY00040028")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert server_version(place) == 40
        with pytest.raises(SetupError, match=r"client .*/bin/adb \(1\.0\.41\), server .*python.* \(1\.0\.40\)"):
            adb.connect(parse("adb://one"), server_port=place[1])
        thread.join(5)
    assert (folder / "calls").read_text() == f"-P {place[1]} version\n"  # asked first: adb itself would end the server


def test_a_listed_device_prints_its_model() -> None:
    assert str(Listed("x", "device", {"model": "Pixel_8"})) == "x (device, Pixel_8)"
