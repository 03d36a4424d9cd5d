"""A silent phone is asked; its answer, a late one too, says that it is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from smolship.runtime.errors import SetupError
from smolship.tools.devices import adb_pulse
from smolship.tools.devices.adb_pulse import Pulse
from smolship.tools.devices.adb_server import Client
from smolship.tools.devices.link import LinkLost


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUIET_S", "AGAIN_S"):
        monkeypatch.setattr(adb_pulse, name, 0.0)


def until(what: Callable[[], object]) -> None:
    over = time.monotonic() + 10
    while not what():
        assert time.monotonic() < over
        time.sleep(0.005)


def test_an_answer_is_a_sign_of_life(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    with Pulse(["sh", "-c", f'echo asked >>{log}; eval "$0"']) as pulse:

        def asked_thrice() -> bool:
            assert pulse.gone() is None
            return log.read_text().count("asked") > 2

        until(asked_thrice)


@pytest.mark.parametrize("shell", ["exec sleep 60", "exit 1", "echo another word"])
def test_without_an_answer_it_is_lost(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setattr(adb_pulse, "ANSWER_S", 0.2)
    with Pulse(["sh", "-c", shell]) as pulse:
        assert pulse.gone() is None
        began = time.monotonic()
        until(pulse.gone)
        assert time.monotonic() - began >= 0.1
        pulse.heard()  # late, and yet
        assert pulse.gone() is None


def test_it_is_not_asked_while_it_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_pulse, "QUIET_S", 60.0)
    with Pulse(["touch", str(tmp_path / "asked")]) as pulse:
        assert pulse.gone() is None
    assert not list(tmp_path.iterdir())


def test_a_call_ends_when_the_phone_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smolship.tools.devices.adb_server.LOOK_S", 0.02)
    monkeypatch.setattr(adb_pulse, "ANSWER_S", 0.1)
    program = tmp_path / "adb"
    program.write_text("#!/bin/sh\nif [ $1 = quick ]; then echo done; exit 3; fi\necho begun\nexec sleep 60\n")
    program.chmod(0o755)
    client = Client(str(program), None)
    with Pulse([str(program)]) as pulse:
        assert client.call("quick", limit_s=20, pulse=pulse) == (3, "done\n")
        with pytest.raises(LinkLost, match="no answer when it was asked"):
            client.call("push", limit_s=20, pulse=pulse)
    with pytest.raises(LinkLost, match="begun"):
        client.call("devices", limit_s=0.3)
    with pytest.raises(SetupError, match="cannot be started"):
        Client(str(tmp_path / "none"), None).call("devices")
