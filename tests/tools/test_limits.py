"""Limits of memory that end what takes more, and leave the rest alone."""

from __future__ import annotations

import subprocess
import sys

from smolship.runtime import open_bundle
from smolship.tools.limits import limited, table

LIMIT = 200_000_000


def taking(count: int) -> int:
    """The exit code of a process that writes to so many bytes."""
    with limited(LIMIT) as limit:
        command = [*limit.command, sys.executable, "-c", f"len(b'x' * {count})"]
        return subprocess.run(command, capture_output=True, check=False).returncode


def test_what_takes_more_is_ended():
    assert taking(LIMIT // 4) == 0
    assert taking(2 * LIMIT) != 0


def test_a_target_that_has_room_answers_and_one_that_has_not_is_named(tiny_bundle):
    found = table(open_bundle(tiny_bundle("llama", "int4")), ["onnx"], [4, 0.02], 1)
    cold = list(found.columns[2].cells)
    assert cold[0].endswith(" s") and cold[1] == "no"
    assert "onnx, 0.02 GB: " in str(found.caption)
