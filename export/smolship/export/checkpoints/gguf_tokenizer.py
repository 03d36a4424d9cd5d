"""A GGUF file's tokenizer metadata -> tokenizer.json and the files beside it, as transformers would save them.

The ids must be llama.cpp's. Two kinds of tokenizer are known: byte-level BPE ("gpt2"), whose split GGUF names, and
SentencePiece's BPE ("llama", Gemma's too), which GGUF gives as scores instead of merges.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from smolship.export.checkpoints.gguf_splits import ADDS_BOS, BYTES, SPLITS, WHOLE_WORDS_FIRST
from smolship.export.checkpoints.gguf_strips import by_name, strips
from smolship.runtime.errors import InputError, clip, show, unknown

UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # llama.cpp's token types
WHOLE = (UNKNOWN, CONTROL, USER_DEFINED)  # found in text before anything else
LONGEST = 256  # characters of a SentencePiece token: all of its splits are looked at
SPACE = "▁"
ENDS = ("eos", "eot", "eom")  # of a text, a turn, a message
GUESS = "default"  # the split of a file that names none
SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}  # GGUF's name -> transformers'
TEMPLATE = "tokenizer.chat_template"
PAD = "tokenizer.ggml.padding_token_id"
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # transformers' name -> GGUF's


def tokenizer_files(metadata: dict[str, Any], where: object) -> dict[str, bytes]:
    """tokenizer.json, tokenizer_config.json, generation_config.json and, where there is one, chat_template.jinja, from
    the metadata of a GGUF file of any architecture."""
    tokens, added = _tokens(metadata, where)
    special = {role: tokens[i] for role in ROLES if (i := token_id(metadata, role, len(tokens), where)) is not None}
    ids: dict[str, Any] = {role: token_id(metadata, role, len(tokens), where) for role in ("bos", "pad")}
    ends = list(dict.fromkeys(end_ids(metadata, len(tokens), where).values()))
    ids["eos"] = ends[0] if len(ends) == 1 else ends or None
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": token for role, token in special.items()},
        "clean_up_tokenization_spaces": False,
    }
    said = _sampling(metadata)
    files = {
        "tokenizer.json": _tokenizer(metadata, tokens, added, special, where),
        "tokenizer_config.json": config,
        "generation_config.json": {f"{role}_token_id": i for role, i in ids.items() if i is not None} | said,
    }
    out = {name: json.dumps(value, ensure_ascii=False, indent=1).encode() for name, value in files.items()}
    template = metadata.get(TEMPLATE)
    if isinstance(template, str):
        out["chat_template.jinja"] = template.encode()
    return out


def end_ids(metadata: dict[str, Any], vocab: int, where: object) -> dict[str, int]:
    """The tokens that end an answer, by the keys that name them."""
    found = {f"tokenizer.ggml.{role}_token_id": token_id(metadata, role, vocab, where) for role in ENDS}
    return {key: i for key, i in found.items() if i is not None}


def remarks(metadata: dict[str, Any], where: object) -> list[str]:
    """What the file does not say, or says wrong, and is read as llama.cpp reads it, in words."""
    found, vocab = [], len(_strings(metadata, "tokens", where))
    if (pad := metadata.get(PAD)) is not None and token_id(metadata, "pad", vocab, where) is None:
        found.append(f"{PAD} is {show(pad)}, no token of the file; left out, as nothing depends on it")
    named = sorted(key.removeprefix(f"{TEMPLATE}.") for key in metadata if key.startswith(f"{TEMPLATE}."))
    if TEMPLATE in metadata and not isinstance(metadata[TEMPLATE], str):
        found.append(f"no chat template: {TEMPLATE} is {show(metadata[TEMPLATE])}, which is no text")
    elif TEMPLATE not in metadata and named:
        found.append(
            f"no chat template: of those named {clip(', '.join(named), 200)} none is the default, and which "
            "to take would be a guess"
        )
    if metadata.get("tokenizer.ggml.model") == "gpt2" and _unnamed(metadata.get("tokenizer.ggml.pre")):
        found.append(
            "the GGUF file does not say how its tokenizer splits text (no tokenizer.ggml.pre): split as "
            f"{GUESS!r}, as llama.cpp does, which warns that answers may be worse for it"
        )
    return found


def _unnamed(split: Any) -> bool:
    """Whether llama.cpp would guess how text is split."""
    return split is None or (isinstance(split, str) and not split)


def _sampling(metadata: dict[str, Any]) -> dict[str, Any]:
    """The sampling that the file recommends, by transformers' names; what has none by the file's own."""
    prefix = "general.sampling."
    said = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    found = {SAMPLING.get(key, prefix + key): _shortest(value) for key, value in said.items()}
    none = {key: isinstance(value, int | float) and value <= 0 for key, value in found.items()}
    if none.get("top_k"):
        found["top_k"] = 0  # all
    if "temp" in said:
        found["do_sample"] = not none["temperature"]
        if none["temperature"]:
            del found["temperature"]
    last = found.pop(prefix + "penalty_last_n", -1)
    return found if last == -1 or found.get("repetition_penalty", 1) == 1 else found | {prefix + "penalty_last_n": last}


def _shortest(value: Any) -> Any:
    """A float32 that was read as 0.6000000238418579 -> the 0.6 that was meant; what is no plain value as text."""
    if isinstance(value, float):
        return float(str(np.float32(value)))
    return value if isinstance(value, str | int) else show(value)


def token_id(metadata: dict[str, Any], role: str, vocab: int, where: object) -> int | None:
    """The id of the "bos", "eos", "eot", … token; None where the file names none. No answer depends on the one that
    fills up a batch: one that cannot be used is none."""
    key = f"tokenizer.ggml.{ROLES.get(role, role)}_token_id"
    value = metadata.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < vocab):
        if key == PAD:
            return None  # see `remarks`
        raise InputError(f"{key} cannot be used", got=f"{show(value)} in {where}", expected=f"0 to {vocab - 1:,}")
    return value


def _flag(metadata: dict[str, Any], key: str, default: bool, where: object) -> bool:
    value = metadata.get(f"tokenizer.ggml.{key}", default)
    if not isinstance(value, int):  # a bool is one
        raise InputError(f"{key} is neither true nor false", got=f"{show(value)} in {where}", expected="true or false")
    return bool(value)


def _strings(metadata: dict[str, Any], key: str, where: object) -> list[str]:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list):
        raise InputError(
            "the GGUF file has no tokenizer", got=f"no tokenizer.ggml.{key} in {where}", expected="an array of strings"
        )
    return value


def _tokens(metadata: dict[str, Any], where: object) -> tuple[list[str], list[dict[str, Any]]]:
    """The vocabulary by id, and the tokens that are found in text whole."""
    tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(_strings(metadata, "tokens", where))]
    last = {token: i for i, token in enumerate(tokens)}
    if len(last) != len(tokens):
        twice = next(i for i, token in enumerate(tokens) if last[token] != i)
        raise InputError(
            "a token is in the vocabulary twice",
            expected="different tokens",
            got=f"{show(tokens[twice])} as {twice:,} and {last[tokens[twice]]:,} in {where}",
        )
    kinds = metadata.get("tokenizer.ggml.token_type", np.ones(len(tokens), np.int32))
    if not isinstance(kinds, np.ndarray) or len(kinds) != len(tokens):
        raise InputError(
            "tokenizer.ggml.token_type cannot be used", got=f"{kinds!r} in {where}", expected=f"{len(tokens):,} numbers"
        )
    whole = {"single_word": False, "lstrip": False, "normalized": False}
    phi3 = by_name(metadata.get("general.name"), last)
    added = [
        {
            "id": int(i),
            "content": tokens[i],
            **whole,
            "rstrip": phi3 and strips(tokens[i]),
            "special": bool(kinds[i] != USER_DEFINED),
        }
        for i in np.flatnonzero(np.isin(kinds, WHOLE))
    ]
    return tokens, added


def _tokenizer(
    metadata: dict[str, Any], tokens: list[str], added: list[dict[str, Any]], special: dict[str, str], where: object
) -> dict[str, Any]:
    kinds = {"gpt2": _byte_level, "llama": _sentencepiece}
    kind = metadata.get("tokenizer.ggml.model")
    if not isinstance(kind, str) or kind not in kinds:
        raise unknown("GGUF tokenizer model", f"{show(kind)} in {where}", kinds)
    vocab = {token: i for i, token in enumerate(tokens)}
    parts, adds_bos = kinds[kind](metadata, vocab, where)
    parts["model"]["unk_token"] = special.get("unk") if parts["model"]["byte_fallback"] else None
    adds = {
        "bos": _flag(metadata, "add_bos_token", adds_bos, where),
        "eos": _flag(metadata, "add_eos_token", False, where),
    }
    around = {role: special[role] for role, wanted in adds.items() if wanted and role in special}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": _adding(around.get("bos"), around.get("eos"), vocab) if around else None,
    } | parts


def _bpe(vocab: dict[str, int], merges: list[list[str]], **options: bool) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": merges,
    } | options


def _byte_level(metadata: dict[str, Any], vocab: dict[str, int], where: object) -> tuple[dict[str, Any], bool]:
    """Parts of a tokenizer.json, and whether it puts BOS in front where the file does not say."""
    split = metadata.get("tokenizer.ggml.pre")
    split = GUESS if _unnamed(split) else split
    if not isinstance(split, str) or split not in SPLITS:
        raise unknown("GGUF pre-tokenizer", f"{show(split)} in {where}", SPLITS)
    merges = [_merge(text, vocab, where) for text in _strings(metadata, "merges", where)]
    return {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": SPLITS[split]},
        "decoder": BYTES | {"use_regex": True},
        "model": _bpe(vocab, merges, ignore_merges=split in WHOLE_WORDS_FIRST),
    }, split in ADDS_BOS


def _sentencepiece(metadata: dict[str, Any], vocab: dict[str, int], where: object) -> tuple[dict[str, Any], bool]:
    """The same for SentencePiece, whose spaces are "▁" and whose characters without a token are bytes."""
    if missing := [text for text in (f"<0x{byte:02X}>" for byte in range(256)) if text not in vocab]:
        raise InputError("the vocabulary lacks bytes", got=f"no {missing[0]} in {where}", expected="<0x00> to <0xFF>")
    prefix = _flag(metadata, "add_space_prefix", True, where)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    restore = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    before: list[dict[str, Any]] = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    after: list[dict[str, Any]] = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*before, replace]},
        "decoder": {"type": "Sequence", "decoders": [restore, {"type": "ByteFallback"}, {"type": "Fuse"}, *after]},
        "model": _bpe(vocab, _ranked(metadata, list(vocab), where), fuse_unk=True, byte_fallback=True),
    }, True


def _ranked(metadata: dict[str, Any], tokens: list[str], where: object) -> list[list[str]]:
    """Merges in the order in which SentencePiece would do them: it joins whichever neighbours make the token of the
    highest score, by whatever halves."""
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, np.ndarray) or scores.shape != (len(tokens),) or not np.isfinite(scores).all():
        raise InputError(
            "tokenizer.ggml.scores cannot be used",
            got=f"{show(scores)} in {where}",
            expected=f"{len(tokens):,} finite numbers",
        )
    kinds = metadata.get("tokenizer.ggml.token_type", np.ones(len(tokens), np.int32))
    parts = [not whole for whole in np.isin(kinds, WHOLE)]  # the others never come about by merging
    known = {token for token, part in zip(tokens, parts, strict=True) if part}
    longest = max(map(len, known), default=0)
    if longest > LONGEST:
        raise InputError("a token is too long", got=f"{longest:,} characters in {where}", expected=f"up to {LONGEST}")
    merges = []
    for i in np.argsort(-scores, kind="stable"):
        if parts[i]:
            token = tokens[i]
            halves = ([token[:k], token[k:]] for k in range(1, len(token)))
            merges += [pair for pair in halves if pair[0] in known and pair[1] in known]
    return merges


def _merge(text: str, vocab: dict[str, int], where: object) -> list[str]:
    """The two halves of a merge, whose space may not be the first character."""
    cut = text.find(" ", 1)
    left, right = text[:cut], text[cut + 1 :]
    if cut < 0 or left not in vocab or right not in vocab or left + right not in vocab:
        raise InputError(
            "a merge names tokens that are not there",
            got=f"{text!r} in {where}",
            expected="two tokens that make a third",
        )
    return [left, right]


def _adding(bos: str | None, eos: str | None, vocab: dict[str, int]) -> dict[str, Any]:
    """A post-processor that puts `bos` in front and `eos` behind, where they are given."""
    first, last = ([{"SpecialToken": {"id": token, "type_id": 0}}] if token else [] for token in (bos, eos))
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*first, text, *last],
        "pair": [*first, text, *last, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            token: {"id": token, "ids": [vocab[token]], "tokens": [token]} for token in (bos, eos) if token
        },
    }
