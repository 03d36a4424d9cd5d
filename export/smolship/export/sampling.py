"""generation_config.json -> the sampling that a model's makers recommend, as transformers reads it.

Where there is no such file transformers takes the same keys from config.json; a key that is absent or null has its
default. What transformers itself would refuse to generate with is a problem, unless what it means is plain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smolship.runtime.errors import show
from smolship.runtime.facts import Recommended

LEAST, MOST = 1e-6, 1e6  # of a temperature or penalty: float32 divides logits by them

# What can be used of each, and in words.
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "temperature": (lambda v: LEAST <= v <= MOST, "a number above 0"),
    "top_k": (lambda v: v >= 0 and v == v // 1, "a whole number; 0 is all"),
    "top_p": (lambda v: 0 <= v <= 1, "a number from 0 to 1"),
    "min_p": (lambda v: 0 <= v <= 1, "a number from 0 to 1"),
    "repetition_penalty": (lambda v: LEAST <= v <= MOST, "a number above 0; 1 is none"),
}

# What transformers does to logits or to the end of an answer and nothing here does, with the value that is none.
NOT_FOLLOWED: dict[str, Any] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "penalty_alpha": 0,
    "dola_layers": None,
    "top_h": None,
    "typical_p": 1,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
    "encoder_repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": [],
    "force_words_ids": [],
    "constraints": [],
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "suppress_tokens": [],
    "begin_suppress_tokens": [],
    "sequence_bias": {},
    "exponential_decay_length_penalty": None,
    "guidance_scale": 1,
    "token_healing": False,
    "watermarking_config": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "stop_strings": [],
    "max_time": None,
}

# What says nothing about which token comes next: ids (see facts.py), limits of length, which are the caller's, what
# concerns several beams alone, and how transformers computes, caches and answers.
HARMLESS = {
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "max_length",
    "max_new_tokens",
    "early_stopping",
    "length_penalty",
    "diversity_penalty",
    "renormalize_logits",
    "remove_invalid_values",
    "use_cache",
    "use_mtp",
    "cache_implementation",
    "cache_config",
    "max_cache_len",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "output_logits",
    "return_dict_in_generate",
    "is_assistant",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "assistant_early_exit",
    "assistant_ensemble_weight",
    "target_lookbehind",
    "speculation_type",
    "prompt_lookup_num_tokens",
    "max_matching_ngram_size",
    "compile_config",
    "disable_compile",
    "low_memory",
    "continuous_batching_config",
    "prefill_chunk_size",
    "transformers_version",
    "_from_model_config",
    "_commit_hash",
}


GENERATION_KEYS = {*NOT_FOLLOWED, *HARMLESS, *RANGES, "do_sample"}


def read_sampling(raw: dict[str, Any], where: str, vocab: int) -> tuple[Recommended, list[str], list[str]]:
    """The recommended sampling, notes and problems, from the keys of generation_config.json or config.json."""
    notes: list[str] = []
    problems: list[str] = []
    sampled = raw.get("do_sample")
    if sampled is not None and not isinstance(sampled, bool):
        problems.append(f"{where}: do_sample is {show(sampled)}; expected true or false")
    found: dict[str, Any] = {"do_sample": sampled is True}
    for key, (usable, expected) in RANGES.items():
        value = raw.get(key)
        if value is None:
            continue
        said = f"{where}: {key} is {show(value)}"
        value, note = _meant(key, value, vocab)
        if note:
            notes.append(f"{said}: {note}")
        if isinstance(value, int | float) and not isinstance(value, bool) and usable(value):
            found[key] = value if key == "top_k" else float(value)
        elif key == "temperature" and isinstance(value, int | float) and 0 <= value < LEAST and value is not False:
            found["do_sample"] = False
            notes.append(f"{said}: greedy")
        elif sampled is True or key == "repetition_penalty":  # a penalty holds for greedy answers too
            problems.append(f"{said}; expected {expected}; correct it or delete the key")
        else:
            notes.append(f"{said}, which is out of range; as do_sample is not true nothing depends on it")
    if found.get("top_p") == 0:
        found |= {"top_p": 1.0, "top_k": 1}
    notes += _unused(raw, found, where)
    return Recommended(**found), notes, problems


def _meant(key: str, value: Any, vocab: int) -> tuple[Any, str]:
    """What a value means, and a note where transformers takes it otherwise or not at all."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value, ""
    if key == "top_k" and value == -1:
        return 0, "transformers refuses it; taken as other engines do, for all tokens"
    if key == "top_k" and isinstance(value, float) and value.is_integer() and value >= 0:
        return min(int(value), vocab), f"transformers refuses it; taken as {int(value):,}"
    if key == "top_k" and isinstance(value, int) and value > vocab:
        return vocab, ""
    if key == "top_p" and value > 1:
        return 1.0, "above 1 it drops no token"
    if key == "top_p" and value == 0:
        return value, "the likeliest token alone is left, as with top_k 1"
    return value, ""


def _unused(raw: dict[str, Any], found: dict[str, Any], where: str) -> list[str]:
    """Notes of what is set and not followed."""
    notes = []
    defaults = vars(Recommended())
    idle = [key for key in ("temperature", "top_k", "top_p", "min_p") if found.get(key, defaults[key]) != defaults[key]]
    if idle and not raw.get("do_sample"):
        notes.append(f"{where} sets {', '.join(idle)} but not do_sample: answers are greedy, as with transformers")
    other = [
        f"{key} {show(raw[key])}"
        for key, none in NOT_FOLLOWED.items()
        if (value := raw.get(key)) is not None and not _none(value, none)
    ]
    if where != "config.json":  # whose other keys are the model's
        strange = {key: value for key, value in raw.items() if key not in GENERATION_KEYS and value is not None}
        other += [f"{show(key)} {show(value)}" for key, value in strange.items()]
    if other:
        shown = ", ".join(other[:8]) + (", …" if len(other) > 8 else "")
        notes.append(f"{where}: not followed here: {shown}")
    return notes


def _none(value: Any, none: Any) -> bool:
    return bool(value == none) and not isinstance(value, bool) ^ isinstance(none, bool)
