"""Text to token ids and back; and back token by token, for streaming."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from smolship.runtime.errors import InputError
from smolship.runtime.files import JSON_LIMIT, read_bytes


class Tokenizer:
    """A tokenizer.json, given as its path or its bytes."""

    def __init__(self, source: str | Path | bytes):
        import tokenizers

        where = "tokenizer.json" if isinstance(source, bytes) else source
        raw = source if isinstance(source, bytes) else read_bytes(Path(source), "tokenizer.json", JSON_LIMIT)
        with _library("the tokenizer cannot be read", where, "a tokenizer.json of Hugging Face tokenizers"):
            self._inner = tokenizers.Tokenizer.from_buffer(raw)
            self._inner.no_truncation()
            self._inner.no_padding()
            added = self._inner.get_added_tokens_decoder()
            # As the library has understood it: with the type, which a file may leave out.
            self._decoder = json.loads(self._inner.decoder.__getstate__()) if self._inner.decoder else None
        self._where = where
        self._special = {t.content for t in added.values() if t.special}

    @property
    def vocab_size(self) -> int:
        """Tokens that the tokenizer knows, added ones included; a model may have a few rows more."""
        return self._inner.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids of `text`; `special` adds what the tokenizer puts around it (BOS), which a chat template has
        already written."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError("the text is not valid Unicode", got=error, expected="no lone surrogates") from None
        with _library("the tokenizer cannot encode the text", self._where, "a tokenizer that can encode any text"):
            return self._inner.encode(text, add_special_tokens=special).ids

    def prefix(self) -> list[int]:
        """What `encode` puts before a text: BOS, or nothing."""
        whole, bare = self.encode("a"), self.encode("a", special=False)
        return next((whole[:at] for at in range(len(whole)) if whole[at : at + len(bare)] == bare), [])

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        with _library("the tokenizer cannot decode its tokens", self._where, "a decoder that takes any tokens"):
            return self._inner.decode(list(ids), skip_special_tokens=skip_special)

    def added_tokens(self) -> list[str]:
        """The tokens that are found in a text before anything else, special ones and others, by id."""
        return [token.content for _, token in sorted(self._inner.get_added_tokens_decoder().items())]

    def added_ids(self) -> set[int]:
        """Their ids."""
        return set(self._inner.get_added_tokens_decoder())

    def token_to_id(self, token: str) -> int | None:
        return self._inner.token_to_id(token)

    def token(self, token: int) -> str | None:
        """The token as the vocabulary spells it; None for an id that is not there."""
        return self._inner.id_to_token(token)

    def piece(self, token: int) -> str | None:
        """The token as the vocabulary spells it; None for a special one, and for an id that is not there."""
        text = self._inner.id_to_token(token)
        return None if text in self._special else text

    def stream(self) -> TokenStream:
        return TokenStream(self)


@contextlib.contextmanager
def _library(what: str, where: object, expected: str) -> Iterator[None]:
    """Any failure of the library is the file's: a hostile one makes it panic, which is no Exception and is printed."""
    with _stderr_unless_panic() as panicked:
        try:
            yield
        except BaseException as error:
            panic = type(error).__name__ == "PanicException"  # pyo3's: it cannot be imported
            if not panic and not isinstance(error, Exception):
                raise
            panicked[:] = [panic]
            todo = "take the tokenizer.json that the model was published with" if panic else None
            raise InputError(what, got=f"{error} in {where}", expected=expected, todo=todo) from None


_STDERR = threading.Lock()


@contextlib.contextmanager
def _stderr_unless_panic() -> Iterator[list[bool]]:
    """Holds back what is written to standard error meanwhile, and lets it through at the end unless the list says that
    it was a panic's report: Rust's runtime writes it by itself, over whatever the terminal shows."""
    panicked = [False]
    with _STDERR, contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(tempfile.TemporaryFile())
            real = os.dup(2)
        except OSError:  # nothing to write to, or nowhere to hold it
            yield panicked
            return
        stack.callback(os.close, real)
        os.dup2(held.fileno(), 2)
        try:
            yield panicked
        finally:
            os.dup2(real, 2)
            if not panicked[0] and held.seek(0, os.SEEK_END):
                held.seek(0)
                with contextlib.suppress(OSError):
                    os.write(real, held.read())


class TokenStream:
    """Decodes token by token: what `push` and `finish` return, joined, is `decode` of all the ids.

    Each token is decoded once, by the steps of the tokenizer's own decoder. A step holds back what later tokens may
    still change: the first bytes of a character, or a run of byte tokens. (The library's own DecodeStream drops what is
    held back at the end, and differs from `decode` where bytes are not UTF-8.)
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._steps = _steps(tokenizer._decoder)
        self._held: list[int] = []  # where there is no way to decode in steps: all ids, until the end

    def push(self, token: int) -> str:
        """The text that `token` completes."""
        if self._steps is None:
            self._held.append(token)
            return ""
        piece = self._tokenizer.piece(token)
        return "" if piece is None else self._run([piece], 0)

    def finish(self) -> str:
        """The text that was held back."""
        if self._steps is None:
            return self._tokenizer.decode(self._held)
        return "".join(self._run(step.finish(), i + 1) for i, step in enumerate(self._steps))

    def _run(self, pieces: list[str], start: int) -> str:
        for step in (self._steps or [])[start:]:
            pieces = [out for piece in pieces for out in step.push(piece)]
        return "".join(pieces)


class _Step(ABC):
    """One step of a decoder: pieces of text in, pieces of text out."""

    @abstractmethod
    def push(self, piece: str) -> list[str]:
        """What may be said now that this piece came."""

    def finish(self) -> list[str]:
        return []


_Function = Callable[[str, bool], str]  # of a piece, and whether it is the first


class _Map(_Step):
    """A function of each piece by itself."""

    def __init__(self, function: _Function):
        self.function, self.first = function, True

    def push(self, piece: str) -> list[str]:
        first, self.first = self.first, False
        return [self.function(piece, first)]


class _ByteLevel(_Step):
    """Each character of a token stands for a byte; the bytes are UTF-8, U+FFFD where they are not."""

    def __init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.bytes = byte_of_character()

    def push(self, piece: str) -> list[str]:
        known = all(c in self.bytes for c in piece)
        return [self.decoder.decode(bytes(self.bytes[c] for c in piece) if known else piece.encode())]

    def finish(self) -> list[str]:
        return [self.decoder.decode(b"", final=True)]


class _ByteFallback(_Step):
    """Tokens <0x00> to <0xFF> are bytes. A run of them that is not UTF-8 as a whole becomes U+FFFD for each byte, so
    that nothing of a run is sure before it ends."""

    def __init__(self) -> None:
        self.run = bytearray()

    def push(self, piece: str) -> list[str]:
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            try:
                self.run.append(int(piece[3:5], 16))
                return []
            except ValueError:
                pass
        return [*self.finish(), piece]

    def finish(self) -> list[str]:
        run, self.run = self.run, bytearray()
        try:
            return [run.decode()] if run else []
        except UnicodeDecodeError:
            return ["\ufffd"] * len(run)


class _StripStart(_Step):
    """Removes up to `count` characters from the start of the whole text."""

    def __init__(self, character: str, count: int):
        self.character, self.left = character, count

    def push(self, piece: str) -> list[str]:
        while self.left and piece:
            if piece[0] != self.character:
                self.left = 0
            else:
                piece, self.left = piece[1:], self.left - 1
        return [piece]


def _steps(decoder: dict[str, Any] | None) -> list[_Step] | None:
    """The decoder of a tokenizer.json as steps; None where one of them needs the whole text."""
    if decoder is None:
        return [_Map(lambda piece, first: piece if first else " " + piece)]
    fused = False
    steps: list[_Step] = []
    for part in decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]:
        match part:
            case {"type": "ByteLevel"}:
                steps.append(_ByteLevel())
                fused = True
            case {"type": "ByteFallback"} if not fused:
                steps.append(_ByteFallback())
            case {"type": "Fuse"}:
                fused = True
            case {"type": "Metaspace", "replacement": mark} if not fused:
                steps.append(_Map(_metaspace(mark, part.get("prepend_scheme", "always") != "never")))
            case {"type": "Replace", "pattern": {"String": old}, "content": new} if not fused or len(old) == 1:
                steps.append(_Map(_replace(old, new)))
            case {"type": "Strip", "content": character, "start": start, "stop": 0} if fused:
                steps.append(_StripStart(character, start))
            case {"type": "Strip", "content": character, "start": start, "stop": stop} if not fused:
                steps.append(_Map(_strip(character, start, stop)))
            case _:
                return None
    return steps


def _metaspace(mark: str, drop_first: bool) -> _Function:
    return lambda piece, first: piece.replace(mark, "" if first and drop_first else " ")


def _replace(old: str, new: str) -> _Function:
    return lambda piece, first: piece.replace(old, new)


def _strip(character: str, start: int, stop: int) -> _Function:
    """Removes up to `start` leading and up to `stop` trailing characters."""

    def strip(piece: str, first: bool) -> str:
        a = min(start, len(piece) - len(piece.lstrip(character)))
        b = min(stop, len(piece) - len(piece.rstrip(character)))
        return piece[a : max(a, len(piece) - b)]

    return strip


@lru_cache(maxsize=1)
def byte_of_character() -> dict[str, int]:
    """How byte-level vocabularies spell bytes: printable Latin-1 characters stand for themselves, the others, in
    order, for U+0100 and up."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
