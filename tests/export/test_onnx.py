"""The ONNX target and engine: what the engine computes against the reference, on tiny random models."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from smolship.export.checkpoints import Checkpoint, open_checkpoint
from smolship.export.numerics import Numerics
from smolship.export.quantize import unpack4
from smolship.export.reference import Reference, run
from smolship.export.targets import Job
from smolship.export.targets import onnx as target
from smolship.export.targets.onnx.arithmetic import Blocks
from smolship.export.weights import SCHEMES, Scheme, Weights, write_weights
from smolship.runtime.engines import onnx as engine
from smolship.runtime.engines.onnx import open_session
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.session import Session
from tests.conftest import KINDS, make_tiny
from tests.edit import double_scales_onnx

CONTEXT = 96
IDS = np.random.default_rng(3).integers(0, 300, 70)
INFO = {"file": "model.onnx", "context": CONTEXT}
ROUGH = 0.03  # of the largest logit: what flipped roundings of int8 activations may do
Built = tuple[Checkpoint, Weights, Path]


class MixedStack(Scheme):
    """q, k and v at different bits, so that they cannot be stacked."""

    def of(self, name: str, width: int) -> tuple[int, int]:
        return (8, width) if name.endswith(".k") else super().of(name, width)


SCHEMES_TO_TRY = {
    "int4": SCHEMES["int4"],
    "int8": SCHEMES["int8"],
    "int4 throughout, groups of 64": Scheme(4, 4, 4, 64),
    "int8 tables": Scheme(16, 8, 8),
    "float tables": Scheme(4, 16, 16),
    "mixed stack": MixedStack(),
}


@pytest.fixture(scope="module")
def built(tiny, tmp_path_factory):
    """built(kind, scheme) -> checkpoint, weights and the folder of the artifact, made once."""
    made: dict[tuple[str, Scheme], Built] = {}

    def get(kind: str, scheme: Scheme) -> Built:
        if (kind, scheme) not in made:
            made[kind, scheme] = lowered(tiny(kind), scheme, tmp_path_factory.mktemp("onnx"))
        return made[kind, scheme]

    return get


def lowered(model: Path, scheme: Scheme, work: Path, info: dict[str, Any] = INFO) -> Built:
    checkpoint = open_checkpoint(str(model))
    weights = write_weights(checkpoint, checkpoint.config, scheme, work)
    folder = work / "onnx"
    folder.mkdir()
    assert target.lower(Job(checkpoint.config, weights, CONTEXT, checkpoint.files), folder) == info
    return checkpoint, weights, folder


def simulated(built: Built) -> np.ndarray:
    """What the reference computes for IDS, [S, V]."""
    checkpoint, weights, _ = built
    return run(checkpoint.config, Reference(checkpoint.config, weights, CONTEXT, target.numerics(weights)), IDS)


def one_by_one(built: Built, numerics=None) -> np.ndarray:
    """What the reference computes for each of the first 40 tokens alone, [40, V]."""
    checkpoint, weights, _ = built
    numerics = target.numerics(weights) if numerics is None else numerics
    reference = Reference(checkpoint.config, weights, 1, numerics)
    return np.concatenate([run(checkpoint.config, reference, [token]) for token in range(40)])


def agree_alone(session: Session, built: Built) -> None:
    """Most tokens that stand alone agree with the simulation to the last digits."""
    errors = []
    for token, want in enumerate(one_by_one(built)):
        session.rewind(0)
        errors.append(np.abs(session.forward([token])[0] - want).max())
    assert np.mean(np.array(errors) < 1e-4) > 0.8


def close(got: np.ndarray, want: np.ndarray) -> None:
    torch.testing.assert_close(torch.from_numpy(got), torch.from_numpy(want), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_float_logits_equal_the_reference(built, kind):
    floats_agree(built(kind, SCHEMES["none"]))


def floats_agree(made: Built, info: dict[str, Any] = INFO) -> None:
    want = simulated(made)
    with open_session(made[2], info, threads=2) as session:
        assert (session.vocab, session.capacity) == (300, CONTEXT)
        close(session.forward(IDS), want[-1:])
        session.rewind(0)
        close(session.forward(IDS[:20], "all"), want[:20])
        for start, stop in [(20, 53), (53, 54), (54, 70)]:
            close(session.forward(IDS[start:stop]), want[stop - 1 : stop])
        session.rewind(15)
        close(session.forward(IDS[15:40]), want[39:40])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("scheme", SCHEMES_TO_TRY.values(), ids=list(SCHEMES_TO_TRY))
@pytest.mark.parametrize("kind", ["llama_bias", "smollm3"])
def test_quantized_logits_equal_the_simulation(built, kind, scheme):
    """Where an activation lies next to a rounding boundary, engine and simulation may fall on two sides of it, and the
    logits of all tokens that see it differ by hundredths. So most tokens that stand alone must agree to the last
    digits, and a text roughly."""
    made = built(kind, scheme)
    text = simulated(made)
    with open_session(made[2], INFO, threads=2) as session:
        agree_alone(session, made)
        for length in (2, 17, 70):
            session.rewind(0)
            assert np.abs(session.forward(IDS[:length]) - text[length - 1]).max() < ROUGH * np.abs(text).max()


def test_the_simulation_is_not_the_float_model(built):
    """The test above can tell the two apart, and one block size from another."""
    made = built("llama_bias", SCHEMES["int4"])
    for other in (Numerics(), Blocks(block=128)):
        assert np.abs(one_by_one(made) - one_by_one(made, other)).max(axis=1).min() > 1e-3


def stored(folder: Path) -> dict[str, np.ndarray]:
    """Every initializer of the finished model, read by the onnx package."""
    model = onnx.load(folder / "model.onnx")
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.mark.parametrize("scheme", [SCHEMES["int4"], SCHEMES["int8"], Scheme(4, 4, 4, 64)])
def test_the_artifact_holds_exactly_our_codes_and_scales(built, scheme):
    _, weights, folder = built("llama_bias", scheme)
    arrays, seen = stored(folder), set()
    for key, codes in arrays.items():
        if not key.endswith(".codes"):
            continue
        names, row = key.removesuffix(".codes").split("+"), 0
        for name in names:
            ours = weights.tensor(name)
            rows = slice(row, row := row + ours.shape[0])
            flat = codes[rows].reshape(ours.shape[0], -1)
            theirs = unpack4(flat) if ours.bits == 4 else (flat ^ 0x80).view(np.int8)
            np.testing.assert_array_equal(theirs, ours.codes)
            scales = arrays[key.replace(".codes", ".scales")][rows]
            np.testing.assert_array_equal(scales, np.broadcast_to(ours.scales, scales.shape))
            seen.add(name)
    assert seen == {name for name in weights.entries if weights.quantized(name)}


@pytest.mark.parametrize("scheme", [SCHEMES["int8"], Scheme(4, 4, 4), SCHEMES["none"]])
def test_a_tied_table_is_stored_once(built, scheme):
    _, weights, folder = built("llama", scheme)
    spent = sum(
        int(np.prod(e.shape)) * e.bits // 8 + (e.shape[0] * -(-e.shape[1] // min(e.group, 64)) * 4 if e.group else 0)
        for e in weights.entries.values()
    )
    spent *= 2 if scheme.linear == 16 else 1  # float32
    size = (folder / "model.onnx.data").stat().st_size
    assert size < spent + CONTEXT * 32 * 4 + 4096 * 20


@pytest.mark.parametrize("changes", [{"intermediate_size": 200}, {"hidden_size": 80, "head_dim": 16}])
def test_widths_that_no_group_divides(tmp_path, changes):
    """They are held at 8 bits, in padded rows; so is the embedding's."""
    made = lowered(make_tiny(tmp_path / "odd", "llama", **changes), SCHEMES["int4"], tmp_path)
    assert made[1].entries["layers.0.down"].bits == 8 or made[1].entries["layers.0.up"].bits == 8
    with open_session(made[2], INFO, threads=1) as session:
        agree_alone(session, made)


@pytest.mark.parametrize(
    ("size", "kept"), [(8, 8), (24, 24), pytest.param(12, 16, marks=pytest.mark.real), (20, 24)], ids=str
)
def test_a_head_size_that_attention_does_not_take_by_itself(tmp_path, size, kept):
    """It is rotated before, and filled up where 8 does not divide it."""
    info = INFO | ({} if kept == size else {"head_dims": [size] * 2})
    made = lowered(make_tiny(tmp_path / "m", "llama", head_dim=size), SCHEMES["none"], tmp_path, info)
    floats_agree(made, info)
    same_with_genai(made, info)
    with open_session(made[2], info, threads=1) as session:
        session.forward(IDS)
        assert session.caches[0].shape == (1, 2, CONTEXT, kept) and session.cache(1)[0].shape == (70, 2, size)
        assert not session.caches[0][..., size:].any()


@pytest.mark.parametrize("sizes", [[20], [20, 32], [20, 0], [20, True], "20", {"0": 20}], ids=str)
def test_a_manifest_that_lies_about_the_heads(tmp_path, sizes):
    info = INFO | {"head_dims": [20, 20]}
    folder = lowered(make_tiny(tmp_path / "m", "llama", head_dim=20), SCHEMES["int4"], tmp_path, info)[2]
    with pytest.raises(InputError, match="no usable sizes of the heads"):
        open_session(folder, INFO | {"head_dims": sizes}, threads=1)


def test_progress_counts_every_number_once(tiny, tmp_path):
    checkpoint = open_checkpoint(str(tiny("llama")))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    calls: list[tuple[int, int]] = []
    job = Job(checkpoint.config, weights, CONTEXT, progress=lambda what, done, total: calls.append((done, total)))
    target.lower(job, tmp_path)
    assert calls == sorted(calls) and calls[-1][0] == calls[-1][1]


def test_past_and_present_are_one_buffer_each(built):
    with open_session(built("llama", SCHEMES["none"])[2], INFO, threads=1) as session:
        logits = session._run(IDS[:9], 0)
        assert all(np.abs(cache[:, :, :9]).min() > 0 and not cache[:, :, 9:].any() for cache in session.caches)
        assert np.shares_memory(logits, session._run(IDS[9:10], 9))


def test_plain_onnxruntime_with_a_growing_past(built):
    """What optimum and every tutorial does: no shared buffer, the past starts empty."""
    made = checkpoint, _, folder = built("smollm3", SCHEMES["none"])
    model = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    mixer = checkpoint.config.layers[0].mixer
    kv_heads, head_dim = mixer.kv_heads, mixer.head_dim
    names = [value.name for value in model.get_inputs()][2:]
    assert names[:2] == ["past_key_values.0.key", "past_key_values.0.value"]
    assert all(value.shape[1::2] == [kv_heads, head_dim] for value in model.get_inputs()[2:])
    assert [value.name for value in model.get_outputs()][:2] == ["logits", "present.0.key"]
    past = dict.fromkeys(names, np.zeros((1, kv_heads, 0, head_dim), np.float32))
    want, position = simulated(made), 0
    for size in (30, 1, 1, 38):
        ids = IDS[None, position : position + size]
        position += size
        logits, *present = model.run(None, {"input_ids": ids, "attention_mask": np.ones((1, position), int), **past})
        past = dict(zip(names, present, strict=True))
        close(logits[0], want[position - 1 : position])


@pytest.mark.parametrize("kind", KINDS)
def test_genai_opens_the_folder_and_says_the_same(built, kind):
    same_with_genai(built(kind, SCHEMES["none"]))


def test_genai_opens_lfm2_without_convolutions(tmp_path):
    model = make_tiny(tmp_path / "m", "lfm2", num_hidden_layers=2, layer_types=["full_attention"] * 2)
    same_with_genai(lowered(model, SCHEMES["none"], tmp_path))


def same_with_genai(made: Built, info: dict[str, Any] = INFO) -> None:
    import onnxruntime_genai as genai

    checkpoint, _, folder = made
    model = genai.Model(str(folder))
    assert list(genai.Tokenizer(model).encode("the quick brown fox"))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=64, min_length=64, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(IDS[:20].astype(np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    ids = IDS[:20].tolist()
    with open_session(folder, info, threads=1) as session:
        logits = session.forward(ids)[0]
        while len(ids) < 64:
            logits[list(checkpoint.config.eos)] = -np.inf  # so does min_length
            ids.append(int(logits.argmax()))
            logits = session.forward(ids[-1:])[0]
    assert list(generator.get_sequence(0)) == ids


@pytest.mark.parametrize("name", ["layers.1.v", "layers.0.up", "layers.0.down", "head"])
def test_a_doubled_scale_is_seen(built, tmp_path, name):
    made = built("llama_bias", SCHEMES["int4"])
    shutil.copytree(made[2], tmp_path / "onnx")
    double_scales_onnx(tmp_path / "onnx", made[1], name)
    before, after = stored(made[2]), stored(tmp_path / "onnx")
    rows, width = made[1].entries[name].shape
    blocks = width // 64 if name == "head" else width // 32
    assert sum(int((before[key] != after[key]).sum()) for key in before) == rows * blocks
    with open_session(tmp_path / "onnx", INFO, threads=1) as session:
        text = simulated(made)
        assert np.abs(session.forward(IDS) - text[-1]).max() > 4 * ROUGH * np.abs(text).max()


def relocate(location: str):
    def damage(folder: Path) -> None:
        shutil.copy(folder / "model.onnx.data", folder.parent / "outside.data")
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location.format(folder.parent)
        onnx.save(model, folder / "model.onnx")

    return damage


def link_outside(folder: Path) -> None:
    (folder / "model.onnx.data").rename(folder.parent / "outside.data")
    (folder / "model.onnx.data").symlink_to(folder.parent / "outside.data")


def fifo(folder: Path) -> None:
    (folder / "model.onnx.data").unlink()
    os.mkfifo(folder / "model.onnx.data")


def declare(name: str, index: int, dim: int, size: int):
    def damage(folder: Path) -> None:
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        value = (model.graph.output if name == "logits" else model.graph.input)[index]
        value.type.tensor_type.shape.dim[dim].dim_value = size
        onnx.save(model, folder / "model.onnx")

    return damage


DAMAGE = {
    "data outside by ..": relocate("../outside.data"),
    "data outside, absolute": relocate("{}/outside.data"),
    "data outside by a link": link_outside,
    "data is a FIFO": fifo,
    "no data": lambda folder: (folder / "model.onnx.data").unlink(),
    "truncated data": lambda folder: os.truncate(folder / "model.onnx.data", 1000),
    "truncated model": lambda folder: os.truncate(folder / "model.onnx", 3000),
    "empty model": lambda folder: os.truncate(folder / "model.onnx", 0),
    "no model": lambda folder: (folder / "model.onnx").unlink(),
    "garbage": lambda folder: (folder / "model.onnx").write_bytes(b"hello" * 1000) and None,
    "absurd cache": declare("past", 2, 1, 1 << 40),
    "huge cache": declare("past", 2, 1, 1 << 24),
    "wrong vocabulary": declare("logits", 0, 2, 17),
}


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_broken_artifact_is_bad_input(built, tmp_path, monkeypatch, damage, kind):
    """Gemma's windows are made to evict, so that ONNX Runtime opens bytes and not a path."""
    monkeypatch.setattr(engine, "CHUNK", 8)
    folder = tmp_path / "onnx"
    shutil.copytree(built(kind, SCHEMES["int4"])[2], folder)
    damage(folder)
    with pytest.raises(InputError), open_session(folder, INFO, threads=1) as session:
        session.forward(IDS)


@pytest.mark.parametrize("context", [None, 0, True, "96", 1 << 40])
def test_a_manifest_without_a_usable_context(built, context):
    with pytest.raises(InputError, match="no usable context"):
        open_session(built("llama", SCHEMES["int4"])[2], INFO | {"context": context}, threads=1)


def test_a_model_with_other_inputs_is_refused(built, tmp_path):
    folder = tmp_path / "onnx"
    shutil.copytree(built("llama", SCHEMES["int4"])[2], folder)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    model.graph.input.append(onnx.helper.make_tensor_value_info("position_ids", onnx.TensorProto.INT64, [1]))
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(InputError, match="not those of a decoder"):
        open_session(folder, INFO, threads=1)


def test_a_missing_package_is_a_matter_of_setup(built, monkeypatch):
    folder = built("llama", SCHEMES["int4"])[2]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SetupError, match=r"smolship\[onnx\]"):
        open_session(folder, INFO, threads=1)


def test_the_genai_folder_without_a_tokenizer_config(tiny, tmp_path):
    checkpoint = open_checkpoint(str(tiny("llama")))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    target.lower(Job(checkpoint.config, weights, CONTEXT), tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == {}
    assert not (tmp_path / "tokenizer.json").exists()
