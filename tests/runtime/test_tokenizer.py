"""The tokenizer wrapper, and streaming: pieces joined equal the whole, for every kind of decoder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from smolship.runtime.errors import InputError
from smolship.runtime.tokenizer import Tokenizer
from tests.conftest import make_tokenizer

LLAMA2 = [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
]
DECODERS: dict[str, Any] = {
    "none": None,
    "metaspace": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    "metaspace_never": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
    "llama2": {"type": "Sequence", "decoders": LLAMA2},
    "gemma": {"type": "Sequence", "decoders": LLAMA2[:3]},
    "byte_fallback": {"type": "ByteFallback"},
    "strip_each": {"type": "Sequence", "decoders": [*LLAMA2[:2], LLAMA2[3]]},
    "strip_start": {"type": "Strip", "content": "▁", "start": 2, "stop": 0},
    "strip_stop": {"type": "Strip", "content": "▁", "start": 0, "stop": 1},
    "wordpiece": {"type": "WordPiece", "prefix": "##", "cleanup": True},  # needs the whole text
}
PIECES = ["▁", "▁the", "▁▁▁", "é", "日本", "👍🏽", "a", "##b", "x▁y", "<0xG1>", "<0x+1>", "\n", " ", "\u0301", "<0x1>"]
HARD = [
    "👩‍👩‍👧‍👦 family",
    "e\u0301 \u202e rtl",
    "日本語テキスト",
    "\U0010ffff\x00",
    "🇫🇷🇩🇪",
    "नमस्ते",
    "�",
    "\r\n\t  x",
    "ﷺ",
    "a\u200db",
]


def sentencepiece_like(decoder: Any) -> Tokenizer:
    """Special tokens, all 256 byte tokens, and pieces with spaces as ▁."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *PIECES, "<think>"]
    vocab = {name: i for i, name in enumerate(dict.fromkeys(names))}
    added = [
        {
            "id": vocab[name],
            "content": name,
            "special": name != "<think>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for name in ("<unk>", "<s>", "</s>", "<think>")
    ]
    model = {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    normalizer = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    return Tokenizer(
        json.dumps(
            {"version": "1.0", "added_tokens": added, "normalizer": normalizer, "decoder": decoder, "model": model}
        ).encode()
    )


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder, 300)
    return Tokenizer(folder / "tokenizer.json")


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    stream = tokenizer.stream()
    return "".join([stream.push(i) for i in ids]) + stream.finish()


SPELLED = {name: sentencepiece_like(decoder) for name, decoder in DECODERS.items()}
IDS = st.lists(st.one_of(st.integers(0, 320), st.integers(3, 258), st.sampled_from([0, 1, 2])), max_size=40)


@pytest.mark.parametrize("name", DECODERS)
@given(ids=IDS)
@settings(max_examples=150, deadline=None)
def test_streaming_equals_decoding_for_any_ids(name: str, ids: list[int]) -> None:
    assert streamed(SPELLED[name], ids) == SPELLED[name].decode(ids)


@given(ids=st.lists(st.integers(0, 305), max_size=60))
@settings(max_examples=500, deadline=None)
def test_byte_level_streaming_equals_decoding_for_any_ids(byte_level: Tokenizer, ids: list[int]) -> None:
    assert streamed(byte_level, ids) == byte_level.decode(ids)


@given(text=st.one_of(st.sampled_from(HARD), st.text(max_size=40)))
@settings(max_examples=300, deadline=None)
def test_text_survives(byte_level: Tokenizer, text: str) -> None:
    ids = byte_level.encode(text)
    assert streamed(byte_level, ids) == byte_level.decode(ids) == text
    ids = SPELLED["gemma"].encode(text)
    assert streamed(SPELLED["gemma"], ids) == SPELLED["gemma"].decode(ids)


def test_a_character_appears_when_its_last_byte_does(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("a👍b")
    assert len(ids) == 6
    stream = byte_level.stream()
    assert [stream.push(i) for i in ids] == ["a", "", "", "", "👍", "b"]


def test_special_tokens_are_skipped_and_the_rest_added_is_not(byte_level: Tokenizer) -> None:
    end, think = byte_level.token_to_id("<|im_end|>"), SPELLED["llama2"].token_to_id("<think>")
    assert end is not None and think is not None
    assert streamed(byte_level, [end, *byte_level.encode("hi"), end]) == "hi"
    assert byte_level.decode([end], skip_special=False) == "<|im_end|>"
    assert streamed(SPELLED["llama2"], [1, think, 2]) == "<think>"


def test_a_byte_level_token_may_be_spelled_as_text(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, 300)
    inner = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    inner.add_tokens(["<道具 é>"])
    tokenizer = Tokenizer(inner.to_str().encode())
    ids = tokenizer.encode("x<道具 é>é")
    assert len(ids) == 4
    assert streamed(tokenizer, ids) == tokenizer.decode(ids) == "x<道具 é>é"


def test_the_cost_of_a_token_does_not_grow(byte_level: Tokenizer) -> None:
    byte = byte_level.encode("👍")[0]  # never completes a character
    stream, times = byte_level.stream(), []
    for _ in range(8):
        start = time.process_time()
        for _ in range(2000):
            stream.push(byte)
        times.append(time.process_time() - start)
    assert min(times[4:]) < 3 * min(times[:4])


def test_special_tokens_around_the_text_are_a_choice(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, 300)
    raw = json.loads((tmp_path / "tokenizer.json").read_text())
    raw["post_processor"] = {
        "type": "TemplateProcessing",
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    tokenizer = Tokenizer(json.dumps(raw).encode())
    assert tokenizer.encode("x") == [1, *tokenizer.encode("x", special=False)]
    assert tokenizer.vocab_size == 300


def test_truncation_and_padding_in_the_file_are_not_applied(byte_level: Tokenizer, tmp_path: Path) -> None:
    make_tokenizer(tmp_path, 300)
    inner = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    inner.enable_truncation(4)
    inner.enable_padding(length=64)
    inner.save(str(tmp_path / "tokenizer.json"))
    text = "every good boy deserves favour"
    assert Tokenizer(tmp_path / "tokenizer.json").encode(text) == byte_level.encode(text)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"model":{"type":"X"}}'])
def test_a_broken_file_is_refused(raw: bytes) -> None:
    with pytest.raises(InputError, match="the tokenizer cannot be read"):
        Tokenizer(raw)


def test_lone_surrogates_are_refused(byte_level: Tokenizer) -> None:
    with pytest.raises(InputError, match="not valid Unicode"):
        byte_level.encode("\ud800")


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        Tokenizer(tmp_path / "tokenizer.json")
