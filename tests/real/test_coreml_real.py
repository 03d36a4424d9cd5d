"""The Core ML target on SmolLM2-135M-Instruct: parity in fp16 and fp32, size, and damage that parity must see."""

from __future__ import annotations

import math
import shutil

import pytest

from smolship.export import export
from smolship.export.checkpoints import open_checkpoint
from smolship.export.targets.coreml import emit as coreml_emit
from smolship.runtime import open_bundle
from smolship.tools.cli import run
from tests.bundles import double_scales, parity, relower, weights_of
from tests.export.test_coreml import naive_rms_norm

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def bundle(demo_model, tmp_path_factory):
    """int4 for Core ML alone, with probes of 256 tokens: the interpreter takes minutes for more."""
    out = tmp_path_factory.mktemp("coreml") / "smollm2-int4"
    export(demo_model, out, to=["coreml"], probe_tokens=256)
    return out


def test_every_stage_passes(bundle, capsys):
    """In every arithmetic; a number that is not finite would fail it. All positions take the interpreter minutes."""
    code, (report,) = parity(bundle, capsys, "--quick")
    assert code == 0 and report["runtime"] == "interpreter" and report["nonfinite"] == []
    whats = [check["what"] for check in report["checks"] if check["stage"] == "engine"]
    assert len(whats) == 24 and sum("float32" in what for what in whats) == 12


def test_the_cost_of_the_export(bundle, demo_model):
    manifest = open_bundle(bundle).manifest
    assert manifest.steps["lower coreml"].peak_bytes < 1e9
    size = (bundle / "coreml/model.mlpackage/Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    with weights_of(bundle, demo_model) as weights:
        bits = sum(math.prod(e.shape) * (e.bits + (16 / e.group if e.group else 0)) for e in weights.entries.values())
    assert bits / 8 < size < 1.02 * bits / 8


def test_doubled_scales_are_seen_and_placed(bundle, demo_model, tmp_path, capsys):
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    double_scales(damaged, demo_model, "coreml", "layers.12.k")
    code, reports = parity(damaged, capsys, "--quick")
    assert code == 1
    assert any("layer 12's norm, k or v" in report["found"] for report in reports)


def test_the_naive_norm_fails(bundle, demo_model, tmp_path, monkeypatch, capsys):
    """SmolLM2's residual stream reaches 22,552, whose square fp16 does not hold."""
    monkeypatch.setattr(coreml_emit.Emitter, "rms_norm", naive_rms_norm)
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    relower(damaged, demo_model, "coreml", open_checkpoint(str(demo_model)).config)
    code, (report,) = parity(damaged, capsys, "--quick")
    assert code == 1
    failed = {check["what"] for check in report["checks"] if check["stage"] == "engine" and not check["passed"]}
    assert "simulated → decode" in failed and "simulated → decode, float32" not in failed


def test_it_answers(bundle, capsys):
    question = "What is the capital of France? Answer in one sentence."
    assert run(["generate", str(bundle), question, "-e", "coreml", "--temperature", "0"]) == 0
    assert "Paris" in capsys.readouterr().out
