"""What has broken other ports without a word: each is a wrong reading of a model, and export's own gate sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
from torch import Tensor

from smolship.export import export
from smolship.export.config import Attention, DecoderConfig, with_mixers
from smolship.export.decoder import Decoder
from smolship.export.families import FAMILIES
from smolship.export.rotary import LongRope, Rotary
from smolship.export.transforms import Flat, Plus
from smolship.runtime.errors import GateError
from tests.conftest import TINY
from tests.layers import with_rotary


def mixers(config: DecoderConfig, change: Callable[[Attention], dict[str, Any]]) -> DecoderConfig:
    changed = [change(mixer) for mixer in config.attentions]
    return with_mixers(config, **{key: [one[key] for one in changed] for key in changed[0]})


def inverted(config: DecoderConfig) -> DecoderConfig:
    (rotary,) = config.rotaries.values()
    return mixers(config, lambda m: {"rotary": None if m.rotary else rotary})


def local_everywhere(config: DecoderConfig) -> DecoderConfig:
    local = next(m.rotary for m in config.attentions if m.window)
    return mixers(config, lambda m: {"rotary": local})


def without_residual(config: DecoderConfig) -> DecoderConfig:
    return replace(config, layers=tuple(replace(layer, residual=1.0) for layer in config.layers))


def long_divisors(rotary: Rotary) -> Rotary:
    assert isinstance(rotary.scaling, LongRope)
    return replace(rotary, scaling=replace(rotary.scaling, short=rotary.scaling.long))


READINGS: dict[str, tuple[str, Callable[[DecoderConfig], DecoderConfig]]] = {
    "layers with and without rotary embedding exchanged": ("smollm3", inverted),
    "the class's theta": ("smollm3", lambda c: with_rotary(c, lambda r: replace(r, theta=2e6))),
    "scaling dropped": ("llama3", lambda c: with_rotary(c, lambda r: replace(r, scaling=None))),
    "the windows' theta everywhere": ("gemma3", local_everywhere),
    "a window without its token": ("gemma3", lambda c: mixers(c, lambda m: {"window": m.window and m.window - 1})),
    "a window of one more": ("gemma3", lambda c: mixers(c, lambda m: {"window": m.window and m.window + 1})),
    "full attention for windows": ("qwen2_window", lambda c: mixers(c, lambda m: {"window": None})),
    "an embedding that is not scaled": ("gemma3", lambda c: replace(c, embedding_scale=1.0)),
    "scores scaled by the head's size": ("granite", lambda c: mixers(c, lambda m: {"scale": m.head_dim**-0.5})),
    "residuals that are not scaled": ("granite", without_residual),
    "the divisors of long texts": ("phi3", lambda c: with_rotary(c, long_divisors)),
    "the whole head rotated": ("phi3", lambda c: with_rotary(c, lambda r: replace(r, width=32, scaling=None))),
}
FAST = ("a window without its token", "scaling dropped")


def refused(model: Any, folder: Any) -> None:
    with pytest.raises(GateError, match="does not say what the original says"):
        export(model, folder / "bundle", to=["onnx"], context=128, probe_tokens=64)
    assert not (folder / "bundle").exists()


def family(kind: str) -> Any:
    return import_module(FAMILIES[TINY[kind]["model_type"]][1])


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.real] * (n not in FAST)) for n in READINGS])
def test_a_wrong_reading_fails_the_gate(tiny, tmp_path, monkeypatch, name):
    kind, change = READINGS[name]
    sound = family(kind).translate
    monkeypatch.setattr(family(kind), "translate", lambda fields: change(sound(fields)))
    refused(tiny(kind), tmp_path)


@pytest.mark.real
def test_gains_that_are_taken_as_they_are_stored_fail_the_gate(tiny, tmp_path, monkeypatch):
    """Gemma's are stored as their distance from 1."""
    names = family("gemma3").NAMES
    monkeypatch.setattr(family("gemma3"), "NAMES", {k: n.name if isinstance(n, Plus) else n for k, n in names.items()})
    refused(tiny("gemma3"), tmp_path)


@pytest.mark.real
def test_gates_that_are_exchanged_fail_the_gate(tiny, tmp_path, monkeypatch):
    """B, which is before LFM2's convolution, and C, which is behind it."""

    def convolution(self: Decoder, i: int, x: Tensor, position: Tensor) -> Tensor:
        c, b, x = self.ops.linear([f"layers.{i}.conv_in"], x)[0].chunk(3, -1)
        return self.ops.linear([f"layers.{i}.conv_out"], c * self.ops.convolve(i, b * x, position))[0]

    monkeypatch.setattr(Decoder, "convolution", convolution)
    refused(tiny("lfm2"), tmp_path)


@pytest.mark.real
def test_a_kernel_from_the_newest_token_to_the_oldest_fails_the_gate(tiny, tmp_path, monkeypatch):
    read = Flat.read
    monkeypatch.setattr(Flat, "read", lambda self, *rows: read(self, *rows)[:, ::-1].copy())
    refused(tiny("lfm2"), tmp_path)


@pytest.mark.real
@pytest.mark.parametrize("kind", ["qwen3", "gemma3", "openelm"])
def test_norms_of_queries_and_keys_behind_the_rotation_fail_the_gate(tiny, tmp_path, monkeypatch, kind):
    def attention(self: Decoder, i: int, a: Attention, x: Tensor, position: Tensor) -> Tensor:
        at = f"layers.{i}"
        q, k, v = self.ops.linear([f"{at}.q", f"{at}.k", f"{at}.v"], x)
        q, k, v = (t.unflatten(-1, (-1, a.head_dim)) for t in (q, k, v))
        assert a.rotary
        q, k = self.ops.rotary(a.rotary, q, position), self.ops.rotary(a.rotary, k, position)
        mixed = self.ops.attend(i, self.norm(f"{at}.q_norm", q), self.norm(f"{at}.k_norm", k), v, position)
        return self.ops.linear([f"{at}.o"], mixed)[0]

    monkeypatch.setattr(Decoder, "attention", attention)
    refused(tiny(kind), tmp_path)
