"""The demo model, made once and kept where `make demo` keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from smolship.tools.demo_model import demo_gguf, gemma_gguf, make_demo_model
from tests.conftest import processes

CACHE = Path(__file__).parents[2] / ".cache" / "SmolLM2-135M-Instruct"


@pytest.fixture(scope="package", autouse=True)
def real_steps() -> Iterator[None]:
    with processes():
        yield


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """Folder of the checkpoint of SmolLM2-135M-Instruct."""
    return make_demo_model(CACHE)


@pytest.fixture(scope="session")
def smollm2_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file that the demo model is made from, in Q4_1."""
    return demo_gguf(tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="session")
def gemma() -> Path:
    """Gemma-3-270M's GGUF file, in Q4_K_M: Q4_K, Q5_0, Q6_K and Q8_0."""
    return gemma_gguf(CACHE.parent)


@pytest.fixture(scope="package")
def real_bundle(real_steps: None, demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's bundle: int4 on both targets, with probes of 2,048 tokens. Tests that change it copy it first."""
    from smolship.export import export

    out = tmp_path_factory.mktemp("real") / "smollm2-int4"
    export(demo_model, out)
    return out
