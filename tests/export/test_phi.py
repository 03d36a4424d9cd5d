"""Phi-3: its stacked matrices in GGUF files, and contexts beyond the positions of the training, on every target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from smolship.export import export
from smolship.export.checkpoints import open_checkpoint
from smolship.export.original import Original
from smolship.export.preflight import check, context_notes, context_problems
from smolship.export.reference import Reference, run
from smolship.export.targets import gguf as gguf_target
from smolship.export.targets import load_target
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.engines import load_engine
from smolship.runtime.errors import InputError
from smolship.runtime.parity import parity
from smolship.runtime.readback.compare import EQUAL, judge
from smolship.runtime.readback.gguf import read
from tests.bundles import job_of
from tests.conftest import TINY, make_tiny
from tests.gguf_maker import make_gguf

ORIGINAL, LONG = TINY["phi3"]["original_max_position_embeddings"], 320  # positions of the training, a longer context
IDS = np.random.default_rng(6).integers(0, 300, LONG)
SLOW = ("coreml", "executorch")
STACKS = {"attn_qkv": ("q", "k", "v"), "ffn_up": ("gate", "up")}


@pytest.fixture(scope="module")
def model(tiny) -> Path:
    return tiny("phi3")


@pytest.fixture(scope="module")
def parts(model, tmp_path_factory):
    """The checkpoint, and its weights at 4 bits."""
    checkpoint = open_checkpoint(str(model))
    return checkpoint, write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def file(parts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    gguf_target.lower(job_of(*parts, 96), folder)
    return folder / "model.gguf"


def test_stacks_hold_the_rows_of_each_matrix_as_they_are(parts, file):
    config, weights = parts[0].config, parts[1]
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    for i in range(len(config.layers)):
        for stack, kinds in STACKS.items():
            tensor = stored[f"blk.{i}.{stack}.weight"]
            assert tensor.tensor_type.name == "Q4_0"
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            ours = [weights.values(f"layers.{i}.{kind}") for kind in kinds]
            np.testing.assert_array_equal(values, np.concatenate(ours))
        assert not {f"blk.{i}.{name}.weight" for name in ("attn_q", "attn_k", "attn_v", "ffn_gate")} & set(stored)
    said = TINY["phi3"]["rope_parameters"]
    for name in ("short", "long"):
        np.testing.assert_array_equal(stored[f"rope_factors_{name}.weight"].data, np.float32(said[f"{name}_factor"]))


def test_they_are_read_back_as_the_matrices_of_the_set(parts, file):
    entries = parts[1].entries
    found = {t.name: judge(t, entries) for t in read(file.parent, file.name, {n: e.shape for n, e in entries.items()})}
    assert found == dict.fromkeys(entries, EQUAL)


@pytest.mark.parametrize("kind, scheme", [("Q4_0", "int4"), ("Q8_0", "int8")])
def test_lifted_stacks_come_out_as_they_went_in(model, tmp_path, kind, scheme):
    make_gguf(model, tmp_path / "in.gguf", kind=kind)
    checkpoint = open_checkpoint(str(tmp_path / "in.gguf"))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES[scheme], tmp_path)
    assert {weights.entries[name].origin for name in checkpoint.config.linears()} == {"lifted"}
    gguf_target.lower(job_of(checkpoint, weights, 96), tmp_path)
    before, after = (
        {t.name: t.data for t in gguf.GGUFReader(tmp_path / name).tensors if t.tensor_type.name == kind}
        for name in ("in.gguf", "model.gguf")
    )
    assert set(before) == set(after) and len(before) == 9
    for name, data in before.items():
        np.testing.assert_array_equal(after[name], data)


BROKEN = {
    "one of two": ({"drop": ("rope_factors_long.weight",)}, "LongRoPE's divisors"),
    "none, and an amplitude": ({"phi3.rope.scaling.attn_factor": 1.25, "drop": "both"}, "attn_factor, and no tensor"),
    "for another width": ({"phi3.rope.dimension_count": 20}, "LongRoPE's divisors.*of 10 numbers"),
    "odd": ({"phi3.rope.dimension_count": 15}, "partial_rotary_factor"),
    "wider than a head": ({"phi3.rope.dimension_count": 64}, "rope.dimension_count differs"),
    "an amplitude in words": ({"phi3.rope.scaling.attn_factor": "big"}, "attention_factor"),
    "an array for an amplitude": ({"phi3.rope.scaling.attn_factor": [1, 2]}, "attention_factor"),
    "no positions of the training": ({"phi3.rope.scaling.original_context_length": 0}, "original_max_position"),
    "yarn": ({"phi3.rope.scaling.type": "yarn"}, "rope.scaling.type"),
}


@pytest.mark.parametrize(("extra", "message"), BROKEN.values(), ids=BROKEN)
def test_scalings_that_are_not_understood_are_refused(model, tmp_path, extra, message):
    both = ("rope_factors_long.weight", "rope_factors_short.weight")
    drop = both if extra.get("drop") == "both" else extra.get("drop", ())
    make_gguf(model, tmp_path / "model.gguf", **(extra | {"drop": drop}))
    with pytest.raises(InputError, match=f"(?s){message}"):
        open_checkpoint(str(tmp_path / "model.gguf"))


def test_divisors_of_the_llama_architecture_are_refused(tiny, tmp_path):
    make_gguf(tiny("llama"), tmp_path / "model.gguf")
    writer = gguf.GGUFWriter(tmp_path / "more.gguf", "llama")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    for length in ("short", "long"):
        writer.add_tensor(f"rope_factors_{length}.weight", np.ones(16, np.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    with pytest.raises(InputError, match="rope_type"):
        open_checkpoint(str(tmp_path / "more.gguf"))


@pytest.mark.parametrize("context", [ORIGINAL, LONG])
def test_the_original_of_a_file_is_that_of_the_folder(model, tmp_path, context):
    """transformers reads neither the scaling nor the part of each head out of a GGUF file."""
    make_gguf(model, tmp_path / "model.gguf")
    at, said = np.arange(60, 70), []
    for source in (model, tmp_path / "model.gguf"):
        original = Original(open_checkpoint(str(source)), context=context)
        assert any("rotary embedding" in note for note in original.notes) == (source != model)
        (pieces,) = original.logits(IDS[None, :70], at)
        said.append(np.concatenate(list(pieces)))
    np.testing.assert_allclose(*said, rtol=1e-5, atol=1e-5)


def test_a_longer_context_has_the_long_divisors_for_every_text(model):
    """As transformers has them for texts of more than the positions of the training; a shorter text differs, and the
    original that parity compares with is as for a long one."""
    checkpoint = open_checkpoint(str(model))
    theirs = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)

    def wanted(length: int) -> np.ndarray:
        with torch.inference_mode():
            return theirs(torch.from_numpy(IDS[None, :length])).logits[0].numpy()

    def ours(length: int, context: int) -> np.ndarray:
        return run(checkpoint.config, Reference(checkpoint.config, checkpoint, context), IDS[:length])

    for length in (ORIGINAL + 1, LONG):
        np.testing.assert_allclose(ours(length, LONG), wanted(length), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(ours(ORIGINAL, ORIGINAL), wanted(ORIGINAL), rtol=1e-5, atol=2e-5)
    short = ours(70, LONG)
    assert np.abs(short - wanted(70)).max() > 0.05
    (pieces,) = Original(checkpoint, context=LONG).logits(IDS[None, :70], np.arange(70))
    np.testing.assert_allclose(short, np.concatenate(list(pieces)), rtol=1e-5, atol=2e-5)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "target",
    [pytest.param(t, marks=[pytest.mark.real] * (t in SLOW)) for t in ("coreml", "executorch", "gguf", "onnx")],
)
def test_every_target_has_them(model, tmp_path, target):
    """Short texts tell the two apart at once: the engine is as the simulation of its own context, and far from the
    other's."""
    checkpoint = open_checkpoint(str(model))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["none"], tmp_path)
    module = load_target(target)
    for context, other in ((LONG, ORIGINAL), (ORIGINAL, LONG)):
        folder = tmp_path / str(context)
        folder.mkdir()
        info = module.lower(job_of(checkpoint, weights, context), folder)
        with load_engine(target).open_session(folder, info, 1) as session:
            said = session.forward(IDS[:70])[0]
        simulated = [
            run(checkpoint.config, Reference(checkpoint.config, weights, c, module.numerics(weights)), IDS[:70])[-1]
            for c in (context, other)
        ]
        assert 20 * np.abs(said - simulated[0]).max() < np.abs(said - simulated[1]).max()


def test_it_is_said_at_export(model):
    config = open_checkpoint(str(model)).config
    assert context_problems(config, LONG) == context_notes(config, ORIGINAL) == []
    assert "2 to 512" in context_problems(config, 513)[0]
    notes = " ".join(check(open_checkpoint(str(model)), ["gguf"], SCHEMES["int4"], LONG).notes)
    assert f"--context {ORIGINAL}" in notes and "more than 256 tokens" in notes


@pytest.mark.real
@pytest.mark.parametrize("quant, context", [("int4", LONG), ("int8", ORIGINAL)])
def test_every_gate_passes(model, tmp_path, quant, context):
    """Of the folder, and of a GGUF file."""
    make_gguf(model, tmp_path / "model.gguf", kind="Q4_0")
    for source in (model, tmp_path / "model.gguf"):
        targets = ("executorch", "onnx", "gguf")
        bundle = export(source, tmp_path / "bundle", to=targets, quant=quant, context=context, probe_tokens=128)
        for target in targets:
            report = parity(bundle, target, quick=True)
            assert report.passed, [one for one in report.checks if not one.passed]


def test_a_window_is_refused_by_gguf_alone(model, tmp_path):
    """llama.cpp leaves Phi-3's windows out."""
    config = open_checkpoint(str(make_tiny(tmp_path, "phi3", sliding_window=9))).config
    assert {mixer.window for mixer in config.attentions} == {9}
    problems = {name: load_target(name).problems(config) for name in ("coreml", "executorch", "gguf", "onnx")}
    assert [name for name, found in problems.items() if found] == ["gguf"]
    assert "sliding window" in problems["gguf"][0]


def test_what_llama_cpp_takes_for_something_else_is_refused(model):
    config = open_checkpoint(str(model)).config
    scaling = next(iter(config.rotaries.values())).scaling

    def problems(**mixer) -> str:
        layers = tuple(replace(layer, mixer=replace(layer.mixer, **mixer)) for layer in config.layers)
        return " ".join(gguf_target.problems(replace(config, layers=layers)))

    assert problems() == ""
    assert "divides 128 into heads" in problems(head_dim=48)
    rotary = replace(config.layers[0].mixer.rotary, scaling=replace(scaling, original=200))
    assert "multiple of 256" in problems(rotary=rotary)


def test_the_file_says_what_llama_cpp_needs(parts, file):
    said = {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}
    assert said["phi3.rope.dimension_count"] == 16
    assert said["phi3.rope.scaling.original_context_length"] == ORIGINAL
    factor = (1 + np.log(512 / ORIGINAL) / np.log(ORIGINAL)) ** 0.5
    np.testing.assert_allclose(said["phi3.rope.scaling.attn_factor"], factor, rtol=1e-6)
    assert open_checkpoint(str(file)).config == parts[0].config
