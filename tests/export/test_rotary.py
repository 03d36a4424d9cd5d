"""Rotary tables are those of transformers, bit for bit, as far as positions go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, Phi3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from smolship.export.families import phi3
from smolship.export.families.fields import Fields
from smolship.export.families.rope import rotary as read_rotary
from smolship.export.rotary import Llama3Scaling, Rotary

YARN = {"rope_type": "yarn", "rope_theta": 5_000_000.0, "factor": 2.0, "original_max_position_embeddings": 65_536}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dim", [20, 64, 80, 128])
@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 10_000.0},
        {"rope_theta": 130_000.0},
        {"rope_theta": 1_000_000.0},
        {"rope_theta": 5_000_000.0},
        {"rope_theta": 500_000.0, "factor": 8.0, "original_max_position_embeddings": 8192} | LLAMA3,
        {"rope_theta": 500_000.0, "factor": 32.0, "original_max_position_embeddings": 8192} | LLAMA3,
        {"rope_theta": 70_000.0, "factor": 5.5, "original_max_position_embeddings": 300} | LLAMA3,
    ],
    ids=str,
)
def test_tables_equal_the_original_s(rope, dim):
    rope = {"rope_type": "default"} | rope
    theirs = LlamaRotaryEmbedding(LlamaConfig(head_dim=dim, rope_parameters=rope, max_position_embeddings=131_072))
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    ours = Rotary(rope["rope_theta"], dim, Llama3Scaling(*(rope[key] for key in keys)) if "factor" in rope else None)
    np.testing.assert_array_equal(ours.frequencies(), theirs.inv_freq.numpy())
    positions = 131_072 if dim == 64 else 9_000
    wanted = theirs(torch.zeros(1), torch.arange(positions)[None])
    for table, whole in zip(ours.tables(positions), wanted, strict=True):
        np.testing.assert_array_equal(table, whole[0, :, : dim // 2].numpy())


@pytest.mark.parametrize(
    "rope",
    [
        YARN,
        YARN | {"beta_fast": 24.0, "beta_slow": 1.5, "truncate": False},
        YARN | {"factor": 8.0, "original_max_position_embeddings": 4096, "attention_factor": 1.25},
        YARN | {"factor": 8.0, "mscale": 0.7, "mscale_all_dim": 0.9},
        YARN | {"factor": 1.0},
        {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0},
        {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0},
    ],
    ids=str,
)
def test_scalings_out_of_a_config_equal_the_original_s(rope):
    theirs = LlamaRotaryEmbedding(LlamaConfig(head_dim=64, rope_parameters=dict(rope), max_position_embeddings=131_072))
    raw = {"rope_parameters": rope}
    ours = read_rotary(Fields(raw, "here"), 64, 131_072, 10_000.0)
    np.testing.assert_array_equal(ours.frequencies(), theirs.inv_freq.numpy())
    wanted = theirs(torch.zeros(1), torch.arange(20_000)[None])
    for table, whole in zip(ours.tables(20_000), wanted, strict=True):
        np.testing.assert_array_equal(table, whole[0, :, :32].numpy())


def test_longrope_equals_the_original_s_on_both_sides_of_its_original_positions():
    short, long = [1.0 + i / 7 for i in range(24)], [2.0 + i for i in range(24)]
    raw = {"rope_type": "longrope", "short_factor": short, "long_factor": long, "partial_rotary_factor": 0.75}
    config = Phi3Config(
        hidden_size=128,
        num_attention_heads=2,
        rope_parameters=raw | {"rope_theta": 10_000.0},
        max_position_embeddings=131_072,
        original_max_position_embeddings=4096,
        pad_token_id=0,
    )
    theirs = Phi3RotaryEmbedding(config)
    read = Fields({"rope_parameters": raw, "original_max_position_embeddings": 4096}, "here")
    ours = phi3._rotary(read, 64, 131_072, 10_000.0)
    assert ours.width == 48 and ours.scaling.longest == 4096
    for positions in (4096, 4097, 20_000):
        wanted = theirs(torch.zeros(1), torch.arange(positions)[None])
        for table, whole in zip(ours.tables(positions), wanted, strict=True):
            np.testing.assert_array_equal(table, whole[0, :, :24].numpy())
    assert not np.array_equal(ours.tables(4097)[0][:4096], ours.tables(4096)[0])


def test_a_float64_power_is_another_table():
    """What the test above must tell apart: rounded once, frequencies are up to 4e-3 rad away at position 65,000."""
    rotary = Rotary(5_000_000.0, 128)
    exact = rotary.theta ** -(np.arange(0, 128, 2) / 128)
    assert 1e-3 < np.abs(rotary.frequencies() - exact.astype(np.float32).astype(np.float64)).max() * 65_000 < 4e-3
