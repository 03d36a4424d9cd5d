"""A GGUF file as a checkpoint: its metadata as a config.json, its tokenizer as a tokenizer.json, its tensors lazily."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from smolship.export.checkpoints.checkpoint import Checkpoint
from smolship.export.checkpoints.gguf_file import GgufSlot, read_gguf
from smolship.export.checkpoints.gguf_rotary import AMPLITUDE, ORIGINAL, SCALING_KEYS, said_scaling, take_scaling
from smolship.export.checkpoints.gguf_tokenizer import end_ids, remarks, token_id, tokenizer_files
from smolship.export.checkpoints.matching import match
from smolship.export.config import DecoderConfig
from smolship.export.families import FAMILIES, translate
from smolship.export.transforms import Fused, Interleaved, Names
from smolship.runtime.errors import InputError, show, unknown
from smolship.runtime.tensors import GGUF, GGUF_FUSED, GGUF_OWN, GGUF_WOVEN

NAMES: dict[str, str] = {kind: f"{name}.weight" for kind, name in GGUF.items()}
NAMED_ALIKE = ("granite", "lfm2", "llama", "olmo2", "openelm", "phi3", "qwen2", "qwen3", "smollm3")
MODEL_TYPES = {name: name for name in NAMED_ALIKE}
MODEL_TYPES |= {"gemma3": "gemma3_text"}  # llama.cpp's architecture -> `model_type` of config.json
GEMMA3_27B = 62  # layers, by which llama.cpp knows that its scores are scaled otherwise

KEYS = {  # transformers' name -> GGUF's, after the architecture
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}

OPTIONAL = ("num_key_value_heads", "head_dim", "rope_theta")  # of these; llama.cpp has defaults for them alone

KINDS = {  # `general.type` of a GGUF that is no model: what it is, and what to do
    "adapter": ("a LoRA adapter", "merge it into the model (llama-export-lora), and export that"),
    "mmproj": ("what a model sees and hears with", "name the GGUF of the language model"),
    "imatrix": ("an importance matrix", "name the GGUF of the model"),
}

# Keys that change nothing beyond KEYS, with the values for which that is so (None: checked below, or any).
HARMLESS: dict[str, tuple[object, ...] | None] = {
    "vocab_size": None,
    "attention.value_length": None,
    "rope.dimension_count": None,
    "attention.causal": (True,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "rope.scaling.type": ("none", "linear", "longrope"),  # by the factor, and by tensors; more in SCALED
    "rope.scaling.yarn_beta_fast": (32.0,),
    "rope.scaling.yarn_beta_slow": (1.0,),
    "rope.scaling.finetuned": (True,),  # false: llama.cpp's Granite has no rotary embedding then
}


def names_of(architecture: str) -> Names:
    """Where a file of llama.cpp's architecture has our tensors."""
    woven = {kind: Interleaved(NAMES[kind]) for kind in ("q", "k")} if architecture in GGUF_WOVEN else {}
    own = {kind: f"{name}.weight" for kind, name in GGUF_OWN.get(architecture, {}).items()}
    stacks = GGUF_FUSED.get(architecture, {})
    fused = {kind: Fused(f"{name}.weight", kinds) for name, kinds in stacks.items() for kind in kinds}
    return NAMES | own | woven | fused


def open_gguf(path: Path) -> Checkpoint:
    """Open a GGUF file of one of the architectures of `MODEL_TYPES`, quantized in any way that gguf-py can undo.

    Reads the header only. Raises InputError where anything is missing, malformed or unknown.
    """
    metadata, stored = read_gguf(path)
    parts = metadata.get("split.count", 1)
    if not _one_of(parts, (0, 1)):
        raise InputError(
            "one part of a model",
            got=f"split.count = {show(parts)} in {path}",
            expected="all of it",
            todo="llama-gguf-split --merge FIRST_PART WHOLE.gguf",
        )
    kind = metadata.get("general.type", "model")
    if not _one_of(kind, ("model",)):
        what, todo = KINDS.get(str(kind), (f"a GGUF of type {show(kind)}", "name the GGUF of the model"))
        raise InputError("the GGUF file is no model", got=f"{what}: {path}", expected="general.type 'model'", todo=todo)
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in MODEL_TYPES:
        raise unknown("GGUF architecture", f"{architecture!r} in {path}", MODEL_TYPES)
    files = tokenizer_files(metadata, path)
    raw = _config(metadata, stored, architecture, path)
    config, _, _ = translate(raw, path)
    _refuse_unknown(metadata, architecture, config, path)
    if scaling := take_scaling(metadata, stored, config, path):
        raw["rope_scaling"] = scaling
        config, _, _ = translate(raw, path)
    matched = match(config, stored, names_of(architecture), path)
    ends = end_ids(metadata, config.vocab, path)
    return Checkpoint(raw, matched.config, matched.slots, files, path, notes=remarks(metadata, path), ends=ends)


def _config(metadata: dict[str, Any], stored: dict[str, GgufSlot], architecture: str, path: Path) -> dict[str, Any]:
    """The config.json that transformers would have written; its values are checked by the family's translation."""
    vocab = len(metadata["tokenizer.ggml.tokens"])
    raw: dict[str, Any] = {
        "architectures": [FAMILIES[MODEL_TYPES[architecture]][0]],
        "model_type": MODEL_TYPES[architecture],
        "vocab_size": vocab,
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in stored,
        "attention_bias": "blk.0.attn_q.bias" in stored,
        "mlp_bias": "blk.0.ffn_up.bias" in stored,
        **{f"{role}_token_id": token_id(metadata, role, vocab, path) for role in ("bos", "eos", "pad")},
    }
    for name, key in KEYS.items():
        value = metadata.get(f"{architecture}.{key}")
        if value is not None:
            raw[name] = shortest(value) if isinstance(value, float) else value
        elif name not in OPTIONAL:
            raise InputError(
                "a GGUF key is missing",
                got=f"no {architecture}.{key} ({name}) in {path}",
                expected="what llama.cpp needs",
            )
    # llama.cpp's defaults, which are not those of transformers' classes.
    heads, hidden = raw["num_attention_heads"], raw["hidden_size"]
    defaults = {"rope_theta": 10_000.0, "num_key_value_heads": heads}
    if type(heads) is type(hidden) is int and heads > 0:
        defaults["head_dim"] = hidden // heads
    if architecture in SCALED and (
        scaling := said_scaling(lambda key: _value(metadata, f"{architecture}.{key}"), path)
    ):
        raw["rope_scaling"] = scaling
    return OWN.get(architecture, lambda metadata, raw: raw)(metadata, defaults | raw)


def _value(metadata: dict[str, Any], key: str) -> Any:
    """A key's value, an array as a list; None where it is absent."""
    value = _plain(metadata.get(key))
    return shortest(value) if isinstance(value, float) else value


def _gemma3(metadata: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp's gemma3 has of its own, in transformers' words."""

    def get(key: str, default: Any = None) -> Any:
        value = metadata.get(f"gemma3.{key}", default)
        return shortest(value) if isinstance(value, float) else value

    layers, heads, whole = raw["num_hidden_layers"], raw["num_attention_heads"], {"rope_theta": raw.pop("rope_theta")}
    if (kind := get("rope.scaling.type", "none")) != "none":
        whole |= {"rope_type": kind, "factor": get("rope.scaling.factor")}
    own = {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": raw["hidden_size"] // heads if layers == GEMMA3_27B else raw["head_dim"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default"} | whole,
            "sliding_attention": {"rope_type": "default", "rope_theta": get("rope.freq_base_swa", 10_000.0)},
        },
    }
    slides, window = get("attention.sliding_window_pattern", 6), get("attention.sliding_window", 0)
    if isinstance(slides, np.ndarray) or not window:
        slides = slides.tolist() if window else [False] * layers
        own["layer_types"] = ["sliding_attention" if slide else "full_attention" for slide in slides]
    else:
        own["sliding_window_pattern"] = slides
    own["sliding_window"] = window or raw["max_position_embeddings"]  # no layer sees the latter
    return {key: value for key, value in raw.items() if key != "hidden_act"} | own


def _granite(metadata: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    """Its multipliers; a key that is absent multiplies by 1, but scores, which are scaled by the head's size."""
    own = {"attention_multiplier": raw["head_dim"] ** -0.5}
    for name, key in GRANITE.items():
        if (value := metadata.get(f"granite.{key}")) is not None:
            own[name] = shortest(value) if isinstance(value, float) else value
    return raw | own


def _lfm2(metadata: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    """Layers without heads for keys are convolutions; the MLP's width is as it is."""
    unread = ("rms_norm_eps", "hidden_act", "attention_bias", "mlp_bias")
    own = {
        "norm_eps": raw["rms_norm_eps"],
        "block_auto_adjust_ff_dim": False,
        "conv_L_cache": metadata.get("lfm2.shortconv.l_cache"),
    }
    heads = raw["num_key_value_heads"]
    if isinstance(heads, np.ndarray):
        kinds = {int(one) for one in heads if one}
        own |= {
            "num_key_value_heads": kinds.pop() if len(kinds) == 1 else heads.tolist(),  # of several: refused as a list
            "layer_types": ["full_attention" if one else "conv" for one in heads],
        }
    return {key: value for key, value in raw.items() if key not in unread} | own


GRANITE = {
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "attention_multiplier": "attention.scale",
    "logits_scaling": "logit_scale",
}


def _phi3(metadata: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    """The part of each head that is rotated, the positions of the training, and the window, which llama.cpp leaves
    out."""
    size, width = raw.get("head_dim"), metadata.get("phi3.rope.dimension_count")
    own = {
        "original_max_position_embeddings": metadata.get(f"phi3.{ORIGINAL}", raw["max_position_embeddings"]),
        "sliding_window": metadata.get("phi3.attention.sliding_window") or None,
    }
    if type(width) is type(size) is int and 0 < width < size:
        factor = width / size  # of which transformers takes int(size * factor)
        own["partial_rotary_factor"] = factor if int(size * factor) == width else math.nextafter(factor, 1)
    return raw | own


def _openelm(metadata: dict[str, Any], raw: dict[str, Any]) -> dict[str, Any]:
    """Heads and widths by layer, in the words of its own config.json."""
    hidden, widths = raw["hidden_size"], _plain(raw["intermediate_size"])
    sizes = widths if isinstance(widths, list) else [widths]
    of = {"ffn_multipliers": widths}
    if type(hidden) is int and hidden > 0 and sizes and all(type(size) is int and size > 0 for size in sizes):
        multipliers = [size / hidden for size in sizes]
        of["ffn_multipliers"] = multipliers if isinstance(widths, list) else multipliers[0]
        of["ffn_dim_divisor"] = math.gcd(*sizes)
    return of | {
        **{ours: _plain(raw[name]) for name, ours in OPENELM.items() if name in raw},
        "activation_fn_name": "swish",
        "normalize_qk_projections": True,
        "share_input_output_layers": raw["tie_word_embeddings"],
        **{key: raw[key] for key in ("architectures", "model_type", "vocab_size", "rms_norm_eps")},
        **{f"{role}_token_id": raw[f"{role}_token_id"] for role in ("bos", "eos", "pad")},
    }


OPENELM = {  # name of a key in other models -> in its own
    "num_hidden_layers": "num_transformer_layers",
    "hidden_size": "model_dim",
    "head_dim": "head_dim",
    "num_attention_heads": "num_query_heads",
    "num_key_value_heads": "num_kv_heads",
    "max_position_embeddings": "max_context_length",
    "rope_theta": "rope_freq_constant",
}


def _plain(value: Any) -> Any:
    """An array as a list."""
    return value.tolist() if isinstance(value, np.ndarray) else value


OWN = {  # architecture -> its config.json
    "gemma3": _gemma3,
    "granite": _granite,
    "lfm2": _lfm2,
    "openelm": _openelm,
    "phi3": _phi3,
}
SCALED = ("granite", "lfm2", "llama", "olmo2", "qwen2", "qwen3", "smollm3")  # whose keys may scale the embedding
OWN_KEYS: dict[str, tuple[str, ...]] = dict.fromkeys(SCALED, (*SCALING_KEYS, "rope.scaling.finetuned"))
OWN_KEYS |= {  # and which keys an architecture takes besides
    "gemma3": (
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        "rope.freq_base_swa",
        "rope.scaling.factor",
    ),
    "granite": (*GRANITE.values(), *SCALING_KEYS),
    "lfm2": ("shortconv.l_cache", *SCALING_KEYS, "rope.scaling.finetuned"),
    "phi3": ("attention.sliding_window", AMPLITUDE, ORIGINAL),
}


def shortest(value: float) -> float:
    """A float32 that was read as 9.999999747378752e-06 -> the 1e-05 that was meant."""
    return float(str(np.float32(value)))


def _one_of(value: object, allowed: tuple[object, ...]) -> bool:
    """Whether a key has one of these values; an array, which compares number by number, has none."""
    return not isinstance(value, np.ndarray) and value in allowed


def _refuse_unknown(metadata: dict[str, Any], architecture: str, config: DecoderConfig, path: Path) -> None:
    """Refuse what would change the computation and is not understood: ignored, it would be wrong without a word."""
    for key, value in metadata.items():
        prefix, _, name = key.partition(".")
        if prefix != architecture or name in (*KEYS.values(), *OWN_KEYS.get(architecture, ())):
            continue
        harmless = HARMLESS.get(name, ())
        if harmless is not None and not _one_of(value, harmless):
            raise InputError(
                "a GGUF key that is not understood",
                got=f"{key} = {show(value)} in {path}",
                expected=f"only what a plain {FAMILIES[MODEL_TYPES[architecture]][0]} needs",
            )
    mixer = config.attentions[0]
    width = next((rotary.width for rotary in config.rotaries.values()), mixer.head_dim)
    for name, size in {"attention.value_length": mixer.head_dim, "rope.dimension_count": width}.items():
        value = metadata.get(f"{architecture}.{name}", size)
        if not _one_of(value, (size,)):
            raise InputError(f"{name} differs from the head's size", got=f"{show(value)} in {path}", expected=size)
