"""What layers may have beyond the plain one: each target computes it as the reference does, or refuses it by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smolship.export.checkpoints import open_checkpoint
from smolship.export.config import Attention, DecoderConfig, Layer, Mlp, ShortConv, with_mixers
from smolship.export.decoder import Decoder
from smolship.export.features import FEATURES, features
from smolship.export.reference import Reference, run
from smolship.export.rotary import Rotary
from smolship.export.targets import TARGETS, Job, load_target
from smolship.export.targets.coreml.arithmetic import HalfConstants
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.engines import load_engine
from smolship.runtime.errors import InputError
from tests.layers import RandomSource

CONTEXT = 64
IDS = np.random.default_rng(5).integers(0, 300, CONTEXT).tolist()
ROTARY = Rotary(10_000.0, 32)
MIXER = Attention(4, 2, 32, scale=32**-0.5, rotary=ROTARY)
PLAIN = DecoderConfig(
    architecture="llama",
    layers=(Layer(MIXER, Mlp(192)),) * 2,
    hidden=128,
    vocab=300,
    norm_eps=1e-5,
    tied_head=False,
    positions=512,
)


def mixers(**of: Any) -> DecoderConfig:
    return with_mixers(PLAIN, **of)


def layers(**of: Any) -> DecoderConfig:
    return replace(PLAIN, layers=tuple(replace(layer, **of) for layer in PLAIN.layers))


def sized(head_dim: int, rotary: Rotary | None = None, **of: Any) -> DecoderConfig:
    """Heads of another size, rotated whole where nothing else is said."""
    return mixers(
        head_dim=[head_dim] * 2,
        scale=[head_dim**-0.5] * 2,
        rotary=[rotary or Rotary(10_000.0, head_dim)] * 2,
        qk_norm=["head" if head_dim > 8 else None] * 2,  # Core ML wants gains of 10 numbers
        **of,
    )


MADE: dict[str, DecoderConfig] = {
    "nope": mixers(rotary=[ROTARY, None]),
    "rotaries": mixers(rotary=[ROTARY, Rotary(200.0, 32)]),
    "partial": mixers(rotary=[Rotary(10_000.0, 16)] * 2),
    "interleaved": mixers(rotary=[Rotary(10_000.0, 32, interleaved=True)] * 2),
    "window": mixers(window=[9, None]),
    "scale": mixers(scale=[0.25 * 32**-0.5, 2 * 32**-0.5]),  # as factors of the usual one, which fp16 holds
    "qk_norm.head": mixers(qk_norm=["head"] * 2),
    "qk_norm.full": mixers(qk_norm=["full"] * 2),
    "bias": mixers(bias=[True] * 2),
    "output_bias": mixers(output_bias=[True] * 2),
    "mlp_bias": layers(mlp=Mlp(192, bias=True)),
    "gelu_tanh": layers(mlp=Mlp(192, activation="gelu_tanh")),
    "ungated": layers(mlp=Mlp(192, gated=False)),
    "convolution": replace(PLAIN, layers=(Layer(ShortConv(3), Mlp(192)), *PLAIN.layers, Layer(ShortConv(4), Mlp(192)))),
    "conv_bias": replace(PLAIN, layers=(PLAIN.layers[0], Layer(ShortConv(3, bias=True), Mlp(192)))),
    "norms.after": layers(norms="after"),
    "norms.both": layers(norms="both"),
    "scales": replace(layers(residual=0.5), embedding_scale=3.0, logits_scale=0.25),
    "heads": mixers(heads=[4, 6], kv_heads=[2, 3], head_dim=[32, 16], rotary=[ROTARY, Rotary(10_000.0, 16)]),
    "widths": replace(PLAIN, layers=(Layer(MIXER, Mlp(192)), Layer(MIXER, Mlp(64)))),
    "windows and heads": mixers(
        heads=[4, 2], kv_heads=[1, 2], window=[5, 17], rotary=[ROTARY, Rotary(70.0, 32)], qk_norm=["head", None]
    ),
}
SIZES: dict[str, DecoderConfig] = {  # of heads, and of what is rotated of them
    "heads of 8": sized(8),
    "heads of 24": sized(24),
    "heads of 12": sized(12),
    "windows over heads of 20": sized(20, window=[9, None]),
    "8 of 24 rotated": sized(24, Rotary(10_000.0, 8)),
    "8 of 32 rotated": sized(32, Rotary(10_000.0, 8)),
    "heads of 8, and 6 not rotated": with_mixers(sized(8), head_dim=[8, 6], rotary=[Rotary(10_000.0, 8), None]),
}
ENGINE = {"coreml": {"arithmetic": "float32"}}  # in which the interpreter rounds nothing but constants


def test_every_feature_is_tried():
    named = {name for config in MADE.values() for name in features(config)}
    assert named | {"scaling"} == set(FEATURES)
    assert all(name in features(config) for name, config in MADE.items() if name in FEATURES)
    assert features(PLAIN) == set()


def lowered(target: str, config: DecoderConfig, folder: Path) -> tuple[Any, Callable[..., Any]]:
    """Weights that are not quantized, and what opens a session of the artifact."""
    module, home = load_target(target), folder / "artifact"
    home.mkdir()
    weights = write_weights(RandomSource(config), config, SCHEMES["none"], folder)
    info = module.lower(Job(config, weights, CONTEXT), home) | ENGINE.get(target, {})
    return weights, lambda: load_engine(module.ENGINE).open_session(home, info, threads=1)


def simulated(target: str, config: DecoderConfig, weights: Any) -> np.ndarray:
    numerics = HalfConstants() if target == "coreml" else load_target(target).numerics(weights)
    return run(config, Reference(config, weights, CONTEXT, numerics), IDS)


SLOW = [pytest.param(target, marks=pytest.mark.real) for target in ("coreml", "executorch")]


@pytest.mark.parametrize("target", [*SLOW, "onnx"])
@pytest.mark.parametrize("name", SIZES)
def test_a_target_computes_heads_of_any_size(name, target, tmp_path):
    assert load_target(target).problems(SIZES[name]) == []
    computes(target, SIZES[name], tmp_path)


@pytest.mark.sampled(7)
@pytest.mark.parametrize("target", ["coreml", "executorch", "onnx"])
@pytest.mark.parametrize("name", MADE)
def test_a_target_computes_it_or_refuses_it(name, target, tmp_path):
    config = MADE[name]
    if found := load_target(target).problems(config):
        assert all("cannot hold" in problem and "which this model has" in problem for problem in found)
        return
    computes(target, config, tmp_path)


def computes(target: str, config: DecoderConfig, tmp_path: Path) -> None:
    """In one call, in several, after a rewind, with the cache of the reference's shape."""
    weights, opened = lowered(target, config, tmp_path)
    wanted = simulated(target, config, weights)
    plain = simulated(target, PLAIN, write_weights(RandomSource(PLAIN), PLAIN, SCHEMES["none"], tmp_path))
    assert np.abs(wanted - plain).max() > 0.05  # the feature is seen in the logits
    with opened() as session:
        first, rest = session.forward(IDS[:40])[0], session.forward(IDS[40:], "all")
        session.rewind(20)
        again = session.forward(IDS[20:40])[0]
        for got, row in ((first, 39), (rest, slice(40, None)), (again, 39)):
            np.testing.assert_allclose(got, wanted[row], atol=2e-4 * np.abs(wanted).max(), rtol=1e-3)
        for layer, spec in enumerate(config.cache(40)):
            if (kept := session.cache(layer)) is not None:
                assert tuple(part.shape for part in kept) == spec.shapes


@pytest.mark.parametrize("target", ["coreml", "executorch", "onnx"])
def test_a_window_is_exact_to_the_token(target, tmp_path):
    """One token more or less is another model."""
    weights, opened = lowered(target, MADE["window"], tmp_path)
    with opened() as session:
        got = session.forward(IDS)[0]
    distance = {
        window: np.abs(got - simulated(target, mixers(window=[window, None]), weights)[-1]).max()
        for window in (8, 9, 10)
    }
    assert distance[9] < 0.05 * min(distance[8], distance[10])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["interleaved"])
def test_what_no_target_holds_yet_is_refused_by_all(target, name):
    assert any(FEATURES[name][0] in problem for problem in load_target(target).problems(MADE[name]))


GGUF = {
    ("lfm2", "convolution"): True,
    ("lfm2", "conv_bias"): False,
    ("llama", "convolution"): False,
    ("llama", "bias"): True,
    ("llama", "window"): False,
    ("llama", "qk_norm.head"): False,
    ("llama", "nope"): False,
    ("qwen2", "bias"): True,
    ("qwen2", "output_bias"): False,
    ("qwen2", "window"): False,
    ("qwen3", "qk_norm.head"): True,
    ("qwen3", "bias"): False,
    ("smollm3", "bias"): False,
    ("qwen2", "qk_norm.head"): False,
}


@pytest.mark.parametrize(("architecture", "name"), GGUF, ids="-".join)
def test_an_architecture_of_llama_cpp_is_fixed(architecture, name):
    problems = load_target("gguf").problems(replace(MADE[name], architecture=architecture))
    assert any(FEATURES[name][0] in problem for problem in problems) != GGUF[architecture, name]


def test_an_lfm2_without_convolutions_is_none_of_llama_cpp():
    assert "no convolutions" in load_target("gguf").problems(replace(PLAIN, architecture="lfm2"))[0]


def test_a_qwen2_without_biases_is_none_of_llama_cpp():
    assert "no biases" in load_target("gguf").problems(replace(PLAIN, architecture="qwen2"))[0]


@pytest.mark.parametrize("target", ["coreml", "executorch", "onnx"])
def test_an_operator_that_a_walker_does_not_know_is_named(target, tiny, tmp_path, monkeypatch):
    checkpoint = open_checkpoint(str(tiny("llama")))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    mlp = Decoder.mlp
    monkeypatch.setattr(Decoder, "mlp", lambda self, *args: torch.relu(mlp(self, *args)))
    with pytest.raises(InputError, match=rf"(?s){target} cannot hold an operator.*aten\.relu"):
        load_target(target).lower(Job(checkpoint.config, weights, CONTEXT), tmp_path)
