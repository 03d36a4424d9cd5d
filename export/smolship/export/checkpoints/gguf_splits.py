"""How llama.cpp splits text before BPE, by the names that GGUF files use, in the steps of a tokenizer.json.

The splits are hard-coded there (`llm_tokenizer_bpe` in src/llama-vocab.cpp), so they are stated here again. Where
llama.cpp deviates from the model's own tokenizer, this follows llama.cpp.
"""

from __future__ import annotations

from typing import Any

Steps = list[dict[str, Any]]

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
DIGITS = {"type": "Digits", "individual_digits": True}
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
ASCII_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"  # "ſ" is no "s" here
REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _words(before: str, digits: str, marks: str = r"[\r\n]*") -> str:
    """Llama 3's expression and its kin: words with what stands before them, digits, punctuation, space."""
    return before + r"|\p{N}" + digits + r"| ?[^\s\p{L}\p{N}]+" + marks + "|" + REST


def _cased(after: str = "", capital: str = r"(?:(?![a-z])\p{L})", small: str = r"(?:(?![A-Z])\p{L})") -> str:
    """Words of capitals and then small letters, apart: GPT-4o's. For llama.cpp any letter but a-z may be a capital, and
    any but A-Z a small one."""
    head = r"[^\r\n\p{L}\p{N}]?"
    return f"{head}{capital}*{small}+{after}|{head}{capital}+{small}*{after}"


def _split(*patterns: str) -> Steps:
    """Pieces cut by one expression, these by the next: what matches and what lies between are both pieces."""
    steps = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in patterns]
    return [*steps, BYTES | {"use_regex": False}]


PLAIN = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
LLAMA3 = _words(PLAIN, "{1,3}")
DEFAULT = (
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    "[0-9][0-9][0-9]",
)

_GPT2 = [BYTES | {"use_regex": True}]
_SMOLLM = [DIGITS, *_GPT2]
_LLAMA3 = _split(LLAMA3)
_QWEN2 = _split(_words(PLAIN, ""))
_GPT4O = _split(_words(_cased(ASCII_CONTRACTIONS + "?"), "{1,3}", "[\\r\\n/]*"))
# What that stands for: the expression in the tokenizer.json of GPT-4o, and of Phi-4-mini.
_CAPITAL, _SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT4O = _split(_words(_cased(CONTRACTIONS + "?", _CAPITAL, _SMALL), "{1,3}", "[\\r\\n/]*"))

SPLITS: dict[str, Steps] = {  # of names that mean the same, the first is the one that is written
    **dict.fromkeys(
        ("gpt-2", "exaone4", "gigachat", "granite-docling", "jais", "mellum", "mpt", "olmo", "phi-2", "trillion"), _GPT2
    ),
    **dict.fromkeys(("smollm", "codeshell", "command-r", "exaone", "minerva-7b", "refact", "starcoder"), _SMOLLM),
    **dict.fromkeys(
        ("llama-bpe", "falcon-h1", "falcon3", "glm4", "lfm2", "llama-v3", "llama3", "midm-2.0", "pixtral"), _LLAMA3
    ),
    **dict.fromkeys(("smaug-bpe", "chatglm-bpe", "dbrx"), _LLAMA3),  # unlike those, they merge up to whole words
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "hunyuan", "megrez", "stablelm2"), _QWEN2),
    **dict.fromkeys(("gpt-4o", "llama4"), _GPT4O),
    "tekken": _split(_words(_cased(), "", "[\\r\\n/]*")),
    "default": _split(*DEFAULT),
}
# A word that is a token is not merged up to.
WHOLE_WORDS_FIRST = {
    "falcon-h1",
    "falcon3",
    "glm4",
    "lfm2",
    "llama-bpe",
    "llama-v3",
    "llama3",
    "midm-2.0",
    "pixtral",
    "tekken",
}
ADDS_BOS = WHOLE_WORDS_FIRST - {"glm4"}  # where the file does not say
