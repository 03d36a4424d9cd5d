"""The decoder against the original implementation in transformers: tiny, random, float32, default tolerances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from smolship.export.checkpoint import open_checkpoint
from smolship.export.opaque import trace
from smolship.export.reference import Reference, run
from tests.conftest import TINY

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


def test_inverted_nope_layers_are_seen(tiny):
    """The trap that broke public ports: the tiny model must tell the two readings apart."""
    from dataclasses import replace

    checkpoint = open_checkpoint(str(tiny("smollm3")))
    assert checkpoint.config.rotary_layers == (True, True, True, False)
    flipped = replace(checkpoint.config, rotary_layers=tuple(not r for r in checkpoint.config.rotary_layers))
    logits = run(flipped, Reference(flipped, checkpoint, 70), IDS)
    assert np.abs(logits - original(tiny("smollm3"))).max() > 0.1


@pytest.mark.parametrize("kind", ["llama", "smollm3"])
def test_the_opaque_trace_names_every_primitive(tiny, kind):
    config = open_checkpoint(str(tiny(kind))).config
    program = trace(config, context=64)
    called = [n for n in program.graph.nodes if n.op == "call_function" and "smolship" in str(n.target)]
    count = {name: sum(name in str(n.target) for n in called) for name in ("attend", "rotary", "embed")}
    assert count == {"attend": config.layers, "rotary": 2 * sum(config.rotary_layers), "embed": 1}
    named = [name for n in called if "linear" in str(n.target) for name in n.args[1].split()]
    assert sorted(named) == sorted([*config.linears(), "embed"])
