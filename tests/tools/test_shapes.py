"""The shapes of known models: the sizes of the published ones, and checkpoints of them that open."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from smolship.export.checkpoints import open_checkpoint
from smolship.export.families import FAMILIES, translate
from smolship.tools.peers.shapes import SHAPES, with_layers, write_shape
from tests.conftest import SIZES, TINY

PUBLISHED = {"qwen3-0.6b": 596_049_920, "gemma3-1b": 999_885_952, "lfm2-1.2b": 1_170_340_608}  # parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shape_is_the_published_model_s(name):
    raw = dict(SHAPES[name])
    config = AutoConfig.for_model(raw.pop("model_type"), **raw)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]
    if SHAPES[name]["model_type"] in FAMILIES:
        ours, _, reading = translate(SHAPES[name], name)
        assert sum(map(math.prod, ours.shapes().values())) == PUBLISHED[name]
        assert reading.notes == []


@pytest.mark.parametrize("name", SHAPES)
def test_its_first_layers_are_those_of_the_whole(name):
    kinds = [key for key in ("layer_types", "no_rope_layers") if key in SHAPES[name]]
    cut = with_layers(SHAPES[name], 3)
    assert cut["num_hidden_layers"] == 3 and SHAPES[name]["num_hidden_layers"] > 3
    assert all(cut[key] == SHAPES[name][key][:3] for key in kinds)


@pytest.mark.parametrize("kind", ["phi3", "gemma3"])
def test_a_shape_is_a_checkpoint_whatever_its_tensors_are_stored_as(tmp_path, kind):
    write_shape(SIZES | TINY[kind], tmp_path / "shape")
    checkpoint = open_checkpoint(str(tmp_path / "shape"))
    assert np.abs(checkpoint.read("layers.1.v")).max() > 0.03
    assert (checkpoint.read("layers.1.attn_norm") == 1).all()
