"""Tokenizers that break their library, or that it refuses: an error in our words, and nothing else on the terminal."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

import pytest

from smolship.runtime.errors import InputError
from smolship.runtime.tokenizer import Tokenizer

VOCAB = {character: i for i, character in enumerate("xyz \n.")}
BPE = {"type": "BPE", "vocab": VOCAB, "merges": []}


def tokenizer(**parts: Any) -> bytes:
    empty = dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder"))
    return json.dumps({"version": "1.0", "added_tokens": [], "model": BPE} | empty | parts).encode()


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(pattern: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": "y"}


RUN = "x" * 50 + "."
BREAKS_ON_A_RUN = {
    "a pattern of the split": tokenizer(pre_tokenizer=split(r"(x+x*)+$")),
    "a pattern deep inside": tokenizer(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [split("y"), split("(x|xx)+Q")]}
    ),
    "a pattern that looks ahead": tokenizer(pre_tokenizer=split(r"(?=(x+)+z)x")),
    "a pattern of the normalizer": tokenizer(normalizer=replace(r"^(([x-z])+)+Q")),
    "pieces of length nothing": tokenizer(pre_tokenizer={"type": "FixedLength", "length": 0}),
    "a template without its token": tokenizer(
        post_processor={
            "type": "TemplateProcessing",
            "special_tokens": {},
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "single": [{"SpecialToken": {"id": "<b>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        }
    ),
}
REFUSES = {
    "WordLevel": tokenizer(model={"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "<none>"}),
    "Unigram": tokenizer(model={"type": "Unigram", "vocab": [["x", -1.0]], "unk_id": None}),
    "BPE": tokenizer(model=BPE | {"unk_token": "<none>"}),
}
UNREADABLE = {
    "a map of characters that is none": tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "a merge of less than its prefix": tokenizer(model=BPE | {"merges": ["x y"]}),
    "a pattern that does not end": tokenizer(pre_tokenizer=split("[x")),
    "an id below zero": tokenizer(model=BPE | {"vocab": {"x": -4}}),
    "a byte order mark": b"\xef\xbb\xbf" + tokenizer(),
    "NaN": tokenizer(model={"type": "Unigram", "vocab": [["x", float("nan")]], "unk_id": 0}),
    "UTF-16": tokenizer().decode().encode("utf-16"),
}


class PanicException(BaseException):
    """As pyo3 names its own."""


@pytest.fixture
def terminal(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RUST_BACKTRACE", "1")
    return lambda: capfd.readouterr().err


@pytest.mark.parametrize("name", BREAKS_ON_A_RUN)
def test_a_broken_library_is_an_error_of_the_file(name: str, terminal: Any) -> None:
    found = Tokenizer(BREAKS_ON_A_RUN[name])
    for _ in range(2):
        with pytest.raises(InputError, match="cannot encode the text") as caught:
            found.encode(RUN)
        assert "to do:    take the tokenizer.json that the model was published with" in str(caught.value)
    assert terminal() == ""


def test_what_does_not_run_into_the_limit_is_encoded(terminal: Any) -> None:
    found = Tokenizer(BREAKS_ON_A_RUN["a pattern of the split"])
    assert found.encode("xyz.") == [0, 1, 2, 5]
    with pytest.raises(InputError):
        found.encode(RUN)
    assert found.encode("xyz.") == [0, 1, 2, 5]


@pytest.mark.parametrize("name", REFUSES)
def test_a_character_without_a_token_is_the_librarys_refusal(name: str, terminal: Any) -> None:
    with pytest.raises(InputError, match="cannot encode the text") as caught:
        Tokenizer(REFUSES[name]).encode("ω")
    assert "to do" not in str(caught.value)
    assert terminal() == ""


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_the_library_cannot_read_is_refused(name: str, terminal: Any) -> None:
    with pytest.raises(InputError, match="the tokenizer cannot be read"):
        Tokenizer(UNREADABLE[name])
    assert terminal() == ""


def test_a_decoder_that_breaks() -> None:
    found = Tokenizer(tokenizer(decoder={"type": "Strip", "content": "x", "start": 2, "stop": 1 << 62}))
    with pytest.raises(InputError, match="cannot decode its tokens"):
        found.decode([0, 1])


def test_a_decoder_without_its_type_is_read_as_the_library_reads_it() -> None:
    """WordPiece's may leave it out."""
    found = Tokenizer(tokenizer(decoder={"prefix": "##", "cleanup": True}))
    stream = found.stream()
    assert "".join(stream.push(i) for i in (0, 1, 5)) + stream.finish() == found.decode([0, 1, 5]) == "x y."


@pytest.mark.parametrize(
    ("raised", "left"), [(None, "others: 1 % done\n"), (ValueError, "others: 1 % done\n"), (PanicException, "")]
)
def test_what_others_write_meanwhile_is_not_lost(
    raised: type[BaseException] | None, left: str, terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a panic's report stands among it."""

    class Inner:
        def encode(self, text: str, add_special_tokens: bool) -> Any:
            os.write(2, b"others: 1 % done\n")
            if raised:
                raise raised("no")
            return SimpleNamespace(ids=[4])

    found = Tokenizer(tokenizer())
    monkeypatch.setattr(found, "_inner", Inner())
    if raised:
        with pytest.raises(InputError):
            found.encode("xyz")
    else:
        assert found.encode("xyz") == [4]
    assert terminal() == left
    os.write(2, b"after")
    assert terminal() == "after"


def test_an_interrupt_goes_through(monkeypatch: pytest.MonkeyPatch, terminal: Any) -> None:
    def interrupted(*given: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    found = Tokenizer(tokenizer())
    monkeypatch.setattr(found, "_inner", SimpleNamespace(encode=interrupted))
    with pytest.raises(KeyboardInterrupt):
        found.encode("x")
    os.write(2, b"after")
    assert terminal() == "after"


def test_without_a_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(descriptor: int) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    assert Tokenizer(tokenizer()).encode("zy") == [2, 1]
