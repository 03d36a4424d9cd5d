"""smolship-run, compiled once for this machine."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

from smolship.tools.devices.build import build


@pytest.fixture(scope="session")
def runners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runners are built."""
    return tmp_path_factory.mktemp("runners")


@pytest.fixture(scope="session")
def program(runners: Path) -> Path:
    machine: Any = platform.machine()
    folder = build(machine, runners)
    assert build(machine, runners) == folder, "made once"
    return folder / "smolship-run"


@pytest.fixture(scope="session")
def artifact(tiny_bundle: Any) -> Path:
    """Folder of a tiny program."""
    return Path(tiny_bundle("llama", "int8")) / "executorch"
