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


@pytest.fixture(scope="session")
def real_bundle(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's bundle: int4 on both targets, with probes of 2,048 tokens. Tests that change it copy it first."""
    from smolship.export import export

    out = tmp_path_factory.mktemp("real") / "smollm2-int4"
    export(demo_model, out)
    return out
