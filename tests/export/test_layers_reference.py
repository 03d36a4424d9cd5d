"""Layers as data say what other architectures compute: four of transformers' own classes, put together by hand.

None of them is a family yet; what is shown is that the data has room for them and the reference obeys it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from smolship.export.config import Attention, DecoderConfig, Layer, Mlp
from smolship.export.families import llama
from smolship.export.reference import Reference, run
from smolship.export.rotary import Rotary
from smolship.export.transforms import Fused, Names, Plus, source
from smolship.runtime.tensors import parse
from tests.export.test_transforms import Array

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 80,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.1,
}
AT = "model.layers.{}."


def decoder(layers: tuple[Layer, ...], **of: Any) -> DecoderConfig:
    return DecoderConfig("x", layers, 64, 80, 1e-5, of.pop("tied_head", False), 128, **of)


def gemma3() -> tuple[Any, DecoderConfig, Names]:
    """Sandwich norms with 1 + w, norms of q and k, tanh's GELU, two thetas, windows, a scale of its own."""
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
    }
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    model = Gemma3ForCausalLM(
        Gemma3TextConfig(
            **SIZES,
            head_dim=32,
            query_pre_attn_scalar=20,
            sliding_window=7,
            layer_types=kinds,
            rope_parameters=rope,
            hidden_activation="gelu_pytorch_tanh",
        )
    )
    local = Attention(4, 2, 32, 20**-0.5, Rotary(100.0, 32), window=7, qk_norm="head")
    far = Attention(4, 2, 32, 20**-0.5, Rotary(5000.0, 32), qk_norm="head")
    mlp = Mlp(96, activation="gelu_tanh")
    layers = tuple(Layer(mixer, mlp, norms="both") for mixer in (local, far, local))
    named = {
        "norm": "model.norm.weight",
        "attn_norm": AT + "input_layernorm.weight",
        "attn_out_norm": AT + "post_attention_layernorm.weight",
        "mlp_norm": AT + "pre_feedforward_layernorm.weight",
        "mlp_out_norm": AT + "post_feedforward_layernorm.weight",
        "q_norm": AT + "self_attn.q_norm.weight",
        "k_norm": AT + "self_attn.k_norm.weight",
    }
    names = llama.NAMES | {kind: Plus(name) for kind, name in named.items()}
    scale = float(torch.tensor(64**0.5, dtype=torch.float32))
    return model, decoder(layers, tied_head=True, embedding_scale=scale), names


def phi3() -> tuple[Any, DecoderConfig, Names]:
    """Fused matrices, rotary embedding of half of each head."""
    rope = {"rope_type": "default", "rope_theta": 900.0, "partial_rotary_factor": 0.5}
    model = Phi3ForCausalLM(Phi3Config(**SIZES, rope_parameters=rope, original_max_position_embeddings=128))
    mixer = Attention(4, 2, 16, 16**-0.5, Rotary(900.0, 8))
    qkv, both = AT + "self_attn.qkv_proj.weight", AT + "mlp.gate_up_proj.weight"
    names = llama.NAMES | {kind: Fused(qkv, ("q", "k", "v")) for kind in "qkv"}
    names |= {kind: Fused(both, ("gate", "up")) for kind in ("gate", "up")}
    return model, decoder((Layer(mixer, Mlp(96)),) * 3), names


def olmo2() -> tuple[Any, DecoderConfig, Names]:
    """Norms on what the attention and the MLP give, one norm over all queries and one over all keys."""
    model = Olmo2ForCausalLM(Olmo2Config(**SIZES, rope_parameters={"rope_type": "default", "rope_theta": 700.0}))
    mixer = Attention(4, 2, 16, 16**-0.5, Rotary(700.0, 16), qk_norm="full")
    names = llama.NAMES | {
        "attn_out_norm": AT + "post_attention_layernorm.weight",
        "mlp_out_norm": AT + "post_feedforward_layernorm.weight",
        "q_norm": AT + "self_attn.q_norm.weight",
        "k_norm": AT + "self_attn.k_norm.weight",
    }
    return model, decoder((Layer(mixer, Mlp(96), norms="after"),) * 3), names


def granite() -> tuple[Any, DecoderConfig, Names]:
    """Four multipliers."""
    model = GraniteForCausalLM(
        GraniteConfig(
            **SIZES,
            rope_parameters={"rope_type": "default", "rope_theta": 700.0},
            embedding_multiplier=3.0,
            attention_multiplier=0.4,
            residual_multiplier=0.3,
            logits_scaling=4.0,
        )
    )
    mixer = Attention(4, 2, 16, 0.4, Rotary(700.0, 16))
    layers = (Layer(mixer, Mlp(96), residual=0.3),) * 3
    return model, decoder(layers, embedding_scale=3.0, logits_scale=0.25), llama.NAMES


class Tensors:
    """A model's tensors by our names."""

    def __init__(self, model: Any, config: DecoderConfig, names: Names):
        self.state, self.config, self.names = model.state_dict(), config, names

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        stored, transform = source(self.names, name)
        array = Array(self.state[stored].numpy())
        return (transform.apply(array, parse(name), self.config) if transform else array).read(start, stop)


@pytest.mark.parametrize("made", [gemma3, phi3, olmo2, granite])
def test_the_reference_equals_the_original(made: Callable[[], tuple[Any, DecoderConfig, Names]]):
    torch.manual_seed(11)
    model, config, names = made()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    ids = np.random.default_rng(2).integers(0, 80, 40).tolist()
    with torch.inference_mode():
        wanted = model.eval()(torch.tensor([ids]), use_cache=False).logits[0]
    ops, got, at = Reference(config, Tensors(model, config, names), 40), [], 0
    for size in (17, 1, 1, 21):
        got.append(run(config, ops, ids[at : at + size], at))
        at += size
    torch.testing.assert_close(torch.from_numpy(np.concatenate(got)), wanted)
