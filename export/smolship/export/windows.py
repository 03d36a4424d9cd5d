"""The text that a model is probed with, in windows of tokens."""

from __future__ import annotations

import inspect

import numpy as np

from smolship.runtime.errors import InputError
from smolship.runtime.probes import Window
from smolship.runtime.tokenizer import Tokenizer

WINDOW = 512  # tokens of one window, context permitting
SHORTEST = 2  # a token in the cache, and one that follows it: parity goes back to the middle of a window


def english() -> str:
    """Prose: the language reference that comes with Python."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in ("objects", "execmodel", "compound", "types"))


def code() -> str:
    """Python: modules of the standard library."""
    import heapq
    import textwrap

    return inspect.getsource(textwrap) + inspect.getsource(heapq)


def texts(own: str | None = None) -> list[tuple[str, str]]:
    """(kind, text): the user's own, or else English and code."""
    return [("english", english()), ("code", code())] if own is None else [("text", own)]


def make_windows(tokenizer: Tokenizer, context: int, tokens: int, text: str | None = None) -> list[Window]:
    """At least `tokens` positions of English and code by turns, in windows of 2 to 512 tokens. Each begins with BOS
    where the tokenizer begins texts so: Gemma 3, which never saw a text without, says little of use about one."""
    before = tokenizer.prefix()
    encoded = [(kind, tokenizer.encode(source)[len(before) :]) for kind, source in texts(text)]
    size = min(WINDOW, context, max(tokens // len(encoded), SHORTEST))
    if size <= len(before):
        before = []
    windows, step = list[Window](), size - len(before)
    for i in range(-(-tokens // size)):
        kind, ids = encoded[i % len(encoded)]
        start = i // len(encoded) * step
        piece = ids[start : start + step]
        if len(piece) < step:
            raise InputError(
                "the text is too short to probe with",
                got=f"{len(ids):,} tokens of {kind}",
                expected=f"at least {start + step:,}",
                todo="give a longer --probe-text, or fewer --probe-tokens",
            )
        windows.append(Window(kind, np.array(before + piece, np.int32)))
    return windows
