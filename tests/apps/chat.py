"""chat.json: conversations as chat.Chat holds them, which feeds only what the cache does not hold yet.

The tokenizer has an id for each byte of UTF-8, and 256, an empty text, which ends answers. The template is `program`
(template.json's object; a text: source_sha256 of an earlier case's program), rendered with `special_tokens`,
`variables` and `date`, add_generation_prompt true, tools and documents null. The engine says `answer_ids` of the turn
in turn, by forwards of whatever length: the logit of that id is 1, all others 0. It has `capacity` tokens of cache.
`forgets`: null, or tokens behind its position that it can still rewind to (`earliest` is the largest position ever
reached since position 0, minus that, and at least 0).

turns  each with `text`, `max_tokens` (null: no bound), `breaks_after` (null, or tokens after which the consumer takes
       no more), `reset`: a new conversation begins first; and what comes of it:
       answer, end  the text, and why it ended; or "error": true, where nothing has changed
fed    token ids fed in each turn, those of the answer too
reused tokens of each turn's prompt that were in the cache already
messages  at the end: role and content
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from smolship.export.portable import compile_template
from smolship.runtime.chat import Chat
from smolship.runtime.errors import InputError
from smolship.runtime.session import Session
from smolship.runtime.template import ChatTemplate
from tests.runtime.fakes import SMOLLM2, THINKING

END = 256
DATE = "2026-01-31"
REFUSES = (
    "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}{% endfor %}"
)
BOS = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{{ eos_token }}{% endfor %}[assistant]"
Case = dict[str, Any]


class Bytes:
    """The tokenizer."""

    def encode(self, text: str, special: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(one for one in ids if one != END).decode(errors="replace")

    def stream(self) -> BytesStream:
        return BytesStream()


class BytesStream:
    def __init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self.decoder.decode(bytes([token][: token != END]))

    def finish(self) -> str:
        return self.decoder.decode(b"", final=True)


class Scripted(Session):
    """The engine."""

    def __init__(self, capacity: int, forgets: int | None):
        super().__init__(END + 1, capacity)
        self.forgets, self.reached, self.script, self.fed = forgets, 0, iter(()), []

    def says(self, ids: Sequence[int]) -> None:
        self.script, self.fed = iter(ids), []

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        self.fed += ids.tolist()
        self.reached = max(self.reached if position else 0, position + len(ids))
        logits = np.zeros(self.vocab, np.float32)
        logits[next(self.script)] = 1
        return logits

    @property
    def earliest(self) -> int:
        return 0 if self.forgets is None else max(self.reached - self.forgets, 0)

    def close(self) -> None:
        pass


def turn(text: str, answer: str | Sequence[int], **more: Any) -> Case:
    """A turn whose answer the engine ends, where nothing else does."""
    said = [*answer.encode(), END] if isinstance(answer, str) else list(answer)
    return {"text": text, "answer_ids": said, "max_tokens": None, "breaks_after": None, "reset": False} | more


def case(
    name: str,
    template: str,
    turns: list[Case],
    system: str | None = None,
    capacity: int = 4096,
    forgets: int | None = None,
    special_tokens: dict[str, str] | None = None,
    **variables: Any,
) -> Case:
    session = Scripted(capacity, forgets)
    renderer = ChatTemplate(template, special_tokens, DATE)
    chat = Chat(session, Bytes(), renderer, [END], system=system, **variables)  # type: ignore[arg-type]
    fed, reused, told = [], [], []
    for one in turns:
        session.says(one["answer_ids"])
        told.append(one | _asked(chat, one))
        fed.append(list(session.fed))
        reused.append(chat.reused if "end" in told[-1] else 0)
    renderer.close()
    return {
        "name": name,
        "program": compile_template(template),
        "date": DATE,
        "special_tokens": special_tokens or {},
        "variables": variables,
        "system": system,
        "capacity": capacity,
        "forgets": forgets,
        "stops": [END],
        "turns": told,
        "fed": fed,
        "reused": reused,
        "messages": [{"role": one["role"], "content": one["content"]} for one in chat.messages],
    }


def _asked(chat: Chat, one: Case) -> Case:
    if one["reset"]:
        chat.reset()
    try:
        answer = chat.ask(one["text"], one["max_tokens"])
        for count, _ in enumerate(answer, 1):
            if count == one["breaks_after"]:
                answer.close()
                break
    except InputError:
        return {"error": True}
    assert answer.generation
    return {"answer": answer.text, "end": answer.generation.end}


def cases() -> list[Case]:
    thought = "<think>\nthe fox\n</think>\nGood boy."
    found = [
        case("two turns", SMOLLM2, [turn("Hello", "Hi!"), turn("Who are you?", "A model."), turn("", "?")]),
        case("a system prompt", SMOLLM2, [turn("Hello", "Hi!"), turn("Bye", "Bye.")], system="Be kind."),
        case("thinking of earlier turns is dropped", THINKING, [turn(f"Say {i}", thought) for i in range(3)]),
        case("without thinking", THINKING, [turn("Hello", "Hi."), turn("Again", "Hi again.")], enable_thinking=False),
        case("thinking off by a flag", THINKING, [turn("Hello", "Hi."), turn("?", "!")], system="Short. /no_think"),
        case("emoji and accents", SMOLLM2, [turn("👍🏽 Zoë", "日本 e\u0301 👩‍👩‍👧"), turn("é", "é\r\n")]),
        case("an answer that is no text", SMOLLM2, [turn("Hi", [0xF0, 0x9F, 65, 0xFF, END]), turn("And?", "So.")]),
        case("an answer that ends within a character", SMOLLM2, [turn("Hi", [65, 0xE6, 0x97, END]), turn("?", "!")]),
        case("an empty answer", SMOLLM2, [turn("Hi", ""), turn("Hello?", "Yes.")]),
        case("max_tokens", SMOLLM2, [turn("Hi", "A long answer", max_tokens=6), turn("Go on", "er", max_tokens=3)]),
        case("broken off", SMOLLM2, [turn("Hi", "A long answer", breaks_after=4), turn("Go on", "ok")]),
        case("a new conversation", SMOLLM2, [turn("Hi", "A."), turn("Hi", "B.", reset=True), turn("Hi", "C.")]),
        case(
            "a new conversation keeps its system prompt",
            SMOLLM2,
            [turn("Hi", "A."), turn("Ho", "B.", reset=True)],
            system="Be kind.",
        ),
        case("the same conversation again", SMOLLM2, [turn("Hi", "A."), turn("Hi", "A.", reset=True)]),
        case(
            "the context is full",
            SMOLLM2,
            [turn("Hi", "A long answer, longer than there is room"), turn("?", "!")],
            capacity=165,
        ),
        case(
            "too long a question: nothing has changed",
            SMOLLM2,
            [turn("Hi", "A."), turn("x" * 400, "B."), turn("Ho", "C.")],
            capacity=300,
        ),
        case("the template refuses", REFUSES, [turn("yes", "A."), turn("no", "B."), turn("yes", "C.")]),
        case(
            "special tokens",
            BOS,
            [turn(" a ", "b "), turn("c", "d")],
            special_tokens={"bos_token": "<s>", "eos_token": "</s>"},
        ),
        case(
            "an engine that forgets",
            SMOLLM2,
            [turn("Hi", "A."), turn("Ho", "B."), turn("Hi", "C.", reset=True)],
            forgets=20,
        ),
        case(
            "an engine that forgets what thinking took",
            THINKING,
            [turn(f"Say {i}", thought) for i in range(3)],
            forgets=30,
        ),
        case("an engine that forgets all", SMOLLM2, [turn("Hi", "A."), turn("Ho", "B.")], forgets=0),
    ]
    written: set[str] = set()
    for one in found:
        digest = one["program"]["source_sha256"]
        if digest in written:
            one["program"] = digest
        written.add(digest)
    return found
