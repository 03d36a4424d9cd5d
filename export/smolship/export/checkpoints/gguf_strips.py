"""Tokens that take the white space behind them (`rstrip`): llama.cpp knows those of Phi-3 alone, by the model's name.

It looks the tokens up (`llama_vocab::impl::load` in src/llama-vocab.cpp) and needs them there. It takes C's white
space, tokenizers Unicode's: a no-break space behind such a token is left to the text.
"""

from __future__ import annotations

from collections.abc import Container

NAME = "phi-3"  # in general.name
KEPT = ("<unk>", "<s>", "<|endoftext|>")  # white space stays behind these
ALSO = "</s>"


def by_name(name: object, tokens: Container[str]) -> bool:
    """Whether llama.cpp takes the model of that name for a Phi-3."""
    named = isinstance(name, str) and any(word in name.lower() for word in (NAME, "phi3"))
    return named and all(token in tokens for token in (*KEPT, ALSO))


def strips(token: str) -> bool:
    """Whether a special or user-defined token of a Phi-3 takes it."""
    return token not in KEPT
