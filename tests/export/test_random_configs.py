"""Random values for every key that a family's class reads, and for some that it does not: our decoder says what
transformers says, in one call and token by token, or refuses the config by name."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from smolship.export.checkpoints import open_checkpoint
from smolship.export.reference import Reference, run
from smolship.runtime.errors import InputError
from tests.conftest import make_tokenizer

FAMILIES = ("gemma3_text", "granite", "lfm2", "llama", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
DRAWS = 24  # of each family
SEEDS = [pytest.param(i, marks=[pytest.mark.real] * (i > 0)) for i in range(8)]
LEAST = 0.25  # of the configs that are drawn, the share that both sides take: else nothing was tried
FULL, SLIDING = "full_attention", "sliding_attention"
UNREAD = {  # by most classes
    "attention_chunk_size": 7,
    "attention_multiplier": 0.3,
    "clip_qkv": 8.0,
    "final_logit_softcapping": 30.0,
    "is_causal": False,
    "partial_rotary_factor": 0.5,
    "qk_layernorm": True,
    "rope_interleaved": True,
    "rope_local_base_freq": 77.0,
    "scale_emb": 12,
    "sliding_window": 6,
}


def rope(r: random.Random, positions: int) -> dict[str, Any]:
    """A dictionary of a rotary embedding in one of its dialects."""
    kind = r.choice(["default", "linear", "dynamic", "llama3", "yarn", "yarn"])
    found: dict[str, Any] = {r.choice(["rope_type", "rope_type", "type"]): kind}
    if kind != "default":
        found["factor"] = r.choice([1.0, 2, 3.5, 32.0])
    if kind in ("llama3", "yarn") and r.random() < 0.8:
        found["original_max_position_embeddings"] = r.choice([9, 16, positions])
    if kind == "llama3":
        found |= {"low_freq_factor": r.choice([0.5, 1, 2.0]), "high_freq_factor": r.choice([3.0, 8])}
    if kind == "yarn":
        more = {"beta_fast": 6.0, "beta_slow": 0.5, "mscale": 0.7, "mscale_all_dim": 0.4, "truncate": False}
        found |= {key: value for key, value in (more | {"attention_factor": 1.3}).items() if r.random() < 0.25}
    if r.random() < 0.5:
        found["rope_theta"] = r.choice([55.0, 1e3, 5e6])
    return found | ({"partial_rotary_factor": r.choice([0.5, 1.0])} if r.random() < 0.1 else {})


def drawn(r: random.Random, kind: str) -> dict[str, Any]:
    """A config.json."""
    heads, layers, positions = r.choice([1, 2, 3, 6]), r.choice([1, 2, 4]), r.choice([24, 33, 64])

    def window() -> int:
        return r.choice([1, 2, 9, positions - 1, positions, 1000])

    def kinds(*names: str) -> list[str]:
        return [r.choice(names) for _ in range(layers)]

    raw: dict[str, Any] = {
        "model_type": kind,
        "hidden_size": heads * r.choice([8, 10, 24, 32]),
        "intermediate_size": r.choice([33, 50, 96]),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": r.choice([1, heads]),
        "vocab_size": r.choice([61, 257]),
        "max_position_embeddings": positions,
        "norm_eps" if kind == "lfm2" else "rms_norm_eps": r.choice([1e-12, 1e-5, 0.3]),
        "tie_word_embeddings": r.random() < 0.5,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
    }
    some: dict[str, Any] = {"head_dim": r.choice([2, 6, 20, 64]), "rope_theta": r.choice([2.0, 1e3, 1000, 1e7])}
    if kind not in ("gemma3_text", "phi3"):
        some |= {"rope_scaling": rope(r, positions), "rope_parameters": rope(r, positions)}
    if kind in ("gemma3_text", "granite", "llama", "olmo2", "qwen3", "smollm3"):
        some["attention_bias"] = True
    if kind in ("granite", "llama", "smollm3"):
        some["mlp_bias"] = True
    if kind in ("qwen2", "qwen3", "smollm3"):
        some |= {"use_sliding_window": True, "sliding_window": window(), "layer_types": kinds(FULL, SLIDING)}
        some |= {"max_window_layers": r.choice([0, 1]), "no_rope_layer_interval": r.choice([1, 2, 3])}
    if kind == "gemma3_text":
        raw |= {"sliding_window": window(), "query_pre_attn_scalar": r.choice([1, 8, 24, 256])}
        both = {name: rope(r, positions) for name in (FULL, SLIDING)}
        some |= {"rope_parameters": both, "rope_scaling": rope(r, positions), "rope_local_base_freq": 333.0}
        some |= {"layer_types": kinds(FULL, SLIDING), "sliding_window_pattern": r.choice([1, 2, 3])}
    if kind == "granite":
        some |= {"embedding_multiplier": 12, "logits_scaling": 8, "residual_multiplier": 0.22}
        some["attention_multiplier"] = r.choice([0.0078125, 0.5])
    if kind == "lfm2":
        raw |= {"block_multiple_of": r.choice([1, 7, 32]), "layer_types": [FULL, *kinds(FULL, "conv")[1:]]}
        some |= {"conv_L_cache": r.choice([1, 2, 5]), "conv_bias": True, "block_auto_adjust_ff_dim": False}
        some |= {"block_ffn_dim_multiplier": 1.7, "block_ff_dim": 77, "tie_embedding": False}
    if kind == "phi3":
        part = r.choice([0.5, 0.75, 1.0])
        width = int(raw["hidden_size"] // heads * part) // 2
        divisors = {name: [r.uniform(1, 9) for _ in range(width)] for name in ("short_factor", "long_factor")}
        long = {r.choice(["rope_type", "type"]): r.choice(["longrope", "su"]), "partial_rotary_factor": part} | divisors
        raw |= {"partial_rotary_factor": part, "original_max_position_embeddings": r.choice([9, 24])}
        some |= {r.choice(["rope_scaling", "rope_parameters"]): long, "sliding_window": window()}
        del some["head_dim"]
    raw |= {key: value for key, value in some.items() if r.random() < 0.5}
    return raw | {key: value for key, value in UNREAD.items() if key not in raw and r.random() < 0.02}


def original(folder: Path, raw: dict[str, Any]) -> Any:
    """A random model of transformers' class, saved; None where it refuses, or fails in its first forward."""
    (folder / "config.json").write_text(json.dumps(raw))
    try:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).eval()
        with torch.inference_mode():
            for parameter in model.parameters():
                spread = 0.3 if parameter.ndim == 1 else 1.2 * parameter.shape[-1] ** -0.5
                parameter.copy_(torch.randn_like(parameter) * spread + (parameter if parameter.ndim == 1 else 0))
            model(torch.arange(5)[None])
    except Exception:
        return None
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name not in model.all_tied_weights_keys}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return model


def gap(checkpoint: Any, model: Any, r: random.Random) -> float:
    """The largest difference of logits, relative to the largest of them: of short and long texts in one call, and of
    pieces over a cache."""
    config, worst = checkpoint.config, 0.0
    ids = [r.randrange(config.vocab) for _ in range(config.positions)]
    for length in {min(7, config.longest), config.longest, config.positions}:
        ops, found, position = Reference(config, checkpoint, context=length), [], 0
        while position < length:
            step = min(length - position, r.choice([1, 2, 9, length]))
            found.append(run(config, ops, ids[position : position + step], position))
            position += step
        with torch.inference_mode():
            wanted = model(torch.tensor([ids[:length]]), use_cache=False).logits[0].numpy()
        worst = max(worst, float(np.abs(np.concatenate(found) - wanted).max() / np.abs(wanted).max()))
    return worst


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", FAMILIES)
def test_what_both_sides_take_is_the_same(tmp_path, kind, seed):
    logging.getLogger("transformers").setLevel(logging.CRITICAL)
    make_tokenizer(tmp_path, 300)
    r, taken = random.Random(f"{kind} {seed}"), 0
    torch.manual_seed(seed)
    for _ in range(DRAWS):
        raw = drawn(r, kind)
        model = original(tmp_path, raw)
        if model is None:
            continue
        try:
            checkpoint = open_checkpoint(str(tmp_path))
        except InputError as error:
            assert any(key in str(error) for key in raw) or "no layer attends" in str(error), (raw, error)
            continue
        taken += 1
        difference = gap(checkpoint, model, r)
        assert difference < 1e-3, (raw, difference)
    assert taken > LEAST * DRAWS
