"""The demo model, made once and kept where `make demo` keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from smolship.tools.demo_model import make_demo_model

CACHE = Path(__file__).parents[2] / ".cache" / "SmolLM2-135M-Instruct"


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """Folder of the checkpoint of SmolLM2-135M-Instruct."""
    return make_demo_model(CACHE)
