"""Checkpoints of random weights in the shape of a known model: for speed, which does not depend on what weights say."""

from __future__ import annotations

import json
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from smolship.export.families import translate
from smolship.export.tensorfile import TensorWriter
from smolship.export.transforms import Plus, source
from smolship.runtime.errors import unknown
from smolship.runtime.folders import new_folder
from smolship.runtime.tensors import parse

# As Llama, with rotary embedding in every layer: SmolLM3 leaves it out of every fourth, which some peers cannot.
SHAPES: dict[str, dict[str, Any]] = {
    "toy": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float16",
        "initializer_range": 0.02,
    },
    "smollm3-3b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "vocab_size": 128_256,
        "max_position_embeddings": 65_536,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5_000_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 128_000,
        "eos_token_id": 128_012,
        "torch_dtype": "float16",
        "initializer_range": 0.02,
    },
}
# As it is.
SHAPES["smollm3"] = SHAPES["smollm3-3b"] | {
    "architectures": ["SmolLM3ForCausalLM"],
    "model_type": "smollm3",
    "no_rope_layers": [int((i + 1) % 4 != 0) for i in range(36)],
    "pad_token_id": 128_004,
}
COMMON = {"hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "float16", "initializer_range": 0.02}
SHAPES["qwen3-0.6b"] = COMMON | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "max_position_embeddings": 40_960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "bos_token_id": 151_643,
    "eos_token_id": 151_645,
}
SHAPES["gemma3-1b"] = {key: value for key, value in COMMON.items() if key != "hidden_act"} | {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "num_hidden_layers": 26,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "vocab_size": 262_144,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "bos_token_id": 2,
    "eos_token_id": [1, 106],
    "pad_token_id": 0,
}
SHAPES["lfm2-1.2b"] = {key: value for key, value in COMMON.items() if key != "hidden_act"} | {
    "architectures": ["Lfm2ForCausalLM"],
    "model_type": "lfm2",
    "hidden_size": 2048,
    "intermediate_size": 12_288,  # of which two thirds are left where it is adjusted
    "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 256,
    "num_hidden_layers": 16,
    "layer_types": ["full_attention" if i in (2, 5, 8, 10, 12, 14) else "conv" for i in range(16)],
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "conv_L_cache": 3,
    "conv_bias": False,
    "vocab_size": 65_536,
    "max_position_embeddings": 128_000,
    "norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "bos_token_id": 1,
    "eos_token_id": 7,
    "pad_token_id": 0,
}
CHUNK = 1 << 22  # numbers made at once


def make_shape(name: str, layers: int | None, cache: Path) -> Path:
    """The folder of that checkpoint, with so many layers; made where it is not there yet."""
    if name not in SHAPES:
        raise unknown("shape", name, SHAPES)
    raw = with_layers(SHAPES[name], layers) if layers else SHAPES[name]
    target = cache / f"{name}-{raw['num_hidden_layers']}-layers"
    if not target.exists():
        write_shape(raw, target)
    return target


def with_layers(raw: dict[str, Any], layers: int) -> dict[str, Any]:
    """The first so many layers of a config, of which some lists have an entry each."""
    whole = raw["num_hidden_layers"]
    cut = {key: value[:layers] for key, value in raw.items() if isinstance(value, list) and len(value) == whole}
    return raw | cut | {"num_hidden_layers": layers}


def write_shape(raw: dict[str, Any], target: Path, tokens: int = 0) -> None:
    """Random weights of the shape that the config `raw` describes, in a new folder. Its tokenizer has `tokens` tokens,
    and no fewer than a byte-level one needs."""
    with new_folder(target) as folder:
        _write(raw, folder, tokens)


def _write(raw: dict[str, Any], folder: Path, tokens: int) -> None:
    config, family, _ = translate(raw, folder)
    half, random = np.dtype("float16"), np.random.default_rng(0)
    shapes: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    gains: dict[str, float] = {}
    for ours, shape in config.shapes().items():
        name, transform = source(family.NAMES, ours)
        shapes[name] = half, transform.stored_shape(parse(ours), config) if transform else shape
        gains[name] = 1 - transform.amount if isinstance(transform, Plus) else 1
    with TensorWriter(folder / "model.safetensors", shapes) as writer:
        for name, (_, shape) in shapes.items():
            size = int(np.prod(shape))
            for start in range(0, size, CHUNK):
                count = min(CHUNK, size - start)
                vector = np.full(count, gains[name])
                piece = vector if len(shape) == 1 else random.standard_normal(count, np.float32) * 0.02
                writer.append(name, piece.astype(half))
    (folder / "config.json").write_text(json.dumps(raw))
    write_tokenizer(folder, tokens)


def write_tokenizer(folder: Path, tokens: int) -> None:
    """Bytes and one merge, without which llama.cpp opens no model, or as many as are asked for. No text is read, yet
    exporters want a tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("a", "a"), *((a, b) for a in alphabet for b in alphabet if (a, b) != ("a", "a"))]
    longer = ((a + b, c) for a, b in pairs for c in alphabet)
    merges = [*islice(chain(pairs, longer), max(1, tokens - len(alphabet)))]
    vocabulary = {text: i for i, text in enumerate([*alphabet, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}\n')
