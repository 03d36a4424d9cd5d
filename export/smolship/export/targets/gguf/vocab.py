"""tokenizer.json -> the tokenizer of a GGUF file, or a refusal.

llama.cpp knows a split by its name and does the rest in ways of its own. So each step of tokenizer.json must be one
that it does too; what is not understood is refused, because the ids would differ without a word.
"""

from __future__ import annotations

import json
from typing import Any

from smolship.export.checkpoints.gguf_splits import GPT4O, SPLITS, WHOLE_WORDS_FIRST
from smolship.export.checkpoints.gguf_strips import NAME, by_name, strips
from smolship.export.config import DecoderConfig
from smolship.runtime.errors import InputError, show
from smolship.runtime.facts import GenerationFacts
from smolship.runtime.tokenizer import Tokenizer
from smolship.runtime.tokenizing import CUTS, LEAVES

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # llama.cpp's token types
SPACE = "▁"

# Of the splits that we know by name, those that llama.cpp cuts exactly as the tokenizers library does.
WRITTEN = ("gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "gpt-4o")
# And those that it cuts so but for some text, which is said: (name, the steps, the text).
NEARLY = (
    (
        "gpt-4o",
        GPT4O,
        "capitals and small letters outside ASCII, which it does not tell apart, marks that combine with a letter, and "
        "an apostrophe before an ſ",
    ),
)

# Expressions that match any text: to leave out what lies between their matches leaves out nothing.
WHOLE = [step["pattern"] for name in ("llama-bpe", "qwen2", "gpt-4o") for step in SPLITS[name] if "pattern" in step]
WHOLE += [step["pattern"] for step in GPT4O if "pattern" in step]

PREFIX = {"type": "Prepend", "prepend": SPACE}
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


def vocabulary(files: dict[str, bytes], config: DecoderConfig, facts: GenerationFacts) -> dict[str, Any]:
    """GGUF's metadata of the tokenizer, by key. Raises InputError where llama.cpp would not give the same ids."""
    tokenizer = Tokenizer(files["tokenizer.json"])  # which also checks the file
    raw = json.loads(files["tokenizer.json"])
    model = raw["model"]
    if model.get("type", "BPE") != "BPE":
        raise _refuse("model", model["type"], "BPE")
    tokens, types = _tokens(raw, config)
    around = _around(raw.get("post_processor"))
    found: dict[str, Any] = {
        "tokens": tokens,
        "token_type": types,
        "add_bos_token": around[0] is not None,
        "add_eos_token": around[1] is not None,
    }
    if model.get("byte_fallback"):
        scores, prefix = _scores(raw, tokens)
        found |= {"model": "llama", "pre": "default", "scores": scores, "add_space_prefix": prefix}
    else:
        found |= {"model": "gpt2", "pre": _split_name(raw), "merges": [" ".join(pair) for pair in _merges(model)]}
    found |= _special_ids(facts, tokenizer, *around)
    named = {"general.name": NAME} if _stripping(raw) else {}
    return named | {f"tokenizer.ggml.{key}": value for key, value in found.items()}


def differences(files: dict[str, bytes]) -> list[str]:
    """What llama.cpp makes other ids of than the model's own tokenizer: rare enough to be said and not refused. (A
    session of smolship takes the model's own.)"""
    raw = json.loads(files["tokenizer.json"])
    found = [f"{LEAVES} behind a special token to the text"] * _stripping(raw)
    if raw["model"].get("byte_fallback"):
        return found
    steps = _steps(raw.get("pre_tokenizer"))
    return found + [f"{CUTS}: {text}" for _, near, text in NEARLY if steps == _plain_all(near)]


def _stripping(raw: dict[str, Any]) -> bool:
    """Whether tokens take the white space behind them; those that do for llama.cpp, or it is refused."""
    added = raw.get("added_tokens", [])
    if not any(token["rstrip"] for token in added):
        return False
    texts = {*raw["model"]["vocab"], *(token["content"] for token in added)}
    wrong = [token for token in added if token["rstrip"] != strips(token["content"])]
    if wrong or not by_name(NAME, texts):
        raise _refuse("an added token", wrong[0] if wrong else added[0], "rstrip nowhere, or where Phi-3 has it")
    return True


def _refuse(part: str, got: object, expected: str) -> InputError:
    return InputError(
        f"llama.cpp does not tokenize so: {part} of tokenizer.json",
        got=show(got),
        expected=expected,
        todo="leave the gguf target out",
    )


def _tokens(raw: dict[str, Any], config: DecoderConfig) -> tuple[list[str], list[int]]:
    """Text and type of each id; rows of the embedding beyond the tokenizer's last id are unused tokens."""
    texts: dict[int, tuple[str, int]] = {}
    unknown, fallback = raw["model"].get("unk_token"), raw["model"].get("byte_fallback")
    for text, i in raw["model"]["vocab"].items():
        byte = fallback and len(text) == 6 and text.startswith("<0x")
        texts[i] = (text, BYTE if byte else UNKNOWN if text == unknown else NORMAL)
    for token in raw.get("added_tokens", []):
        if token["lstrip"] or token["single_word"] or (raw.get("normalizer") and token["normalized"]):
            raise _refuse("an added token", token, "no lstrip, no single_word, and none that is normalized")
        texts[token["id"]] = (token["content"], CONTROL if token["special"] else USER_DEFINED)
    if max(texts) >= config.vocab:
        raise InputError(
            "the tokenizer has more tokens than the model",
            got=f"id {max(texts):,}",
            expected=f"ids below {config.vocab:,}",
        )
    filled = [texts.get(i, (f"[PAD{i}]", UNUSED)) for i in range(config.vocab)]
    if len({text for text, _ in filled}) != len(filled):
        raise _refuse("vocab", "two ids of the same text", "different tokens")
    return [text for text, _ in filled], [kind for _, kind in filled]


def _merges(model: dict[str, Any]) -> list[list[str]]:
    if not model["merges"]:  # a file without them has no tokenizer for llama.cpp
        raise _refuse("merges", "none", "at least one")
    return [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]


def _split_name(raw: dict[str, Any]) -> str:
    """The name by which llama.cpp knows this pre-tokenizer."""
    if raw.get("normalizer"):
        raise _refuse("normalizer", raw["normalizer"], "none")
    for part in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if raw["model"].get(part):
            raise _refuse(part, raw["model"][part], "none")
    steps, whole = _steps(raw.get("pre_tokenizer")), bool(raw["model"].get("ignore_merges"))
    for name, known in (*((name, SPLITS[name]) for name in WRITTEN), *(near[:2] for near in NEARLY)):
        if steps == _plain_all(known) and whole == (name in WHOLE_WORDS_FIRST):
            return name
    raise _refuse("pre_tokenizer", f"{json.dumps(steps)}, ignore_merges {whole}", "that of " + ", ".join(WRITTEN))


def _steps(pre: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre is None:
        return []
    return [s for p in pre["pretokenizers"] for s in _steps(p)] if pre["type"] == "Sequence" else [_plain(pre)]


def _plain(step: dict[str, Any]) -> dict[str, Any]:
    """A step with its defaults filled in, without what concerns offsets only."""
    defaults = {"use_regex": True} if step["type"] == "ByteLevel" else {}
    kept = step.get("pattern") in WHOLE and (step.get("behavior"), step.get("invert")) == ("Removed", True)
    isolated = {"behavior": "Isolated", "invert": False} if kept else {}
    return {key: value for key, value in (defaults | step | isolated).items() if key != "trim_offsets"}


def _plain_all(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_plain(step) for step in steps]


def _scores(raw: dict[str, Any], tokens: list[str]) -> tuple[list[float], bool]:
    """SentencePiece's scores from the order of the merges, and whether a space is put in front of a text.

    llama.cpp joins whichever neighbours make the token of the highest score; the merges say the same only where all
    splits of a token that the vocabulary allows are listed, those of one token together.
    """
    normalizer = raw.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    if steps not in ([PREFIX, SPACES], [SPACES]) or not _whole(raw.get("pre_tokenizer")):
        raise _refuse(
            "normalizer and pre_tokenizer",
            [normalizer, raw.get("pre_tokenizer")],
            f"{SPACE} for spaces, and in front or not, and no pre-tokenizer that cuts",
        )
    rank: dict[str, int] = {}
    last, merges = "", {tuple(pair) for pair in _merges(raw["model"])}
    for i, (left, right) in enumerate(_merges(raw["model"])):
        if left + right != last and left + right in rank:
            raise _refuse("merges", f"those of {left + right!r} lie apart", "those of one token together")
        last = left + right
        rank.setdefault(last, i)
    vocab = raw["model"]["vocab"]
    for token in rank:
        halves = ((token[:k], token[k:]) for k in range(1, len(token)))
        if lost := [h for h in halves if h[0] in vocab and h[1] in vocab and h not in merges]:
            raise _refuse("merges", f"no {lost[0]}", "every pair of tokens that makes a token")
    return [-float(rank.get(token, len(merges))) for token in tokens], PREFIX in steps


def _whole(pre: dict[str, Any] | None) -> bool:
    """Whether a pre-tokenizer leaves a text whole: Gemma's cuts at spaces, of which its normalizer has left none."""
    return pre is None or (pre.get("type"), pre.get("pattern")) == ("Split", {"String": " "})


def _around(post: dict[str, Any] | None) -> tuple[str | None, str | None]:
    """The tokens that the tokenizer puts before and after a text."""
    steps = post["processors"] if post and post["type"] == "Sequence" else [post] if post else []
    before, after = None, None
    for step in steps:
        if step["type"] == "ByteLevel":
            continue
        match [next(iter(item.items())) for item in step.get("single", [])]:
            case [("Sequence", _)]:
                pass
            case [("SpecialToken", {"id": before}), ("Sequence", _)]:
                pass
            case [("Sequence", _), ("SpecialToken", {"id": after})]:
                pass
            case [("SpecialToken", {"id": before}), ("Sequence", _), ("SpecialToken", {"id": after})]:
                pass
            case _:
                raise _refuse("post_processor", step, "at most a token in front and one behind")
    return before, after


def _special_ids(
    facts: GenerationFacts, tokenizer: Tokenizer, before: str | None, behind: str | None
) -> dict[str, int]:
    """Ids of the special tokens. Of several that end an answer, `eos` is the one that the tokenizer puts behind a text
    or else calls so, `eot` the one that ends a turn of the chat template, `eom` another: llama.cpp ends at each."""

    def named(text: str | None) -> int | None:
        return None if text is None else tokenizer.token_to_id(text)

    first = [named(behind), named(facts.special_tokens.get("eos_token"))]
    turns = {end.id for end in facts.ends if "chat template" in end.origins}
    rank = {i: first.index(i) for i in reversed(first) if i is not None}
    eos = min(facts.end_ids, key=lambda i: rank.get(i, len(first)), default=None)  # of equals the first
    others = sorted((i for i in facts.end_ids if i != eos), key=lambda i: i not in turns)
    ids = {
        "bos": facts.bos if before is None else named(before),
        "eos": eos,
        **dict(zip(("eot", "eom"), others, strict=False)),
        "unknown": named(facts.special_tokens.get("unk_token")),
        "padding": facts.pad,
    }
    return {f"{role}_token_id": i for role, i in ids.items() if i is not None}
