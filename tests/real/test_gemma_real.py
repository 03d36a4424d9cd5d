"""Gemma-3-270M, out of llama.cpp's Q4_K_M, on all four targets: windows of 512 tokens in a cache of 1,024, a hidden
state that fp16 does not hold, a vocabulary of 262,144."""

from __future__ import annotations

import numpy as np
import pytest

from smolship.export import export
from smolship.runtime.bundle import Bundle
from smolship.runtime.parity import parity

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def bundle(real_steps, gemma, tmp_path_factory) -> Bundle:
    out = tmp_path_factory.mktemp("gemma") / "bundle"
    return export(gemma, out, to=("executorch", "onnx", "coreml", "gguf"), context=1024, probe_tokens=256)


@pytest.mark.parametrize("target", ["executorch", "onnx", "gguf"])
def test_every_gate_passes(bundle, target):
    report = parity(bundle, target, quick=True)
    assert report.passed, [check for check in report.checks if not check.passed]


def test_core_ml_in_fp16_says_what_its_simulation_says(bundle):
    """Without the shift of the hidden state its first infinity is in the ninth layer."""
    probes = bundle.probes()
    assert "nonfinite" not in probes.facts
    assert float(np.mean(probes.gaps["coreml.simulated"].kl)) < 1e-3
    ids, said = probes.windows[0].ids[:48], probes.sketches["coreml.simulated"]
    with bundle.session("coreml") as session:
        logits = session.forward(ids)[0]
        assert not session.nonfinite
    order = np.argsort(-said.logits[len(ids) - 1], kind="stable")
    likely = said.ids[len(ids) - 1][order][:8]
    assert logits.argmax() == likely[0]
    np.testing.assert_allclose(logits[likely], said.logits[len(ids) - 1][order][:8], atol=0.05)


@pytest.mark.parametrize(
    ("said", "next_one"),
    [
        ("Paris is the capital of France, and Berlin is the capital of", "Germany"),
        ("The sun rises in the east and sets in the", "west"),
    ],
)
def test_it_goes_on(bundle, said, next_one):
    """It was trained on text alone, and answers no questions."""
    with bundle.session("gguf") as session:
        logits = session.forward(bundle.tokenizer.encode(said))[0]
    assert bundle.tokenizer.decode([int(logits.argmax())]).strip() == next_one
