"""The GGUF target: what the file holds, by gguf-py's reader, what llama.cpp makes of it, and that it comes back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from smolship.export.checkpoints import Checkpoint, open_checkpoint
from smolship.export.checkpoints.gguf import NAMES
from smolship.export.quantize import unpack4
from smolship.export.reference import Reference, run
from smolship.export.targets import gguf as target
from smolship.export.targets.gguf import tensors
from smolship.export.transforms import theirs
from smolship.export.weights import SCHEMES, Scheme, Weights, write_weights
from smolship.runtime.engines.gguf import open_session
from smolship.runtime.errors import InputError
from tests.bundles import job_of
from tests.conftest import KINDS, make_tiny
from tests.edit import double_scales_gguf
from tests.gguf_maker import make_gguf, permute

CONTEXT = 96
IDS = np.random.default_rng(3).integers(0, 300, 85)
INFO = {"file": "model.gguf", "context": CONTEXT}
Built = tuple[Checkpoint, Weights, Path]
WIDE = Scheme(4, 4, 4, 64)


@pytest.fixture(scope="module")
def built(tiny, tmp_path_factory):
    """built(kind, scheme) -> checkpoint, weights and the folder of the file, made once."""
    made: dict[tuple[str, Scheme], Built] = {}

    def get(kind: str, scheme: Scheme) -> Built:
        if (kind, scheme) not in made:
            made[kind, scheme] = lowered(tiny(kind), scheme, tmp_path_factory.mktemp("gguf"))
        return made[kind, scheme]

    return get


def lowered(model: Path, scheme: Scheme, folder: Path) -> Built:
    folder.mkdir(exist_ok=True)
    checkpoint = open_checkpoint(str(model))
    weights = write_weights(checkpoint, checkpoint.config, scheme, folder)
    assert target.problems(checkpoint.config) == []
    assert target.lower(job_of(checkpoint, weights, CONTEXT), folder) == INFO
    return checkpoint, weights, folder


def divergence(a: np.ndarray, b: np.ndarray) -> float:
    """Mean KL(a || b) in nats over rows of logits."""
    p, q = (torch.log_softmax(torch.from_numpy(x).double(), -1) for x in (a, b))
    return float((p.exp() * (p - q)).sum(-1).mean())


def distance(built: Built) -> tuple[float, float]:
    """KL from the simulation to the engine, and what one ulp moves the simulation by."""
    checkpoint, weights, folder = built
    numerics = target.numerics(weights)

    def simulate(ulp: int | None) -> np.ndarray:
        return run(checkpoint.config, Reference(checkpoint.config, weights, CONTEXT, numerics, ulp), IDS)

    simulation = simulate(None)
    with open_session(folder, INFO, threads=2) as session:
        assert (session.vocab, session.capacity) == (checkpoint.config.vocab, CONTEXT)
        engine = session.forward(IDS, "all")
        session.rewind(0)
        np.testing.assert_allclose(session.forward(IDS)[0], engine[-1], atol=0.05 * np.abs(engine).max())
    return divergence(simulation, engine), max(divergence(simulation, simulate(i)) for i in (1, 2))


@pytest.mark.sampled(5)
@pytest.mark.parametrize("scheme", [SCHEMES["int4"], SCHEMES["int8"], SCHEMES["none"], WIDE], ids=repr)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.values[0] != "qwen2_window"])
def test_the_engine_is_as_good_as_its_arithmetic(built, kind, scheme):
    engine, floor = distance(built(kind, scheme))
    assert engine < 5 * floor


def test_the_cache_is_ours(built):
    """In our order of dimensions, by position, in layers with and without rotary embedding."""
    checkpoint, weights, folder = built("smollm3", SCHEMES["none"])
    ops = Reference(checkpoint.config, weights, CONTEXT, target.numerics(weights))
    run(checkpoint.config, ops, IDS[:30])
    with open_session(folder, INFO, threads=1) as session:
        assert session.cache(0) is None
        session.forward(IDS[:50])
        session.rewind(12)
        session.forward(IDS[12:30])
        for layer in range(len(checkpoint.config.layers)):
            for ours, theirs_ in zip(ops.cache[layer], session.cache(layer), strict=True):
                np.testing.assert_allclose(theirs_, ours[0, :30].numpy(), atol=0.02, rtol=0.02)
        assert session.cache(len(checkpoint.config.layers)) is None


def test_the_caches_of_windows_are_ours(built):
    """llama.cpp saves two: of the layers that see a window, what the last token sees alone."""
    checkpoint, weights, folder = built("gemma3", SCHEMES["none"])
    config, window, count = checkpoint.config, 9, 30
    assert [mixer.window for mixer in config.attentions] == [window, None, window]
    ops = Reference(config, weights, CONTEXT, target.numerics(weights))
    said = run(config, ops, IDS[: count + 6])
    cached = [np.stack([part[0, :count].numpy() for part in ops.cache[layer]]) for layer in range(3)]
    with open_session(folder, INFO, threads=1) as session:
        session.forward(IDS[:window])
        for layer, whole in enumerate(cached):
            np.testing.assert_allclose(session.cache(layer), whole[:, :window], atol=0.02, rtol=0.02)
        session.forward(IDS[window:count])
        assert [session.cache(layer) is None for layer in range(3)] == [True, False, True]
        np.testing.assert_allclose(session.cache(1), cached[1], atol=0.02, rtol=0.02)
        session.preset(cached, count)
        assert session.position == count
        np.testing.assert_allclose(session.forward(IDS[count:], "all")[:6], said[count:], atol=0.02)
        session.rewind(count + 2)
        np.testing.assert_allclose(session.forward(IDS[count + 2 : count + 6])[0], said[-1], atol=0.02)
        for wrong in (cached[:2], [*cached, cached[0]], [rows[..., :16] for rows in cached]):
            with pytest.raises(InputError, match="not of this model's shape"):
                session.preset(wrong, count)


YARN = {"rope_type": "yarn", "rope_theta": 50_000.0, "factor": 4.0, "original_max_position_embeddings": 32}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "rope", [YARN, YARN | {"attention_factor": 1.5}, {"rope_type": "linear", "factor": 3.0}], ids=str
)
@pytest.mark.parametrize("kind", ["smollm3", "qwen2", "qwen3", "granite", "lfm2", "llama"])
def test_scalings_that_llama_cpp_has_keys_for(tmp_path, kind, rope):
    """As its arithmetic says, and read again as they were."""
    made = lowered(make_tiny(tmp_path / "m", kind, rope_parameters=rope), SCHEMES["none"], tmp_path / "o")
    engine, floor = distance(made)
    assert engine < 5 * floor
    (wanted,), (rotary,) = (
        c.config.rotaries.values() for c in (made[0], open_checkpoint(str(tmp_path / "o/model.gguf")))
    )
    np.testing.assert_allclose(rotary.frequencies(), wanted.frequencies(), rtol=1e-6)
    assert rotary.scaling.amplitude == pytest.approx(wanted.scaling.amplitude, rel=1e-6)


def test_a_head_size_of_its_own(tmp_path):
    engine, floor = distance(lowered(make_tiny(tmp_path / "m", "llama", head_dim=48), SCHEMES["int4"], tmp_path / "o"))
    assert engine < 5 * floor


def test_doubled_scales_are_far_away(tiny, tmp_path):
    checkpoint, weights, folder = lowered(tiny("llama"), SCHEMES["int4"], tmp_path / "o")
    double_scales_gguf(folder / "model.gguf", weights, "layers.0.o")
    engine, floor = distance((checkpoint, weights, folder))
    assert engine > 20 * floor


def test_rows_in_our_order_are_far_away(tiny, tmp_path, monkeypatch):
    """Unpermuted queries and keys turn by other angles: the gate sees it."""
    monkeypatch.setattr(tensors, "GGUF_WOVEN", ())
    engine, floor = distance(lowered(tiny("llama"), SCHEMES["int4"], tmp_path / "o"))
    assert engine > 20 * floor


def fields(folder: Path) -> dict:
    return {name: field.contents() for name, field in gguf.GGUFReader(folder / "model.gguf").fields.items()}


def test_blocks_are_our_codes_and_scales_bit_for_bit(built):
    """Read by gguf-py and taken apart here, by the format's definition."""
    for scheme in (SCHEMES["int4"], SCHEMES["none"], WIDE):
        checkpoint, weights, folder = built("llama_bias", scheme)
        config = checkpoint.config
        stored = {tensor.name: tensor for tensor in gguf.GGUFReader(folder / "model.gguf").tensors}
        assert set(stored) == {theirs(NAMES, name) for name in config.shapes()}
        for name, entry in weights.entries.items():
            tensor, data = stored[theirs(NAMES, name)], stored[theirs(NAMES, name)].data
            part = name.removesuffix(".bias").rpartition(".")[2]
            heads = {"q": config.layers[0].mixer.heads, "k": config.layers[0].mixer.kv_heads}.get(part)

            def ours(rows, heads=heads):
                return permute(rows, heads) if heads else rows

            if entry.bits == 16:
                assert tensor.tensor_type.name == ("F32" if len(entry.shape) == 1 else "F16")
                np.testing.assert_array_equal(data, ours(weights.values(name)))
                continue
            assert tensor.tensor_type.name == {4: "Q4_0", 8: "Q8_0"}[entry.bits]
            q, blocks = weights.tensor(name), data.reshape(entry.shape[0], -1, {4: 18, 8: 34}[entry.bits])
            scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0].astype(np.float32)
            packed = np.ascontiguousarray(blocks[..., 2:])
            if entry.bits == 4:
                codes = np.concatenate([(packed & 15), (packed >> 4)], axis=-1).astype(np.int8) - 8
            else:
                codes = packed.view(np.int8)
            np.testing.assert_array_equal(codes.reshape(entry.shape), ours(q.codes))
            np.testing.assert_array_equal(scales, ours(np.repeat(q.scales, q.group // 32, axis=1)))


def test_the_file_is_the_same_in_pieces_of_any_size(built, tmp_path, monkeypatch):
    checkpoint, weights, folder = built("llama_bias", SCHEMES["int4"])
    monkeypatch.setattr(tensors, "CHUNK", 5000)
    job = job_of(checkpoint, weights, CONTEXT)
    sizes = {piece.nbytes for name in weights.entries for _, piece in tensors.pieces(job, name)}
    assert max(sizes) <= 2 * 5000, "memory is bounded"
    target.lower(job, tmp_path)
    assert (tmp_path / "model.gguf").read_bytes() == (folder / "model.gguf").read_bytes()


@pytest.mark.parametrize("kind, scheme", [("Q4_0", "int4"), ("Q8_0", "int8")])
def test_a_quantized_file_in_gives_the_same_blocks_out(tiny, tmp_path, kind, scheme):
    """Those of gguf-py's quantizer, negative scales among them."""
    make_gguf(tiny("llama_bias"), tmp_path / "in.gguf", kind=kind)
    lowered(tmp_path / "in.gguf", SCHEMES[scheme], tmp_path / "o")
    before, after = (
        {t.name: t for t in gguf.GGUFReader(path).tensors if t.tensor_type.name == kind}
        for path in (tmp_path / "in.gguf", tmp_path / "o" / "model.gguf")
    )
    assert set(before) == set(after) and len(before) == 16
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name].data, tensor.data)


def test_packing_is_undone_by_its_definition():
    codes = np.random.default_rng(1).integers(-8, 8, (5, 3, 32), np.int8)
    packed = tensors.pack_q4_0(codes)
    np.testing.assert_array_equal(unpack4(packed)[..., 0::2], codes[..., :16])
    np.testing.assert_array_equal(unpack4(packed)[..., 1::2], codes[..., 16:])


@pytest.mark.parametrize("kind", ["llama", "llama_bias", "smollm3"])
def test_our_own_reader_reads_it_again(built, kind):
    """Config, values and token ids, through the GGUF checkpoint."""
    checkpoint, weights, folder = built(kind, SCHEMES["int8"])
    again = open_checkpoint(str(folder / "model.gguf"))
    assert again.config == checkpoint.config
    for name in checkpoint.config.shapes():
        np.testing.assert_array_equal(again.read(name), weights.values(name))
    assert again.files["chat_template.jinja"] == checkpoint.files["chat_template.jinja"]


@pytest.mark.parametrize("kind", ["llama"])
def test_transformers_reads_it_too(built, kind):
    """The original implementation, from our file, against our decoder on the same weights."""
    from transformers import AutoModelForCausalLM

    checkpoint, weights, folder = built(kind, SCHEMES["int8"])
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.float32).eval()
    with torch.inference_mode():
        theirs_ = model(torch.from_numpy(IDS)[None]).logits[0].numpy()
    ours = run(checkpoint.config, Reference(checkpoint.config, weights, CONTEXT), IDS)
    np.testing.assert_allclose(theirs_, ours, atol=1e-4)


def test_metadata(built):
    found = fields(built("smollm3", SCHEMES["int4"])[2])
    assert found["general.architecture"] == "smollm3"
    assert found["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q4_0
    assert found["smollm3.rope.freq_base"] == 5_000_000.0
    assert (found["tokenizer.ggml.pre"], found["tokenizer.ggml.add_bos_token"]) == ("gpt-2", False)
    assert found["tokenizer.ggml.eos_token_id"] == 2
    assert found["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]


def test_the_modelfile(tiny, tmp_path):
    model = make_tiny(tmp_path / "m", "llama")
    (model / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 0.6, "top_p": 0.95}))
    folder = lowered(model, SCHEMES["none"], tmp_path / "o")[2]
    assert (folder / "Modelfile").read_text().splitlines()[1:] == [
        "FROM ./model.gguf",
        f"PARAMETER num_ctx {CONTEXT}",
        'PARAMETER stop "<|im_end|>"',
        "PARAMETER temperature 0.6",
        "PARAMETER top_k 50",
        "PARAMETER top_p 0.95",
        "PARAMETER min_p 0",
        "PARAMETER repeat_penalty 1",
    ]


@pytest.mark.parametrize(
    "kind, changes, why",
    [
        ("smollm3", {"no_rope_layers": [0, 0, 0, 1]}, "every fourth"),
        ("smollm3", {"attention_bias": True}, "biases"),
        ("qwen2", {"head_dim": 48}, "4 heads of 48.*divides 128"),
        ("qwen3", {"rope_parameters": YARN | {"beta_fast": 16.0}}, "no keys"),
        ("qwen3", {"rope_parameters": YARN | {"truncate": False}}, "no keys"),
        ("gemma3", {"rope_parameters": {"full_attention": YARN}}, "no keys"),
    ],
)
def test_what_llama_cpp_cannot_express(tmp_path, kind, changes, why):
    checkpoint = open_checkpoint(str(make_tiny(tmp_path, kind, **changes)))
    assert [problem for problem in target.problems(checkpoint.config) if re.search(why, problem)]


def test_a_width_that_no_block_divides(tmp_path):
    model = make_tiny(tmp_path / "m", "llama", intermediate_size=200)
    with pytest.raises(InputError, match=r"200 inputs of layers\.0\.down"):
        lowered(model, SCHEMES["int8"], tmp_path / "o")
    distance(lowered(model, SCHEMES["none"], tmp_path / "p"))
