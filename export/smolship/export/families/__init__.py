"""Model families: one small module each, stating how its config.json and tensor names translate to ours.

The judge of what a config.json means is the model's class in transformers: what that takes for an absent key, we take;
what it reads and we do not know is refused; what it does not read is noted, and nothing depends on it.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from smolship.export.config import DecoderConfig
from smolship.export.families.fields import Fields
from smolship.export.sampling import GENERATION_KEYS
from smolship.export.transforms import Names
from smolship.runtime.errors import InputError, show

FAMILIES = {  # config.json's `model_type` -> the class that transformers picks by it, and our module
    "gemma3_text": ("Gemma3ForCausalLM", "smolship.export.families.gemma3"),
    "granite": ("GraniteForCausalLM", "smolship.export.families.granite"),
    "lfm2": ("Lfm2ForCausalLM", "smolship.export.families.lfm2"),
    "llama": ("LlamaForCausalLM", "smolship.export.families.llama"),
    "olmo2": ("Olmo2ForCausalLM", "smolship.export.families.olmo2"),
    "openelm": ("OpenELMForCausalLM", "smolship.export.families.openelm"),
    "phi3": ("Phi3ForCausalLM", "smolship.export.families.phi3"),
    "qwen2": ("Qwen2ForCausalLM", "smolship.export.families.qwen2"),
    "qwen3": ("Qwen3ForCausalLM", "smolship.export.families.qwen3"),
    "smollm3": ("SmolLM3ForCausalLM", "smolship.export.families.smollm3"),
}


# Keys of a config.json about training, files and what else no logit depends on. The token ids, the file of the weights
# and their quantization are resolved elsewhere, and so are the keys of a generation config (see facts.py).
HARMLESS = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bos_token_id",
    "chunk_size_feed_forward",
    "compression_config",
    "dtype",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "label2id",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "quantization",
    "quantization_config",
    "return_dict",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "transformers_weights",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
}


class Family(Protocol):
    """What a family module holds."""

    NAMES: Names  # kind of tensor -> where the checkpoint has it (see transforms.py)

    def translate(self, fields: Fields) -> DecoderConfig: ...

    # Optional: OWN_ORIGINAL, str: the module that holds the original where transformers has no class of it. It makes
    # transformers' Auto classes pick ours, and has NOTE, which says so, and GGUF, where a GGUF file has its parameters.

    # Optional: TOKENIZER, str: whose tokenizer the model has, where its checkpoints bring none.


def family_of(raw: dict[str, Any], where: Path | str) -> Family:
    """The family of a config.json, by its `model_type`, which is all that transformers goes by. Where `architectures`
    names another class the file says two things of one model, and is refused."""
    kind, names = raw.get("model_type"), raw.get("architectures")
    known = ", ".join(f"{name} (model_type {kind!r})" for kind, (name, _) in sorted(FAMILIES.items()))
    if not isinstance(kind, str) or kind not in FAMILIES:
        got = f"model_type {show(kind)}" if "model_type" in raw else "no model_type"
        raise InputError(
            "unknown architecture",
            got=f"{got}{'' if names is None else f', architectures {show(names)}'} in {where}",
            expected=f"one of {known}",
            todo="export one of these, or add a family file (see export/smolship/export/families)"
            if "model_type" in raw
            else "add the model_type of the class that the model was made with",
        )
    name, module = FAMILIES[kind]
    if names not in (None, name, [name]):
        raise InputError(
            "config.json names two architectures",
            got=f"architectures {show(names)}, but model_type {kind!r}, in {where}",
            expected=f"{name} beside model_type {kind!r}; known are {known}",
            todo="correct the one that is wrong: transformers goes by model_type",
        )
    return import_module(module)


def translate(raw: dict[str, Any], where: Path | str) -> tuple[DecoderConfig, Family, Fields]:
    """What a config.json says, the family that reads it, and the reading: what it asked for, and its notes."""
    family, fields = family_of(raw, where), Fields(raw, where)
    config = family.translate(fields)
    if unread := [key for key in fields.unseen() if key not in HARMLESS | GENERATION_KEYS]:
        listed = ", ".join(map(show, unread[:12])) + (f" and {len(unread) - 12} more" if len(unread) > 12 else "")
        fields.notes.append(f"config.json: {listed}: not read by this architecture, in transformers neither")
    return config, family, fields
