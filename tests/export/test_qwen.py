"""Qwen2.5 (biases of q, k and v) and Qwen3 (norms of q and k, heads of a size of their own): on all four targets, gates
on, with GGUF in and out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolship.export import export
from smolship.export.checkpoints import open_checkpoint
from smolship.export.families import qwen2, qwen3
from smolship.export.reference import Reference, run
from smolship.export.targets import TARGETS
from smolship.runtime.bundle import Bundle
from smolship.runtime.errors import GateError, InputError
from smolship.runtime.parity import parity
from smolship.runtime.readback.compare import compare
from tests.gguf_maker import make_gguf

IDS = np.random.default_rng(9).integers(0, 300, 60).tolist()


@pytest.fixture(scope="module")
def bundles(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """bundles("qwen2-int4"), on every target, made once."""
    home = tmp_path_factory.mktemp("qwen")

    @cache
    def made(name: str) -> Bundle:
        kind, quant = name.split("-")
        return export(tiny(kind), home / name, to=list(TARGETS), quant=quant, context=128, probe_tokens=256)  # type: ignore[arg-type]

    return made


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["qwen2-int4", pytest.param("qwen3-int8", marks=pytest.mark.real)])
@pytest.mark.parametrize("target", [pytest.param(t, marks=[pytest.mark.real] * (t == "coreml")) for t in TARGETS])
def test_every_gate_passes(bundles, name, target):
    report = parity(bundles(name), target, threads=1, quick=True)
    assert report.passed, [check for check in report.checks if not check.passed]


@pytest.mark.parametrize("name", ["qwen2-int4", pytest.param("qwen3-int8", marks=pytest.mark.real)])
def test_every_target_holds_the_same_weights(bundles, name):
    assert [found.wrong for found in compare(bundles(name), TARGETS)] == [{}] * 4


@pytest.mark.real
@pytest.mark.parametrize("name", ["qwen2-int4", pytest.param("qwen3-int8", marks=pytest.mark.real)])
def test_the_file_that_llama_cpp_gets_is_a_checkpoint_of_the_same_weights(bundles, name, tmp_path):
    """GGUF out, and in again: lifted as they are, to the same logits bit for bit."""
    bundle = bundles(name)
    ours = open_checkpoint(str(bundle.path / "gguf" / "model.gguf"))
    again = export(
        bundle.path / "gguf" / "model.gguf",
        tmp_path / "again",
        to=["gguf", "onnx"],
        context=128,
        quant=name.partition("-")[2],
        probe_tokens=256,
    )  # type: ignore[arg-type]
    assert again.manifest.quantization.lifted > 0
    assert parity(again, "onnx", threads=1, quick=True).passed
    with bundle.session("gguf", threads=1) as first, again.session("gguf", threads=1) as second:
        assert np.array_equal(first.forward(IDS), second.forward(IDS))
    assert ours.config.layers[0].mixer.head_dim == (48 if name.startswith("qwen3") else 32)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_a_gguf_of_the_original_computes_what_the_original_does(tiny, tmp_path, kind):
    hf = make_gguf(tiny(kind), tmp_path / "m.gguf", split="qwen2")
    ours = open_checkpoint(str(tmp_path / "m.gguf"))
    pair = [run(c.config, Reference(c.config, c, 60), IDS) for c in (hf, ours)]
    np.testing.assert_array_equal(*pair)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("family", "wrong"),
    [
        (qwen3, {"q_norm": qwen3.NAMES["k_norm"], "k_norm": qwen3.NAMES["q_norm"]}),
        (qwen2, {"k": qwen2.NAMES["v"], "v": qwen2.NAMES["k"]}),
    ],
    ids=["norms exchanged", "keys and values exchanged"],
)
def test_a_name_that_is_wrong_fails_the_gate(tiny, tmp_path, monkeypatch, family, wrong):
    kind = family.__name__.rpartition(".")[2]
    monkeypatch.setattr(family, "NAMES", family.NAMES | wrong)
    with pytest.raises(GateError, match="does not say what the original says"):
        export(tiny(kind), tmp_path / "b", to=["onnx"], context=128, probe_tokens=64)
    assert not (tmp_path / "b").exists()


def test_a_window_that_llama_cpp_cannot_have_is_refused_before_any_work(tiny, tmp_path):
    with pytest.raises(InputError, match="gguf: cannot hold attention over a sliding window"):
        export(tiny("qwen2_window"), tmp_path / "b", to=list(TARGETS), context=128, probe_tokens=0)
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.real
@pytest.mark.parametrize(
    "target", ["onnx", *(pytest.param(n, marks=pytest.mark.real) for n in ("coreml", "executorch"))]
)
def test_a_window_passes_every_gate(tiny, tmp_path, target):
    bundle = export(tiny("qwen2_window"), tmp_path / "b", to=[target], context=128, probe_tokens=128)
    report = parity(bundle, target, threads=1, quick=True)
    assert report.passed, [check for check in report.checks if not check.passed]
