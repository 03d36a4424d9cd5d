"""The gates bite: each kind of damage that has shipped elsewhere makes `smolship parity` exit 1."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from smolship.export.checkpoints import open_checkpoint
from smolship.tools.cli import run
from tests.bundles import double_scales, relower
from tests.layers import with_rotary

ENGINES = ["executorch", "gguf", "onnx"]


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    def get(kind, quant):
        return shutil.copytree(tiny_bundle(kind, quant), tmp_path / "bundle")

    return get


def failed_stages(bundle, engine, capsys):
    """Stages that fail; the exit code must agree."""
    code = run(["parity", str(bundle), "-t", engine, "--json"])
    (report,) = json.loads(capsys.readouterr().out)
    failed = {check["stage"] for check in report["checks"] if not check["passed"]}
    assert code == (1 if failed else 0)
    return failed, report["found"]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linear", ["layers.1.v", "layers.2.down", "embed"])
def test_doubled_scales_of_one_linear(tiny, bundle, engine, linear, capsys):
    damaged = bundle("smollm3", "int8")
    double_scales(damaged, tiny("smollm3"), engine, linear)
    failed, found = failed_stages(damaged, engine, capsys)
    assert failed == {"engine"}
    if linear.startswith("layers.1"):
        assert "layer 1's norm, k or v" in found


@pytest.mark.parametrize("engine", ENGINES)
def test_doubled_scales_of_four_bits(tiny, bundle, engine, capsys):
    damaged = bundle("llama", "int4")
    double_scales(damaged, tiny("llama"), engine, "layers.0.o")
    assert failed_stages(damaged, engine, capsys)[0] == {"engine"}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_wrong_rope_theta(tiny, bundle, engine, capsys):
    damaged, config = bundle("llama", "int4"), open_checkpoint(str(tiny("llama"))).config
    wrong = with_rotary(config, lambda rotary: replace(rotary, theta=rotary.theta * 2))
    relower(damaged, tiny("llama"), engine, wrong)
    assert failed_stages(damaged, engine, capsys)[0] == {"engine"}


@pytest.mark.parametrize("engine", ["executorch", "onnx"])  # llama.cpp knows one pattern only: the target refuses
def test_inverted_nope_layers(tiny, bundle, engine, capsys):
    damaged, config = bundle("smollm3", "int8"), open_checkpoint(str(tiny("smollm3"))).config
    wrong = with_rotary(config, lambda rotary: None, next(iter(config.rotaries.values())))
    relower(damaged, tiny("smollm3"), engine, wrong)
    assert failed_stages(damaged, engine, capsys)[0] == {"engine"}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("engine", ENGINES)
def test_lowered_again_as_it_was_it_passes(tiny, bundle, engine, capsys):
    """What the other tests prove rests on this one."""
    again = bundle("smollm3", "int8")
    relower(again, tiny("smollm3"), engine, open_checkpoint(str(tiny("smollm3"))).config)
    assert failed_stages(again, engine, capsys)[0] == set()
