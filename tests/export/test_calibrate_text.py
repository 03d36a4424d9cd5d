"""Texts and chats to calibrate on, and options: what is read, and what is refused, by its line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from smolship.export import export
from smolship.export.calibrate.asked import ask
from smolship.export.calibrate.documents import cut_windows, read_documents
from smolship.runtime.errors import InputError
from smolship.runtime.template import ChatTemplate
from smolship.runtime.tokenizer import Tokenizer
from tests.conftest import with_bos

CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def test_texts_and_chats_are_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(CHAT | {"id": 3}) + "\n\n" + json.dumps({"text": "x y"}) + "\n")
    assert read_documents(path) == [CHAT, "x y"]
    path.rename(tmp_path / "a.ndjson")
    assert read_documents(tmp_path / "a.ndjson") == [CHAT, "x y"]
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf[1] is a note, {no} object")
    assert read_documents(tmp_path / "b.txt") == ["[1] is a note, {no} object"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", json.dumps(CHAT) + "\n" + json.dumps(CHAT)),
        ("a.json", json.dumps([CHAT], indent=2)),
        ("a.json", json.dumps({"conversations": []}, indent=2)),
        ("a", "\n \n" + json.dumps({"text": "x"}) + "\n{"),
    ],
)
def test_chats_are_not_taken_for_text(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"is JSON(.|\n)*\.jsonl"):
        read_documents(tmp_path / name)


def test_chats_keep_what_templates_read(tmp_path):
    call = {"function": {"name": "clock", "arguments": {"zone": "UTC"}}}
    chat = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}], "tools": [{"name": "clock"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(chat | {"source": "x"}))
    assert read_documents(tmp_path / "a.jsonl") == [chat]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{", "delimiter|Expecting"),
        ("[1]", r"\[1\]"),
        ("{}", "no keys"),
        ('{"text": 3}', "keys 'text'|text"),
        ('{"messages": []}', "messages"),
        ('{"messages": [{"role": "robot", "content": "x"}]}', "robot"),
        ('{"messages": [{"role": "user", "content": ["x"]}]}', "no text"),
        ('{"text": "\\ud800"}', "Unicode"),
        ('{"text": "x", "messages": [{"role": "user", "content": "x"}]}', "one of them"),
        ('{"messages": [{"role": "user", "content": null}]}', "no text"),
        ('{"messages": [{"role": "user", "content": "x"}], "tools": {"a": 1}}', "tools"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, line, word):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "fine"}) + "\n" + line + "\n")
    with pytest.raises(InputError, match=rf"line 2 of a\.jsonl(.|\n)*({word})"):
        read_documents(path)


@pytest.mark.parametrize(("name", "content"), [("a.txt", b" \n"), ("a.jsonl", b"\n\n"), ("a.txt", b"\xff\xfe")])
def test_files_that_hold_no_text_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="the calibration text"):
        read_documents(tmp_path / name)
    with pytest.raises(InputError, match="the calibration text"):
        ask(tmp_path / "none.txt")


def test_windows_are_drawn_from_all_of_a_text(tiny):
    tokenizer = Tokenizer((tiny("llama") / "tokenizer.json").read_bytes())
    text = "".join(f"{i} " for i in range(20_000))
    given = (tokenizer, None, 300, 8, 32)
    first, second = (cut_windows([text], *given, seed) for seed in (0, 1))
    assert first.shape == (8, 32) and not np.array_equal(first, second)
    np.testing.assert_array_equal(first, cut_windows([text], *given, 0))
    with pytest.raises(InputError, match="too short"):
        cut_windows(["a few words"], *given, 0)
    with pytest.raises(InputError, match="no chat template"):
        cut_windows([CHAT] * 99, *given, 0)
    with pytest.raises(InputError, match="does not have"):
        cut_windows([text], tokenizer, None, 20, 8, 32, 0)


def test_a_chat_that_the_template_refuses_is_shown(tiny):
    tokenizer = Tokenizer((tiny("llama") / "tokenizer.json").read_bytes())
    template = ChatTemplate(
        "{% if messages[0].role == 'user' %}{{ raise_exception('no users') }}{% endif %}{{ tools }}"
    )
    with pytest.raises(InputError, match=r"no users(.|\n)*'content': 'Hi'"):
        cut_windows([CHAT], tokenizer, template, 300, 8, 32, 0)
    told = CHAT | {"messages": CHAT["messages"][1:], "tools": [{"name": "a clock that is told to the model " * 9}]}
    assert cut_windows([told] * 9, tokenizer, template, 300, 8, 32, 0).shape == (8, 32)


def test_windows_begin_as_texts_do(tiny):
    """Of documents that end within a window, too: the next one's BOS stays, and none stands twice at the start."""
    tokenizer = with_bos((tiny("llama") / "tokenizer.json").read_bytes())
    texts = [f"document {i} of many" for i in range(60)]
    found = cut_windows(texts, tokenizer, None, 300, 8, 32, 0)
    assert (found[:, 0] == 1).all() and not (found[:, 1] == 1).any()
    assert (found[:, 2:] == 1).any()


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"effort": "quick"}, "--effort with --calibrate none"),
        ({"seed": 1}, "--seed with --calibrate none"),
        ({"calibrate": "self", "effort": "huge"}, "best, default, quick"),
        ({"calibrate": "self", "seed": -1}, "the seed"),
        ({"calibrate": "self", "quant": "none"}, "nothing to calibrate"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, given, word):
    with pytest.raises(InputError, match=word):
        export("nowhere", tmp_path / "out", **given)
