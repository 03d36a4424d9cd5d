"""A board with little memory, and runs with little time: the commands on an emulated one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from smolship.tools.cli import run
from tests.device.board import Board, board

pytestmark = pytest.mark.real
# More than the 5 % below which a run is ended, and less than any engine takes.
MEMINFO = (
    "MemTotal:         131072 kB\nMemFree:            8192 kB\nMemAvailable:      16384 kB\nSwapTotal:  4194304 kB\n"
)


@pytest.fixture(scope="module")
def small() -> Iterator[Board]:
    with board(files={"/proc/meminfo": MEMINFO}) as running:
        yield running


@pytest.fixture(autouse=True)
def reached(small: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(small.clients), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(__file__).parents[2] / ".cache"))


def test_memory_is_looked_at_before_anything_is_sent(capsys, tiny_bundle, small):  # type: ignore[no-untyped-def]
    ask = ["parity", str(tiny_bundle("llama", "int4")), "-t", "executorch", "--quick", "--device", small.uri]
    assert run(ask) == 3
    said = capsys.readouterr().err
    assert "too little for executorch; nothing was sent" in said and "16.8 MB available" in said and "--force" in said
    assert not (small.home / ".cache").exists()
    assert run([*ask, "--force"]) == 0
    said = capsys.readouterr().err
    assert f"note: {small.uri}: memory: --force: executorch needs at least" in said


def test_what_overstays_is_ended_there(capsys, tiny_bundle, small):  # type: ignore[no-untyped-def]
    bundle = str(tiny_bundle("llama", "int4"))
    runs = small.home / ".cache/smolship/device/runs"
    ask = ["bench", bundle, "-t", "executorch", "--force", "--device", small.uri]
    assert run([*ask, "--sustained", "10m", "--limit", "1s"]) == 3  # ten minutes on every machine
    said = capsys.readouterr().err
    assert "its time was over: 1 s" in said and "--limit 1h" in said
    assert not (runs / "lock").exists() and not list(runs.glob("*/alive"))
