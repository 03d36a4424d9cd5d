"""The tool that runs two commands at once."""

from __future__ import annotations

import json
import sys

import pytest

from smolship.runtime.errors import SetupError
from smolship.tools import busy

# One after the other, as if they had one processor between them; the sleep makes it 0.3 s each.
TURNS = """
import fcntl, sys, time
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    time.sleep(0.3)
"""
SPIN = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"


@pytest.fixture
def turns(tmp_path, monkeypatch):
    command = [sys.executable, "-c", TURNS, str(tmp_path / "lock")]
    monkeypatch.setattr(busy, "commands_of", lambda work, bundle: [("turns", [command] * 2)])


@pytest.mark.real
def test_two_that_take_turns_take_twice_as_long(turns, capsys):
    assert busy.main(["--json", "--rounds", "2"]) == 0
    (timing,) = json.loads(capsys.readouterr().out)
    assert 1.3 < timing["ratio"] == timing["together_s"] / timing["alone_s"] < 3
    assert busy.main(["--limit", "1.1"]) == 1
    assert "turns" in (said := capsys.readouterr().out) and "Ratios above 1.1 fail." in said


def test_time_of_the_processors_is_counted():
    command = [sys.executable, "-S", "-c", SPIN]
    timing = busy.measure("spin", [command] * 2)
    assert 0.2 <= timing.alone_cpu_s < 0.4 <= timing.together_cpu_s < 0.8


def test_a_command_that_fails(monkeypatch, capsys):
    with pytest.raises(SetupError, match=r"exit code 5(?s:.*)its last words"):
        busy.measure("x", [[sys.executable, "-c", "import sys; print('its last words'); sys.exit(5)"]] * 2)


def test_what_is_run(tmp_path, tiny_bundle):
    """Every engine of the bundle, by two that do not meet."""
    found = dict(busy.commands_of(tmp_path, tiny_bundle("llama", "int4")))
    assert set(found) == {"export"} | {
        f"{do} {on}" for do in ("parity", "generate") for on in ("executorch", "gguf", "onnx")
    }
    one, two = found["export"]
    assert one != two and one[: one.index("-o")] == two[: two.index("-o")]
