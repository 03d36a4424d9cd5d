"""A GGUF file's tokenizer metadata -> tokenizer.json and the files beside it, as transformers would save them.

The ids must be llama.cpp's: GGUF names its pre-tokenizer, and the split itself is hard-coded in llama.cpp
(`llm_tokenizer_bpe` in src/llama-vocab.cpp), so it is stated here again.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from smolship.runtime.errors import InputError, show, unknown

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # llama.cpp's token types that are found in text before anything else

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
DIGITS = {"type": "Digits", "individual_digits": True}
SPLIT = {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False}
SPLITS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [BYTES | {"use_regex": True}],
    "smollm": [DIGITS, BYTES | {"use_regex": True}],
    "llama-bpe": [SPLIT, BYTES | {"use_regex": False}],
}
WHOLE_WORDS_FIRST = {"llama-bpe"}  # a word that is a token is not merged up to
ADDS_BOS = {"llama-bpe"}  # where the file does not say
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # transformers' name -> GGUF's


def tokenizer_files(metadata: dict[str, Any], where: object) -> dict[str, bytes]:
    """tokenizer.json, tokenizer_config.json, generation_config.json and, where there is one, chat_template.jinja."""
    tokens, added = _tokens(metadata, where)
    special = {role: tokens[i] for role in ROLES if (i := token_id(metadata, role, len(tokens), where)) is not None}
    ids = {f"{role}_token_id": token_id(metadata, role, len(tokens), where) for role in ("bos", "eos", "pad")}
    turn = token_id(metadata, "eot", len(tokens), where)
    if turn not in (None, ids["eos_token_id"]):
        ids["eos_token_id"] = [ids["eos_token_id"], turn]  # type: ignore[assignment]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": token for role, token in special.items()},
        "clean_up_tokenization_spaces": False,
    }
    files = {
        "tokenizer.json": _tokenizer(metadata, tokens, added, special.get("bos"), where),
        "tokenizer_config.json": config,
        "generation_config.json": {key: value for key, value in ids.items() if value is not None},
    }
    out = {name: json.dumps(value, ensure_ascii=False, indent=1).encode() for name, value in files.items()}
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        out["chat_template.jinja"] = template.encode()
    return out


def token_id(metadata: dict[str, Any], role: str, vocab: int, where: object) -> int | None:
    """The id of the "bos", "eos", "eot", … token; None where the file names none."""
    key = f"tokenizer.ggml.{ROLES.get(role, role)}_token_id"
    value = metadata.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < vocab):
        raise InputError(f"{key} cannot be used", got=f"{show(value)} in {where}", expected=f"0 to {vocab - 1:,}")
    return value


def _strings(metadata: dict[str, Any], key: str, where: object) -> list[str]:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list):
        raise InputError("the GGUF file has no tokenizer", got=f"no tokenizer.ggml.{key} in {where}",
                         expected="an array of strings")  # fmt: skip
    return value


def _tokens(metadata: dict[str, Any], where: object) -> tuple[list[str], list[dict[str, Any]]]:
    """The vocabulary by id, and the tokens that are found in text whole."""
    tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(_strings(metadata, "tokens", where))]
    if len(set(tokens)) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if tokens.index(token) != i)
        raise InputError("a token is in the vocabulary twice", got=f"{twice!r} in {where}", expected="different tokens")
    kinds = metadata.get("tokenizer.ggml.token_type", np.ones(len(tokens), np.int32))
    if not isinstance(kinds, np.ndarray) or len(kinds) != len(tokens):
        raise InputError("tokenizer.ggml.token_type cannot be used", got=f"{kinds!r} in {where}",
                         expected=f"{len(tokens):,} numbers")  # fmt: skip
    whole = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": int(i), "content": tokens[i], **whole, "special": bool(kinds[i] != USER_DEFINED)}
        for i in np.flatnonzero(np.isin(kinds, (UNKNOWN, CONTROL, USER_DEFINED)))
    ]
    return tokens, added


def _tokenizer(
    metadata: dict[str, Any], tokens: list[str], added: list[dict[str, Any]], bos: str | None, where: object
) -> dict[str, Any]:
    model, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if model != "gpt2":
        raise unknown("GGUF tokenizer model", f"{model!r} in {where}", ["gpt2"])
    if not isinstance(split, str) or split not in SPLITS:
        raise unknown("GGUF pre-tokenizer", f"{split!r} in {where}", SPLITS)
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = [_merge(text, vocab, where) for text in _strings(metadata, "merges", where)]
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", split in ADDS_BOS)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": SPLITS[split]},
        "post_processor": _adding(bos, vocab) if add_bos and bos is not None else None,
        "decoder": BYTES | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": split in WHOLE_WORDS_FIRST,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _merge(text: str, vocab: dict[str, int], where: object) -> list[str]:
    """The two halves of a merge, whose space may not be the first character."""
    cut = text.find(" ", 1)
    left, right = text[:cut], text[cut + 1 :]
    if cut < 0 or left not in vocab or right not in vocab or left + right not in vocab:
        raise InputError("a merge names tokens that are not there", got=f"{text!r} in {where}",
                         expected="two tokens that make a third")  # fmt: skip
    return [left, right]


def _adding(bos: str, vocab: dict[str, int]) -> dict[str, Any]:
    """A post-processor that puts `bos` in front."""
    first, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [vocab[bos]], "tokens": [bos]}},
    }
