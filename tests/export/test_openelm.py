"""OpenELM: how its config.json is read, the original of ours that parity compares with, and all four targets, gates on,
with GGUF in and out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from smolship.export import export
from smolship.export.checkpoints import open_checkpoint
from smolship.export.families import openelm, openelm_original, translate
from smolship.export.original import Original
from smolship.export.reference import Reference, run
from smolship.export.targets import TARGETS, load_target
from smolship.export.transforms import Fused
from smolship.runtime.bundle import Bundle
from smolship.runtime.engines.gguf import open_session
from smolship.runtime.errors import GateError, InputError
from smolship.runtime.parity import parity
from smolship.runtime.readback.compare import compare
from smolship.tools.cli import run as cli
from tests.conftest import TINY, make_tiny
from tests.gguf_maker import make_gguf

IDS = np.random.default_rng(6).integers(0, 300, 40)
PUBLISHED = {  # layers, width, head size; parameters; heads of the first and the last layer, and widths of their MLPs
    "270M": ((16, 1280, 64), 271_527_168, (12, 20), (768, 5120)),
    "450M": ((20, 1536, 64), 457_179_136, (12, 24), (768, 6144)),
    "1.1B": ((28, 2048, 64), 1_079_891_456, (16, 32), (1024, 8192)),
    "3B": ((36, 3072, 128), 3_036_647_424, (12, 24), (1536, 12_288)),
}


def published(name: str) -> dict[str, Any]:
    layers, width, size = PUBLISHED[name][0]
    return TINY["openelm"] | {
        "num_transformer_layers": layers,
        "model_dim": width,
        "head_dim": size,
        "num_gqa_groups": 4,
        "qkv_multipliers": [0.5, 1.0],
        "ffn_multipliers": [0.5, 4.0],
        "ffn_dim_divisor": 256,
        "num_query_heads": None,
        "num_kv_heads": None,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes(name):
    """Their numbers of parameters, and every layer as the original of ours makes it."""
    _, parameters, heads, widths = PUBLISHED[name]
    config, _, reading = translate(published(name), "x")
    assert sum(map(math.prod, config.shapes().values())) == parameters
    assert (config.attentions[0].heads, config.attentions[-1].heads) == heads
    assert (config.layers[0].mlp.width, config.layers[-1].mlp.width) == widths
    assert reading.notes == []
    theirs = openelm_original.OpenElmConfig(**published(name))
    for i, layer in enumerate(config.layers):
        assert (theirs.heads(i), theirs.width(i)) == ((layer.mixer.heads, layer.mixer.kv_heads), layer.mlp.width)


def test_lists_alone_are_taken_as_they_are():
    """As of a config.json without what they were made of."""
    raw = {key: value for key, value in TINY["openelm"].items() if key not in ("qkv_multipliers", "num_gqa_groups")}
    config, _, _ = translate(raw | {"num_query_heads": [5, 3, 2, 4], "num_kv_heads": [1, 3, 1, 2]}, "x")
    assert [(mixer.heads, mixer.kv_heads) for mixer in config.attentions] == [(5, 1), (3, 3), (2, 1), (4, 2)]


@pytest.mark.parametrize(
    "change",
    [
        {"num_query_heads": [2, 4, 6, 8]},
        {"num_kv_heads": [2, 4, 6, 6]},
        {"num_query_heads": [2, 4, 6]},
        {"num_query_heads": [2, 4, 6.0, 6]},
        {"qkv_multipliers": [0.5, 0.7, 1.0, 1.5]},
        {"qkv_multipliers": [0.5, -1.5]},
        {"num_gqa_groups": 0},
        {"num_gqa_groups": 4096},
        {"ffn_multipliers": [0.5, 1.2, 1.8]},
        {"ffn_multipliers": [0.5, 1.2, 1.8, 1e9]},
        {"ffn_multipliers": "4"},
        {"ffn_with_glu": False},
        {"activation_fn_name": "gelu"},
        {"normalization_layer_name": "layer_norm"},
        {"rms_norm_eps": 1e-5},
        {"share_input_output_layers": False},
        {"tie_word_embeddings": False},
        {"rope_freq_constant": "10000"},
        {"num_transformer_layers": 1 << 40},
    ],
    ids=str,
)
def test_what_is_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        translate(TINY["openelm"] | change, "x")


def test_the_original_is_ours_and_says_so(tiny):
    original = Original(open_checkpoint(str(tiny("openelm"))))
    (note,) = original.notes
    assert "smolship's own, written from the paper (arXiv:2404.14619)" in note and "is not run" in note
    assert type(original.model).__module__ == openelm_original.__name__


def test_texts_of_several_lengths_go_on_as_each_alone(tiny):
    """Weights are read by module, and shorter texts are filled up in front."""
    original = Original(open_checkpoint(str(tiny("openelm"))))
    prompts = [IDS[:n].tolist() for n in (9, 30, 1)]
    model = AutoModelForCausalLM.from_pretrained(tiny("openelm"), dtype=torch.float32)
    for prompt, found in zip(prompts, original.continuations(prompts, 8), strict=True):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            for _ in range(8):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
        assert found.tolist() == ids[0, len(prompt) :].tolist()


@pytest.fixture(scope="module")
def bundles(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """bundles("int4", "onnx", "gguf"), made once."""
    home = tmp_path_factory.mktemp("openelm")

    @cache
    def made(quant: Any, *targets: str) -> Bundle:
        return export(tiny("openelm"), home / quant, to=targets, quant=quant, context=128, probe_tokens=256)

    return made


FAST = ("int4", "executorch", "onnx", "gguf")


@pytest.mark.real
@pytest.mark.sampled(3)
@pytest.mark.parametrize("target", FAST[1:])
def test_every_gate_passes(bundles, target):
    report = parity(bundles(*FAST), target, threads=1, quick=True)
    assert report.passed, [check for check in report.checks if not check.passed]


@pytest.mark.real
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("quant", ["none", "int8"])
def test_every_gate_passes_at_any_bits(bundles, quant, target):
    report = parity(bundles(quant, *TARGETS), target, threads=1)
    assert report.passed, [check for check in report.checks if not check.passed]
    assert [found.wrong for found in compare(bundles(quant, *TARGETS), TARGETS)] == [{}] * 4


@pytest.mark.real
def test_core_ml_at_4_bits(tiny, tmp_path):
    bundle = export(tiny("openelm"), tmp_path / "b", to=["coreml"], quant="int4", context=128, probe_tokens=256)
    assert parity(bundle, "coreml", threads=1).passed
    assert [found.wrong for found in compare(bundle, ["coreml"])] == [{}]


def test_every_target_holds_the_same_weights_and_the_bundle_says_whose_the_original_is(bundles):
    bundle = bundles(*FAST)
    assert [found.wrong for found in compare(bundle, FAST[1:])] == [{}] * 3
    assert any("smolship's own, written from the paper" in note for note in bundle.manifest.quantization.notes)
    assert (bundle.manifest.model.heads, bundle.manifest.model.kv_heads, bundle.manifest.model.head_dim) == (
        None,
        None,
        32,
    )


def greedy(session: Any, count: int) -> list[int]:
    ids = IDS[:20].tolist()
    logits = session.forward(ids)[0]
    for _ in range(count):
        ids.append(int(logits.argmax()))
        logits = session.forward(ids[-1:])[0]
    return ids[20:]


def test_llama_cpp_answers_as_our_decoder_does(tiny, tmp_path):
    """At fp16, from the file that its own converter would write."""
    hf = make_gguf(tiny("openelm"), tmp_path / "model.gguf", kind="F16")
    with open_session(tmp_path, {"file": "model.gguf", "context": 128}, threads=1) as session:
        found = greedy(session, 24)
    ids = IDS[:20].tolist()
    ops = Reference(hf.config, open_checkpoint(str(tmp_path / "model.gguf")), 128)
    logits = run(hf.config, ops, ids)[-1]
    for step in range(24):
        ids.append(int(logits.argmax()))
        logits = run(hf.config, ops, ids[-1:], 20 + step)[-1]
    assert found == ids[20:]


def test_a_gguf_of_the_original_computes_what_the_original_does(tiny, tmp_path):
    """Our decoder of the file, and the original of ours, which finds its own names in it."""
    hf = make_gguf(tiny("openelm"), tmp_path / "m.gguf")
    ours = open_checkpoint(str(tmp_path / "m.gguf"))
    assert ours.config == hf.config
    np.testing.assert_array_equal(*(run(c.config, Reference(c.config, c, 40), IDS.tolist()) for c in (hf, ours)))
    first, second = (np.concatenate([*next(Original(c).logits(IDS[None], np.arange(40)))]) for c in (hf, ours))
    np.testing.assert_array_equal(first, second)


@pytest.mark.real
def test_the_file_that_llama_cpp_gets_is_a_checkpoint_of_the_same_weights(bundles, tmp_path):
    """GGUF out, and in again with the original read from it: lifted as they are, to the same logits bit for bit."""
    bundle = bundles(*FAST)
    again = export(bundle.path / "gguf" / "model.gguf", tmp_path / "b", to=["gguf"], context=128, probe_tokens=64)
    assert again.manifest.quantization.lifted > 0
    with bundle.session("gguf", threads=1) as first, again.session("gguf", threads=1) as second:
        assert np.array_equal(first.forward(IDS), second.forward(IDS))


@pytest.mark.parametrize(
    ("lies", "why"),
    [
        ({"openelm.attention.head_count": [2, 4, 6, 5]}, "num_kv_heads"),
        ({"openelm.attention.head_count": [2, 4]}, "num_query_heads"),
        ({"openelm.feed_forward_length": [64, 160, 224, 0]}, "ffn_multipliers"),
        ({"openelm.feed_forward_length": [64, 160, 224, 321]}, "wrong shape"),
        ({"openelm.attention.layer_norm_rms_epsilon": 1e-5}, "rms_norm_eps"),
        ({"openelm.block_count": 1 << 31}, "num_transformer_layers"),
        ({"openelm.rope.scaling.type": "yarn"}, "not understood"),
    ],
    ids=str,
)
def test_a_gguf_that_lies(tiny, tmp_path, lies, why):
    make_gguf(tiny("openelm"), tmp_path / "m.gguf", **lies)
    with pytest.raises(InputError, match=why):
        open_checkpoint(str(tmp_path / "m.gguf"))


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "wrong",
    [
        {kind: Fused(openelm.GATE_UP, ("up", "gate")) for kind in ("up", "gate")},
        pytest.param({kind: Fused(openelm.QKV, ("q", "v", "k")) for kind in ("q", "k", "v")}, marks=pytest.mark.real),
    ],
    ids=["gate and up exchanged", "keys and values exchanged"],
)
def test_fused_rows_in_another_order_fail_the_gate(tiny, tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(openelm, "NAMES", openelm.NAMES | wrong)
    with pytest.raises(GateError, match="does not say what the original says"):
        export(tiny("openelm"), tmp_path / "b", to=["onnx"], context=128, probe_tokens=64)
    assert not (tmp_path / "b").exists()


def test_what_llama_cpp_cannot_express(tmp_path):
    model = make_tiny(tmp_path / "m", "openelm", normalize_qk_projections=False)
    (problem,) = load_target("gguf").problems(open_checkpoint(str(model)).config)
    assert "no norms of queries and keys" in problem


def test_what_llama_cpp_cannot_reveal_is_said_before_the_others_are_asked(bundles, capsys):
    assert cli(["weights", str(bundles(*FAST).path), "--reveal"]) == 2
    assert "cannot reveal" in (said := capsys.readouterr().err) and "openelm never has" in said


@pytest.mark.real
def test_the_others_reveal_what_they_hold(bundles):
    assert cli(["weights", str(bundles(*FAST).path), "--reveal", "-t", "onnx,executorch"]) == 0
