"""Heads that ONNX Runtime's attention does not take as they are: every gate, with windows, in an artifact that
onnxruntime-genai opens, too (test_onnx.py has the operators)."""

from __future__ import annotations

import pytest

from smolship.export import export
from smolship.runtime.parity import parity
from tests.conftest import make_tiny

SMALL = {"head_dim": 8, "hidden_size": 64}
MODELS = {
    "gemma3 of 24, with windows": ("gemma3", {"head_dim": 24, "query_pre_attn_scalar": 24}),
    "gemma3 of 8, with windows": ("gemma3", SMALL | {"query_pre_attn_scalar": 8}),
    "llama of 8": ("llama", SMALL),
    "qwen3 of 20": ("qwen3", {"head_dim": 20}),
    "phi3, 8 of 32 rotated": ("phi3", {"rope_parameters": {"rope_theta": 900.0, "partial_rotary_factor": 0.25}}),
}


@pytest.mark.real
@pytest.mark.parametrize("quant", ["none", "int4"])
@pytest.mark.parametrize("name", MODELS)
def test_every_gate_passes(tmp_path, name, quant):
    kind, changes = MODELS[name]
    model = make_tiny(tmp_path / "m", kind, **changes)
    bundle = export(model, tmp_path / "b", to=["onnx"], quant=quant, context=128, probe_tokens=256)
    report = parity(bundle, "onnx", threads=1)
    assert report.passed, [check for check in report.checks if not check.passed]
    assert report.drift
