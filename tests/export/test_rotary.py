"""Rotary tables are those of transformers, bit for bit, as far as positions go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from smolship.export.rotary import Llama3Scaling, Rotary

LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


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


def test_a_float64_power_is_another_table():
    """What the test above must tell apart: rounded once, frequencies are up to 4e-3 rad away at position 65,000."""
    rotary = Rotary(5_000_000.0, 128)
    exact = rotary.theta ** -(np.arange(0, 128, 2) / 128)
    assert 1e-3 < np.abs(rotary.frequencies() - exact.astype(np.float32).astype(np.float64)).max() * 65_000 < 4e-3
