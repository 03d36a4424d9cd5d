"""Engines that report to their makers do not when smolship loads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime.process import environment

OPEN = """
import sys
from smolship.runtime.bundle import open_bundle
with open_bundle(sys.argv[1]).session("onnx", 1) as session:
    session.forward([1, 2, 3])
if "genai" in sys.argv:
    import onnxruntime_genai
    onnxruntime_genai.Model(sys.argv[1] + "/onnx")
"""


@pytest.mark.parametrize("engine", ["onnxruntime", pytest.param("genai", marks=pytest.mark.real)])
def test_no_identifier_and_no_events_are_kept_at_home(tiny_bundle: Any, tmp_path: Path, engine: str) -> None:
    variables = environment() | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    variables.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", OPEN, str(tiny_bundle("llama", "int4")), engine]
    subprocess.run(command, env=variables, check=True, capture_output=True)
    assert list(tmp_path.rglob("*")) == []
