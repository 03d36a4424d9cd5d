"""Probes: what is measured at export reaches the end of the context, and numbers that are none are named."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from smolship.export import export
from smolship.export import probe as making
from smolship.export.checkpoints import open_checkpoint
from smolship.export.config import Rotary
from smolship.export.long_text import spread
from smolship.export.probe import make_probes
from smolship.export.reference import Reference, run
from smolship.export.targets.executorch.arithmetic import Tokens
from smolship.export.targets.gguf.arithmetic import Q8Blocks
from smolship.export.targets.onnx.arithmetic import Blocks
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime import open_bundle
from smolship.runtime.errors import InputError
from smolship.runtime.judge import translation_checks
from smolship.runtime.parity import parity
from smolship.runtime.probes import Probes
from tests.bundles import parity as parity_of
from tests.flows import logits_at


@pytest.fixture
def changed(tiny, tmp_path):
    """changed("llama", function of the tensors) -> a checkpoint with other weights."""

    def make(kind, change):
        folder = shutil.copytree(tiny(kind), tmp_path / "checkpoint")
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def made(folder, tmp_path, context, tokens, **targets):
    checkpoint = open_checkpoint(str(folder))
    (tmp_path / "weights").mkdir()
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int8"], tmp_path / "weights")
    return make_probes(checkpoint, weights, targets, context, tokens)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "kind", ["llama3", "smollm3", *(pytest.param(kind, marks=pytest.mark.real) for kind in ("llama", "llama_bias"))]
)
def test_the_translation_is_compared_up_to_the_model_s_own_limit(tiny, tmp_path, kind):
    probes = made(tiny(kind), tmp_path, 512, 64)
    assert probes.arrays["far.at"][-1] == 511 and max(len(w.ids) for w in probes.windows) == 32
    checks = translation_checks(probes)
    assert all(check.passed for check in checks)
    assert any(check.at == "up to 511" for check in checks)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("beyond, wrong", [(100, 1e-3), pytest.param(300, 1e-3, marks=pytest.mark.real), (500, 0.01)])
def test_angles_that_are_wrong_far_out_fail_the_translation(tiny, tmp_path, monkeypatch, beyond, wrong):
    """The engines read the same tables as our decoder, so that nothing else could show it."""
    sound = Rotary.tables

    def tables(self, positions):
        cos, sin = sound(self, positions)
        turned = np.arctan2(sin, cos)
        turned[beyond::2] += wrong  # were all turned alike, no difference of positions would change
        return np.cos(turned).astype(np.float32), np.sin(turned).astype(np.float32)

    monkeypatch.setattr(Rotary, "tables", tables)
    failed = [check for check in translation_checks(made(tiny("llama"), tmp_path, 512, 64)) if not check.passed]
    assert {check.what.rpartition(", ")[2] for check in failed} == {"far positions", "worst position"}
    assert all(check.at.startswith(("far position", "up to 511")) for check in failed)


def test_a_long_text_goes_through_the_head_only_where_it_is_looked_at(tiny):
    checkpoint = open_checkpoint(str(tiny("llama")))
    ids = np.random.default_rng(2).integers(0, 300, 400).astype(np.int32)
    at = spread(400)
    assert at[-1] == 399 and {100, 103, 200, 300, 384} <= set(at) and not {104, 383} & set(at)
    whole = run(checkpoint.config, Reference(checkpoint.config, checkpoint, 400), ids.tolist())
    np.testing.assert_allclose(logits_at(Reference(checkpoint.config, checkpoint, 400), ids, at), whole[at], atol=1e-5)


def test_few_probes_read_less_far(tiny, tmp_path):
    assert made(tiny("llama"), tmp_path, 512, 8).arrays["far.at"][-1] == 127


def test_a_context_too_long_to_fill_is_preset_and_said(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(making, "is_filled", lambda config, context: False)
    out = tmp_path / "out"
    export(tiny("llama"), out, to=["onnx"], context=128, probe_tokens=64)
    code, (report,) = parity_of(out, capsys)
    checks = [check for check in report["checks"] if "cache's end" in check["what"]]
    assert code == 0 and [check["what"] for check in checks] == [
        "simulated → cache's end, preset",
        "simulated → cache's end, preset, worst positions",
    ]
    assert checks[0]["positions"] == 16 and all(check["passed"] for check in checks)


@pytest.mark.real
def test_rows_of_zeros_pass_in_every_engine(changed, tmp_path):
    def zeros(tensors):
        tensors["model.embed_tokens.weight"][3:250] = 0

    folder = changed("llama", zeros)
    targets = ["executorch", "onnx", "gguf"]
    bundle = export(folder, tmp_path / "out", to=targets, context=64, probe_tokens=64)
    probes = bundle.probes()
    assert all(np.isfinite(gap.kl).all() for gap in probes.gaps.values()) and "nonfinite" not in probes.facts
    for target in targets:
        report = parity(bundle, target, quick=True)
        assert report.passed, [check for check in report.checks if not check.passed]
    # Noise in place of rounding has nothing to move either: a bound that grows with it would say nothing.
    assert probes.gaps["executorch.noise"].kl.mean() < 4 * probes.gaps["executorch.simulated"].kl.mean() + 1e-6


@pytest.mark.parametrize("kind", [Tokens, Blocks, Q8Blocks])
@pytest.mark.parametrize("size", [0.0, 1e-44, 1e-40])
def test_numbers_near_zero_are_zeros_to_an_engine(kind, size):
    import torch

    x = torch.zeros(2, 64)
    x[0, 5], x[1] = -size, torch.linspace(-1, 2, 64)
    seen = kind().round(x)
    assert seen.isfinite().all() and seen[0].abs().max() < 1e-30 and (seen[1] - x[1]).abs().max() < 0.02
    assert kind(dither=3).round(x)[0].abs().max() < 1e-30


@pytest.mark.real
def test_a_simulation_that_is_no_number_is_not_the_engine_s_fault(changed, tmp_path):
    """Activations beyond fp16: Core ML's arithmetic cannot hold them, fp32 can."""

    def huge(tensors):
        for name in ("gate", "up"):
            tensors[f"model.layers.1.mlp.{name}_proj.weight"][:] *= 300

    bundle = export(changed("llama", huge), tmp_path / "out", to=["coreml", "onnx"], context=64, probe_tokens=64)
    assert parity(bundle, "onnx", quick=True).passed
    report = parity(bundle, "coreml", quick=True)
    failed = [check for check in report.checks if not check.passed]
    assert [check.stage for check in failed] == ["arithmetic", "total"]
    assert "the simulation is not finite" in failed[0].note and "layers.1.down" in failed[0].note
    assert failed[1].note == "the simulation is not finite either"


@pytest.mark.parametrize(
    "name, value",
    [
        ("far.at", np.arange(9)),
        ("far.at", np.zeros(28, np.int32)),
        ("edge.at", np.arange(3)),
        ("edge.at", np.arange(28.0)),
        ("edge.ids", np.arange(7)),
    ],
)
def test_positions_that_are_not_those_of_the_sketches_are_refused(tiny_bundle, tmp_path, name, value):
    probes = open_bundle(tiny_bundle("llama", "int4")).probes()
    probes.save(tmp_path / "sound.npz")
    Probes.load(tmp_path / "sound.npz")
    probes.arrays[name] = value
    probes.save(tmp_path / "probes.npz")
    with pytest.raises(InputError, match="probes cannot be read"):
        Probes.load(tmp_path / "probes.npz")
