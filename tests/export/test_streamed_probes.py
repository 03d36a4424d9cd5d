"""Probes that are made a layer at a time are those of the whole model, computed at once by other code."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from smolship.export import probe, reference, stream
from smolship.export.checkpoints import open_checkpoint
from smolship.export.long_text import spread
from smolship.export.noise import Noisy
from smolship.export.probe import make_probes
from smolship.export.reference import Held, Reference, run
from smolship.export.targets import load_target
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.probes import Gap, Sketch
from tests.conftest import TINY

CONTEXT, TOKENS = 128, 96
FAST = ("llama_bias", "qwen2_window", "smollm3")  # the others take a second each and are tests of `make real`
TARGETS = {"smollm3": ("executorch", "gguf", "coreml"), "qwen3": ("coreml", "gguf")}  # executorch's of the others
LENGTH = {"max_new_tokens": probe.GREEDY, "min_new_tokens": probe.GREEDY}


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """made("llama") -> checkpoint, weights, what is simulated, and the probes, made once."""
    found = {}

    def make(kind):
        if kind not in found:
            checkpoint = open_checkpoint(str(tiny(kind)))
            weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int8"], tmp_path_factory.mktemp("weights"))
            names = TARGETS.get(kind, ("executorch",))
            targets = {name: load_target(name).numerics(weights) for name in names}
            found[kind] = checkpoint, weights, targets, make_probes(checkpoint, weights, targets, CONTEXT, TOKENS)
        return found[kind]

    return make


class Whole:
    """A source whose tensors are read whole."""

    def __init__(self, source):
        self.source, self.tensors = source, {}

    def read(self, name, start=0, stop=None):
        if name not in self.tensors:
            self.tensors[name] = self.source.read(name)
        return self.tensors[name][start:stop]


def transformers_of(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def alike(one: Gap, other: Gap) -> None:
    for name in ("kl", "nll", "max_abs"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=5e-3, atol=2e-5, err_msg=name)
    assert (one.top1 == other.top1).mean() > 0.99
    np.testing.assert_allclose(one.kl.mean(), other.kl.mean(), rtol=1e-3, atol=1e-9)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in FAST else pytest.mark.real) for kind in sorted(TINY)]
)
def test_probes_are_those_of_the_whole_model(made, tiny, kind):
    checkpoint, weights, targets, probes = made(kind)
    config = checkpoint.config
    model, following = transformers_of(tiny(kind)), [w.following for w in probes.windows]

    def original(ids):
        with torch.inference_mode():
            return model(torch.from_numpy(ids[None].astype(np.int64)), use_cache=False).logits[0].numpy()

    def ours(source, numerics=None, ids=None):
        ops = Reference(config, source, CONTEXT, *([numerics] if numerics else []))
        texts = [w.ids for w in probes.windows] if ids is None else [ids]
        return [run(config, ops, text.tolist()) for text in texts]

    def sketched(logits):
        return Sketch.join([Sketch.of(x, after) for x, after in zip(logits, following, strict=True)])

    def gap(reference, logits):
        rows = zip(logits, following, strict=True)
        return Gap.join([Gap.between(reference[probes.rows(i)], x, after) for i, (x, after) in enumerate(rows)])

    first = sketched([original(w.ids) for w in probes.windows])
    np.testing.assert_allclose(probes.sketches["original"].lse, first.lse, rtol=1e-6)
    assert (np.sort(probes.sketches["original"].ids) == np.sort(first.ids)).mean() > 0.99
    np.testing.assert_allclose(probes.sketches["original"].nll, first.nll, rtol=1e-5)
    quantized = ours(Whole(weights))
    alike(probes.gaps["quantized"], gap(first, quantized))
    noisy = gap(first, ours(Whole(Noisy(checkpoint, weights))))
    np.testing.assert_allclose(
        probes.gaps["quantized.noise"].kl, noisy.kl[: len(probes.gaps["quantized.noise"].kl)], rtol=5e-3, atol=2e-5
    )
    edge = np.resize(np.concatenate([w.ids for w in probes.windows]), CONTEXT)
    for name, numerics in targets.items():
        # A rounding to int8 that falls the other way moves all that follows: the noise floor says how far.
        floor = 2 * probes.gaps[f"{name}.ulp"].kl.mean() + 1e-9
        simulated = ours(Whole(weights), numerics)
        assert gap(probes.sketches[f"{name}.simulated"], simulated).kl.mean() < floor
        straight = gap(sketched(quantized), simulated).kl.mean()
        assert abs(probes.gaps[f"{name}.simulated"].kl.mean() - straight) < 0.1 * straight + floor
        (logits,) = ours(Whole(weights), numerics, edge)
        at = spread(CONTEXT)
        assert Gap.between(probes.sketches[f"{name}.edge"], logits[at], np.full(len(at), -1)).kl.mean() < 2 * floor


def test_continuations_are_those_of_generate_and_of_token_by_token(made, tiny):
    checkpoint, weights, targets, probes = made("smollm3")
    model = transformers_of(tiny("smollm3"))
    for i in range(len(probe.PROMPTS)):
        prompt = probes.arrays[f"greedy.prompt.{i}"].tolist()
        with torch.inference_mode():
            out = model.generate(
                torch.tensor([prompt]), max_new_tokens=probe.GREEDY, min_new_tokens=probe.GREEDY, do_sample=False
            )
        np.testing.assert_array_equal(probes.arrays[f"greedy.original.{i}"], out[0, len(prompt) :].numpy())
        for name, numerics in targets.items():
            ops, ids = Reference(checkpoint.config, weights, CONTEXT, numerics), []
            logits = run(checkpoint.config, ops, prompt)[-1]
            for position in range(len(prompt), len(prompt) + probe.GREEDY):
                ids.append(int(logits.argmax()))
                logits = run(checkpoint.config, ops, ids[-1:], position)[-1]
            assert probes.arrays[f"greedy.{name}.{i}"].tolist() == ids


def test_keys_and_values_of_every_layer_are_kept(made):
    checkpoint, weights, targets, probes = made("qwen3")
    for name, numerics in targets.items():
        ops = Reference(checkpoint.config, weights, CONTEXT, numerics)
        run(checkpoint.config, ops, probes.windows[0].ids[: probe.DRIFT].tolist())
        for layer in range(len(checkpoint.config.layers)):
            for what, values in zip(("keys", "values"), ops.cache[layer], strict=True):
                kept = probes.arrays[f"drift.{name}.{what}"][layer]
                np.testing.assert_allclose(kept, values[0, : probe.DRIFT].numpy(), atol=0.02, rtol=0.02)
        assert probes.arrays[f"drift.{name}.floor"][-1] > 0


class Stop(Exception):
    pass


def test_an_interrupted_unit_goes_on_at_its_layer(made, tmp_path, monkeypatch):
    checkpoint, weights, targets, whole = made("llama")
    asked: list[tuple[str, int]] = []
    layer, stop = stream.Flow.layer, ("Tokens", 1)

    def watched(flow, i):
        asked.append((type(flow.ops.numerics("layers.0.q")).__name__, i))
        if asked[-1] == stop:
            raise Stop
        layer(flow, i)

    monkeypatch.setattr(stream.Flow, "layer", watched)
    monkeypatch.setattr(stream.InFile, "SECONDS", 0)
    with pytest.raises(Stop):
        make_probes(checkpoint, weights, targets, CONTEXT, TOKENS, kept=tmp_path)
    there = {path.name for path in tmp_path.iterdir()}
    assert {"original.npz", "decoder.npz", "quantized.npz", "executorch.state.npz"} <= there
    first, stop = stop, ()
    asked.clear()
    same(whole, make_probes(checkpoint, weights, targets, CONTEXT, TOKENS, kept=tmp_path))
    assert asked[0] == first and not list(tmp_path.glob("*.state.npz"))
    asked.clear()
    same(whole, make_probes(checkpoint, weights, targets, CONTEXT, TOKENS, kept=tmp_path))
    assert not asked


def same(one, other):
    assert one.arrays.keys() == other.arrays.keys() and one.gaps.keys() == other.gaps.keys()
    assert one.sketches.keys() == other.sketches.keys()
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)
    for group in ("gaps", "sketches"):
        for name, item in getattr(one, group).items():
            for field, values in vars(item).items():
                np.testing.assert_array_equal(values, getattr(getattr(other, group)[name], field), err_msg=name)


def test_another_target_takes_what_is_there(made, tmp_path, monkeypatch):
    checkpoint, weights, targets, both = made("qwen3")
    make_probes(checkpoint, weights, {"gguf": targets["gguf"]}, CONTEXT, TOKENS, kept=tmp_path)
    read: list[str] = []
    sound = type(checkpoint).read
    watched = lambda self, name, *rows: read.append(name) or sound(self, name, *rows)  # noqa: E731
    monkeypatch.setattr(type(checkpoint), "read", watched)
    same(both, make_probes(checkpoint, weights, targets, CONTEXT, TOKENS, kept=tmp_path))
    assert not read, "the original's weights were read again"


def half(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def other_bytes(raw: bytes) -> bytes:
    return raw[:200] + b"x" * 300 + raw[500:]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("damage", [half, other_bytes])
def test_a_damaged_unit_is_made_again(made, tmp_path, damage):
    checkpoint, weights, targets, whole = made("llama")
    make_probes(checkpoint, weights, targets, CONTEXT, TOKENS, kept=tmp_path)
    for name in ("decoder", "executorch"):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(damage(path.read_bytes()))
    (tmp_path / "executorch.state.npz").write_bytes(b"PK no archive")
    same(whole, make_probes(checkpoint, weights, targets, CONTEXT, TOKENS, kept=tmp_path))


def test_a_state_of_which_a_part_is_lost_is_not_taken_up(made, tmp_path):
    checkpoint, weights, targets, whole = made("llama")
    make_probes(checkpoint, weights, targets, CONTEXT, TOKENS, kept=tmp_path)
    (tmp_path / "executorch.npz").unlink()
    flow, state = np.zeros((1, 1, 1), np.float32), {"layers": np.array(1)}
    state |= {f"0/kept.{layer}.{side}": flow for layer in (0, 1) for side in (0, 1)}
    np.savez(tmp_path / "executorch.state.npz", **state, **{"0/delta": flow, "0/x": flow, "0/bad": np.array("")})
    same(whole, make_probes(checkpoint, weights, targets, CONTEXT, TOKENS, kept=tmp_path))


@pytest.mark.real
def test_seconds_of_units_of_the_same_name_are_added(made, monkeypatch):
    checkpoint, weights, targets, _ = made("smollm3")
    sound = probe._Making.greedy

    def slow(self, *given):
        units = sound(self, *given)
        return [probe.Unit(u.name, u.label, u.work, lambda *_: time.sleep(0.2)) for u in units]

    monkeypatch.setattr(probe._Making, "greedy", slow)
    found = make_probes(checkpoint, weights, targets, CONTEXT, TOKENS)
    assert found.facts["seconds"]["continuations"] > 0.5  # of three


def test_noise_is_the_same_in_whatever_pieces(made):
    checkpoint, weights, _, _ = made("llama")
    noisy = Noisy(checkpoint, weights)
    for name in ("layers.0.q", "layers.0.attn_norm", "embed"):
        whole = noisy.read(name)
        pieces = [(start, min(start + 7, len(whole))) for start in range(0, len(whole), 7)]
        found = {piece: noisy.read(name, *piece) for piece in reversed(pieces)}
        np.testing.assert_array_equal(np.concatenate([found[piece] for piece in pieces]), whole)
        np.testing.assert_array_equal(Held(noisy, checkpoint.config.shapes()).read(name, False), whole)


@pytest.mark.parametrize("half", [False, True])
def test_few_rows_of_a_large_table_are_read_alone(made, monkeypatch, half):
    checkpoint, weights, _, _ = made("llama")
    asked, shapes = [], checkpoint.config.shapes()
    monkeypatch.setattr(reference, "CHUNK", shapes["embed"][1] * 8)  # the table is some dozens of pieces

    class Watched:
        def read(self, name, start=0, stop=None):
            asked.append((start, stop))
            return weights.read(name, start, stop)

    held = Held(Watched(), shapes)
    few = held.rows("embed", [3, 200, 4], half)
    assert asked == [(3, 4), (200, 201), (4, 5)] and not held.tensors
    table = held.read("embed", half)
    np.testing.assert_array_equal(few, table[[3, 200, 4]])
    asked.clear()
    np.testing.assert_array_equal(held.rows("embed", [5], half), table[[5]])
    assert not asked  # the table is there
    assert (few == weights.read("embed")[[3, 200, 4]].astype(np.float16)).all() == half


def test_only_one_layer_is_held(made, monkeypatch):
    checkpoint, weights, targets, _ = made("llama")
    most, sound = [0], stream.Flow.layer

    def watched(flow, i):
        sound(flow, i)
        held = {name.split(".")[1] for name, _ in flow.ops.weights.tensors if name.startswith("layers.")}
        most[0] = max(most[0], len(held))
        assert held <= {str(i)}

    monkeypatch.setattr(stream.Flow, "layer", watched)
    make_probes(checkpoint, weights, targets, CONTEXT, TOKENS)
    assert most == [1]
