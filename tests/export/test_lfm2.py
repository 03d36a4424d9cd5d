"""LFM2 (short convolutions beside attention): on all four targets, gates on, with GGUF in and out; the states of
convolutions are rewound as caches are, and preset where they can be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolship.export import export, probe
from smolship.export.checkpoints import open_checkpoint
from smolship.export.reference import Reference, run
from smolship.export.targets import TARGETS, load_target
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.bundle import Bundle
from smolship.runtime.engines import load_engine
from smolship.runtime.errors import InputError
from smolship.runtime.parity import parity
from smolship.runtime.readback.compare import compare
from smolship.runtime.session import Session
from tests.bundles import job_of
from tests.conftest import make_tiny

IDS = np.random.default_rng(9).integers(0, 300, 60).tolist()
CONTEXT = 128
QUANTS = ["int4", *(pytest.param(quant, marks=pytest.mark.real) for quant in ("int8", "none"))]
BIASED = {"conv_bias": True, "conv_L_cache": 4, "layer_types": ["full_attention", "conv", "full_attention"]}
SLOW = {"coreml", "executorch"}  # whose gates are tried with the real models
SOME = [pytest.param(t, marks=[pytest.mark.real] * (t in SLOW)) for t in TARGETS]


@pytest.fixture(scope="module")
def bundles(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """bundles("int4"), on every target, made once."""
    home = tmp_path_factory.mktemp("lfm2")

    @cache
    def made(quant: str) -> Bundle:
        return export(tiny("lfm2"), home / quant, to=list(TARGETS), quant=quant, context=CONTEXT, probe_tokens=256)  # type: ignore[arg-type]

    return made


@pytest.mark.sampled(3)
@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("target", SOME)
def test_every_gate_passes(bundles, quant, target):
    report = parity(bundles(quant), target, threads=1, quick=True)
    assert report.passed, [check for check in report.checks if not check.passed]
    layers = [row.layer for row in report.drift]
    assert layers == ([] if target == "gguf" else [0, 1, 2]), "of llama.cpp's hybrids no state is read"


@pytest.mark.parametrize("quant", QUANTS)
def test_every_target_holds_the_same_weights(bundles, quant):
    assert [found.wrong for found in compare(bundles(quant), TARGETS)] == [{}] * 4


@pytest.mark.sampled(2)
@pytest.mark.parametrize("target", TARGETS)
def test_a_state_is_rewound_to_anywhere(bundles, target):
    """Before the first token that a whole kernel sees, too; what was fed behind that position is forgotten."""
    with bundles("int4").session(target, threads=1) as session:
        cold = session.forward(IDS[:12], "all")
        assert session.earliest == 0
        for to in (11, 2, 1, 0, 7):
            session.forward(IDS[20:24])
            session.rewind(to)
            again = session.forward(IDS[to:12], "all")
            np.testing.assert_allclose(again, cold[to:], rtol=0, atol=2e-3 * np.abs(cold).max())
            if target != "gguf" or to == 0:  # there what stays is fed again at once, where the first came one by one
                assert np.array_equal(again, cold[to:])


@pytest.mark.real
@pytest.mark.parametrize("target", ["coreml", "executorch", "onnx"])
def test_the_end_of_a_cache_that_is_not_filled_is_judged(tiny, tmp_path, monkeypatch, target):
    """States of convolutions are preset as keys and values are."""
    monkeypatch.setattr(probe, "is_filled", lambda config, context: False)
    bundle = export(tiny("lfm2"), tmp_path / "b", to=[target], context=400, probe_tokens=320)
    report = parity(bundle, target, threads=1, quick=True)
    assert report.passed, [check for check in report.checks if not check.passed]
    ends = [check for check in report.checks if "cache's end, preset" in check.what]
    assert ends and all(check.positions for check in ends)


def greedy(session: Session, tokens: int) -> list[int]:
    logits, said = session.forward(IDS[:20])[-1], []
    for _ in range(tokens):
        said.append(int(logits.argmax()))
        logits = session.forward([said[-1]])[-1]
    return said


def test_llama_cpp_says_what_our_sessions_say(tiny, tmp_path):
    checkpoint = open_checkpoint(str(tiny("lfm2")))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["none"], tmp_path)
    said = {}
    for target in ("gguf", "onnx"):
        folder = tmp_path / target
        folder.mkdir()
        info = load_target(target).lower(job_of(checkpoint, weights, CONTEXT), folder)
        with load_engine(target).open_session(folder, info, 1) as session:
            said[target] = greedy(session, 40)
            session.rewind(5)  # llama.cpp is fed again what stays
            session.forward(IDS[5:20])
            session.rewind(0)
            assert greedy(session, 40) == said[target]
    assert said["gguf"] == said["onnx"] and len(set(said["onnx"])) > 5


@pytest.mark.parametrize("quant", QUANTS)
def test_the_file_that_llama_cpp_gets_is_a_checkpoint_of_the_same_weights(bundles, quant, tmp_path):
    """GGUF out, and in again: matrices lifted as they are, to the same logits bit for bit."""
    file = bundles(quant).path / "gguf" / "model.gguf"
    ours = open_checkpoint(str(file))
    weights = write_weights(ours, ours.config, SCHEMES[quant], tmp_path)
    lifted = {name for name, entry in weights.entries.items() if entry.origin == "lifted"}
    assert lifted == ({*ours.config.linears(), "embed"} if quant != "none" else set())
    assert [mixer.kernel for mixer in ours.config.convolutions] == [3, 3]
    folder = tmp_path / "again"
    folder.mkdir()
    info = load_target("gguf").lower(job_of(ours, weights, CONTEXT), folder)
    with bundles(quant).session("gguf", threads=1) as first:
        wanted = first.forward(IDS)
    with load_engine("gguf").open_session(folder, info, 1) as second:
        assert np.array_equal(second.forward(IDS), wanted)


@pytest.mark.real
def test_a_gguf_file_is_exported_as_any_checkpoint_is(bundles, tmp_path):
    """The original is transformers' own reading of the file."""
    file = bundles("int4").path / "gguf" / "model.gguf"
    bundle = export(file, tmp_path / "b", to=["onnx", "gguf"], context=CONTEXT, probe_tokens=256)
    assert bundle.manifest.quantization.lifted > 0
    for target in ("onnx", "gguf"):
        assert parity(bundle, target, threads=1, quick=True).passed


def test_what_llama_cpp_cannot_hold_is_refused_before_any_work(tmp_path):
    model = make_tiny(tmp_path / "m", "lfm2", **BIASED)
    with pytest.raises(InputError, match="gguf: cannot hold biases of a convolution"):
        export(model, tmp_path / "b", to=list(TARGETS), context=CONTEXT, probe_tokens=0)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_weights_of_another_architecture_s_config_are_named(tiny, tmp_path):
    model = Path(shutil.copytree(tiny("lfm2"), tmp_path / "m"))
    raw = json.loads((model / "config.json").read_text())
    raw |= {"layer_types": ["conv", "full_attention", "full_attention"]}
    (model / "config.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="short convolutions"):
        open_checkpoint(str(model))


@pytest.mark.real
@pytest.mark.parametrize("target", ["coreml", "executorch", "onnx"])
def test_biases_pass_every_gate(tmp_path, target):
    """Not quantized: of so few tokens, one that is rounded the other way would be a gap."""
    model = make_tiny(tmp_path / "m", "lfm2", **BIASED)
    bundle = export(model, tmp_path / "b", to=[target], context=CONTEXT, probe_tokens=128, quant="none")
    report = parity(bundle, target, threads=1, quick=True)
    assert report.passed, [check for check in report.checks if not check.passed]
    assert [found.wrong for found in compare(bundle, [target])] == [{}]


def test_a_convolution_sees_as_many_tokens_as_its_kernel_has(tiny):
    """A change of one token reaches the next two through a convolution alone, and no third."""
    checkpoint = open_checkpoint(str(tiny("lfm2")))
    ops = Reference(checkpoint.config, checkpoint, context=16)
    seen = {}
    for token in (5, 6):
        run(checkpoint.config, ops, [*range(8), token, *range(9, 16)])
        seen[token] = ops.cache[1][1][0].clone()  # values of the layer behind the first convolution
    moved = (seen[5] != seen[6]).flatten(1).any(1)
    assert moved.nonzero().flatten().tolist() == [8, 9, 10]
