"""The user's text or chats, and windows of tokens made of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from smolship.export.checkpoints import Checkpoint
from smolship.export.facts import Resolved
from smolship.export.templates import DATE
from smolship.runtime.errors import InputError, show
from smolship.runtime.files import read_text
from smolship.runtime.template import ChatTemplate
from smolship.runtime.tokenizer import Tokenizer

LIMIT = 1 << 26  # bytes of a file
LINES = 200_000  # of JSONL
MESSAGES = 1000  # of a chat
PIECE = 8192  # characters of a text that are taken at once
LEAST = 8  # windows
LINED = (".jsonl", ".ndjson")  # names of files with a document a line end so
ROLES = ("system", "user", "assistant", "tool")
Document = str | dict[str, Any]  # a text, or a chat: its messages, and the tools that it was held with, if any
EXPECTED = '{"messages": [{"role": "user", "content": "…"}, …]} or {"text": "…"}'


def read_documents(path: Path) -> list[Document]:
    """A UTF-8 text; or, of a file whose name ends in .jsonl, a chat or a text a line. Raises InputError with the line
    that cannot be used."""
    text = read_text(path, "the calibration text", LIMIT).removeprefix("\ufeff")
    if not text.strip():
        raise InputError("the calibration text is empty", got=path, expected=f"UTF-8 text, or lines of {EXPECTED}")
    if path.suffix.lower() not in LINED:
        if _is_json(text):
            raise InputError(
                "the calibration text is JSON",
                got=path,
                expected="UTF-8 text",
                todo=f"let the file's name end in {LINED[0]}, with lines of {EXPECTED}",
            )
        return [text]
    lines = text.split("\n")
    if len(lines) > LINES:
        raise InputError(
            "the calibration text has too many lines", got=f"{len(lines):,} in {path}", expected=f"at most {LINES:,}"
        )
    return [_document(line, i, path) for i, line in enumerate(lines, 1) if line.strip()]


def _is_json(text: str) -> bool:
    """Whether it is an object or a list, or its first line is an object."""
    for part in (text, text.lstrip().partition("\n")[0]):
        if part.lstrip()[0] in "{[":
            with suppress(ValueError, RecursionError):
                return isinstance(json.loads(part), dict) or part is text
    return False


def _document(line: str, number: int, path: Path) -> Document:
    def refuse(got: object) -> InputError:
        return InputError(f"line {number:,} of {path.name} cannot be used", got=got, expected=EXPECTED)

    try:
        raw = json.loads(line)
        json.dumps(raw, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise refuse(f"{error}: no valid Unicode") from None
    except (ValueError, RecursionError) as error:
        raise refuse(f"{error}, in {show(line)}") from None
    if not isinstance(raw, dict):
        raise refuse(show(raw))
    if "messages" not in raw:
        if not isinstance(raw.get("text"), str) or not raw["text"].strip():
            raise refuse(f"keys {', '.join(map(show, raw))}" if raw else "no keys")
        return str(raw["text"])
    if "text" in raw:
        raise refuse("a text and messages: one of them would not be used")
    messages, tools = raw["messages"], raw.get("tools")
    if not isinstance(messages, list) or not 1 <= len(messages) <= MESSAGES:
        raise refuse(f"messages: {show(messages)}")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise refuse(f"{show(message)}, whose role is none of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str) and not (
            message.get("content") is None and message.get("tool_calls")
        ):
            raise refuse(f"{show(message)}, whose content is no text")
    if not tools:
        return {"messages": messages}
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise refuse(f"tools: {show(tools)}")
    return {"messages": messages, "tools": tools}


def cut_windows(
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
    vocab: int,
    windows: int,
    length: int,
    seed: int,
) -> np.ndarray:
    """int64 [at most `windows`, length]: of documents drawn in the order of the seed, one after the other, those of
    long texts in pieces. Each window begins as the tokenizer begins texts, with BOS or not. Raises InputError where
    they are too short, or chats have no template."""
    pieces = list(_pieces(documents))
    if template is None and (chats := sum(isinstance(piece, dict) for piece in pieces)):
        raise InputError(
            "the model has no chat template", got=f"{chats:,} chats to calibrate on", expected='lines of {"text": "…"}'
        )
    ids: list[int] = []
    for i in np.random.default_rng(seed).permutation(len(pieces)):
        if len(ids) >= windows * length:
            break
        piece = pieces[i]
        if isinstance(piece, str):
            ids += tokenizer.encode(piece)
        else:
            assert template
            ids += tokenizer.encode(_rendered(piece, template), special=False)
    rows = list(_rows(ids, tokenizer.prefix(), length))[:windows]
    if len(rows) < LEAST:
        raise InputError(
            "the calibration text is too short",
            got=f"{len(ids):,} tokens",
            expected=f"at least {LEAST * length:,}",
            todo="give more of it, or let the model write it: --calibrate self",
        )
    if max(ids) >= vocab:
        raise InputError(
            "the tokenizer gives a token that the model does not have", got=max(ids), expected=f"ids below {vocab:,}"
        )
    return np.array(rows, np.int64)


def _rendered(chat: dict[str, Any], template: ChatTemplate) -> str:
    try:
        return template.render(**chat, add_generation_prompt=False)
    except InputError as error:
        got = f"{error.parts()['got']}, of a chat that begins with {show(chat['messages'][0])}"
        raise InputError("a chat to calibrate on cannot be rendered", got=got) from None


def _rows(ids: Sequence[int], before: list[int], length: int) -> Iterator[list[int]]:
    """As many as there are of exactly that length, each with `before` in front."""
    before, at = before if len(before) < length else [], 0
    while at < len(ids):
        head = [] if ids[at : at + len(before)] == before else before
        row = [*head, *ids[at : at + length - len(head)]]
        if len(row) < length:
            return
        yield row
        at += length - len(head)


def _pieces(documents: Sequence[Document]) -> Iterator[Document]:
    for document in documents:
        if isinstance(document, str):
            yield from (document[start : start + PIECE] for start in range(0, len(document), PIECE))
        else:
            yield document


def check_documents(
    documents: Sequence[Document], checkpoint: Checkpoint, resolved: Resolved, length: int, windows: int, seed: int
) -> None:
    """Raises InputError where `cut_windows` would, before any work."""
    template = resolved.chat_template(DATE)
    try:
        tokenizer = Tokenizer(checkpoint.files["tokenizer.json"])
        cut_windows(documents, tokenizer, template, checkpoint.config.vocab, windows, length, seed)
    finally:
        if template:
            template.close()
