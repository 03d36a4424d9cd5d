"""The decoder against the original implementation in transformers: tiny, random, float32, default tolerances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from smolship.export.checkpoints import open_checkpoint
from smolship.export.opaque import trace
from smolship.export.reference import Reference, run
from tests.conftest import TINY, make_tiny
from tests.flows import logits_at
from tests.layers import with_rotary

IDS = np.random.default_rng(3).integers(0, 300, 70).tolist()


def original(folder) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return model(torch.tensor([IDS])).logits[0].numpy()


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("chunks", [[70], [1] * 70, [33, 1, 20, 16]], ids=["prefill", "tokens", "chunks"])
def test_logits_equal_the_original(tiny, kind, chunks):
    checkpoint = open_checkpoint(str(tiny(kind)))
    ops = Reference(checkpoint.config, checkpoint, context=70)
    logits, position = [], 0
    for size in chunks:
        logits.append(run(checkpoint.config, ops, IDS[position : position + size], position))
        position += size
    torch.testing.assert_close(torch.from_numpy(np.concatenate(logits)), torch.from_numpy(original(tiny(kind))))


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("ones", [0, 25], ids=["prefill", "chunks"])
def test_to_the_last_position_that_the_model_was_made_for(tiny, kind, ones):
    checkpoint = open_checkpoint(str(tiny(kind)))
    limit = checkpoint.config.longest
    chunks = [100, limit - 100 - ones, *[1] * ones] if ones else [limit]
    ids = np.random.default_rng(4).integers(0, 300, limit).tolist()
    ops, logits, position = Reference(checkpoint.config, checkpoint, context=limit), [], 0
    for size in chunks:
        logits.append(run(checkpoint.config, ops, ids[position : position + size], position))
        position += size
    model = AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=torch.float32)
    with torch.inference_mode():
        wanted = model(torch.tensor([ids])).logits[0, -40:]
    torch.testing.assert_close(torch.from_numpy(np.concatenate(logits)[-40:]), wanted)


YARN = {"rope_type": "yarn", "rope_theta": 5e6, "factor": 4.0, "original_max_position_embeddings": 128}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gemma3", {"query_pre_attn_scalar": 20, "attention_bias": True}),
        ("gemma3", {"layer_types": None, "rope_parameters": None, "rope_local_base_freq": 50.0, "rope_theta": 700.0}),
        ("granite", {"attention_bias": True, "mlp_bias": True, "head_dim": 48}),
        ("lfm2", {"conv_bias": True, "conv_L_cache": 4, "layer_types": ["full_attention", "conv", "conv"]}),
        ("lfm2", {"block_auto_adjust_ff_dim": False, "tie_embedding": False, "layer_types": None}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 9_000.0}}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 9_000.0}}),
        ("olmo2", {"attention_bias": True, "tie_word_embeddings": True}),
        ("openelm", {"normalize_qk_projections": False, "rope_freq_constant": 700}),
        ("openelm", {"qkv_multipliers": 1.2, "num_query_heads": None, "num_kv_heads": None, "ffn_multipliers": 1.7}),
        ("openelm", {"num_gqa_groups": 1, "num_query_heads": [2, 3, 5, 6], "num_kv_heads": [2, 3, 5, 6]}),
        ("phi3", {"rope_parameters": {"rope_theta": 900.0, "partial_rotary_factor": 0.25}}),
        ("phi3", {"sliding_window": 9}),
        ("smollm3", {"rope_parameters": YARN}),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 9}),
    ],
    ids=str,
)
def test_other_values_of_a_config(tmp_path, kind, changes):
    model = make_tiny(tmp_path / "model", kind, **changes)
    checkpoint = open_checkpoint(str(model))
    ours = run(checkpoint.config, Reference(checkpoint.config, checkpoint, context=200), IDS)
    theirs = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.inference_mode():
        wanted = theirs(torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(torch.from_numpy(ours), wanted)


def test_far_out_the_tables_still_agree(tmp_path):
    """8,192 positions of a model made for as many, its attention sharp enough to tell one position from the next."""
    folder = make_tiny(
        tmp_path,
        "smollm3",
        max_position_embeddings=8192,
        num_hidden_layers=1,
        no_rope_layers=[1],
        initializer_range=0.3,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    checkpoint = open_checkpoint(str(folder))
    ids = np.random.default_rng(5).integers(0, 300, 8192)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        wanted = model(torch.from_numpy(ids[None]), logits_to_keep=16, use_cache=False).logits[0]

    def last(config) -> np.ndarray:
        return logits_at(Reference(config, checkpoint, 8192), ids, np.arange(8176, 8192))

    torch.testing.assert_close(torch.from_numpy(last(checkpoint.config)), wanted)
    near = with_rotary(checkpoint.config, lambda rotary: replace(rotary, theta=5_000_100.0))
    assert np.abs(last(near) - wanted.numpy()).max() > 1e-3


def test_inverted_nope_layers_are_seen(tiny):
    """The trap that broke public ports: the tiny model must tell the two readings apart."""
    checkpoint = open_checkpoint(str(tiny("smollm3")))
    (rotary,) = checkpoint.config.rotaries.values()
    assert [mixer.rotary for mixer in checkpoint.config.attentions] == [rotary, rotary, rotary, None]
    flipped = with_rotary(checkpoint.config, lambda rotary: None, rotary)
    logits = run(flipped, Reference(flipped, checkpoint, 70), IDS)
    assert np.abs(logits - original(tiny("smollm3"))).max() > 0.1


@pytest.mark.parametrize("kind", ["llama", "smollm3", "qwen3"])
def test_the_opaque_trace_names_every_primitive(tiny, kind):
    config = open_checkpoint(str(tiny(kind))).config
    program = trace(config, context=64)
    called = [n for n in program.graph.nodes if n.op == "call_function" and "smolship" in str(n.target)]
    count = {name: sum(name in str(n.target) for n in called) for name in ("attend", "rotary", "embed")}
    assert count == {
        "attend": len(config.layers),
        "rotary": 2 * sum(mixer.rotary is not None for mixer in config.attentions),
        "embed": 1,
    }
    named = [name for n in called if "linear" in str(n.target) for name in n.args[1].split()]
    assert sorted(named) == sorted([*config.linears(), "embed"])
