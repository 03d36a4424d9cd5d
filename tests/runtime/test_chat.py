"""Chat: whatever was asked, broken off or refused before, the answer is that of a new session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime.chat import Chat, common_prefix
from smolship.runtime.errors import InputError
from smolship.runtime.generate import Sampling
from smolship.runtime.template import ChatTemplate
from smolship.runtime.tokenizer import Tokenizer
from tests.conftest import make_tokenizer
from tests.runtime.fakes import SMOLLM2, THINKING, FakeSession, ScriptedSession

STOP = 2  # <|im_end|>
QUESTIONS = ["Hello", "Who are you? 👍", "", "日本語で <|im_end|> tell me more", "bye"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder, 300)
    return Tokenizer(folder / "tokenizer.json")


@pytest.fixture(scope="module", params=[SMOLLM2, THINKING], ids=["smollm2", "thinking"])
def template(request: pytest.FixtureRequest) -> ChatTemplate:
    return ChatTemplate(request.param, date="2026-01-31")


def rendered(chat: Chat, messages: list[dict[str, Any]]) -> list[int]:
    return chat.tokenizer.encode(chat.template.render(messages, **chat.variables), special=False)


def cold(chat: Chat, question: str, max_tokens: int | None) -> str:
    """The answer of a new session to the same conversation."""
    other = Chat(
        FakeSession(capacity=chat.session.capacity, stop=STOP),
        chat.tokenizer,
        chat.template,
        [STOP],
        chat.sampling,
        **chat.variables,
    )
    other.messages = list(chat.messages)
    return "".join(other.ask(question, max_tokens))


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.8, repetition_penalty=1.3, seed=3)])
def test_every_turn_is_that_of_a_cold_session(
    tokenizer: Tokenizer, template: ChatTemplate, sampling: Sampling, chunk: int | None
) -> None:
    session = FakeSession(capacity=2048, stop=STOP, chunk=chunk)
    chat = Chat(session, tokenizer, template, [STOP], sampling, system="Be kind.")
    for turn, question in enumerate(QUESTIONS):
        wanted = cold(chat, question, 30)
        asked = [*chat.messages, {"role": "user", "content": question}]
        fed = session.fed
        answer = chat.ask(question, 30)
        assert "".join(answer) == wanted == answer.text
        assert chat.messages == [*asked, {"role": "assistant", "content": wanted}]
        assert answer.generation is not None
        prompt = rendered(chat, asked)
        assert session.held == (prompt + answer.generation.ids)[: session.position]  # the cache is what was rendered
        assert session.position >= len(prompt)
        assert chat.reused == len(prompt) - answer.generation.prompt_tokens
        assert chat.reused > 0 or turn == 0
        assert session.fed - fed == session.position - chat.reused  # and nothing was fed twice


def test_earlier_thinking_leaves_the_cache(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(THINKING, date="2026-01-31")
    spoken = ["<think>\nthe fox\n</think>\nGood boy.", "<think>\nlazy\n</think>\nThe dog."]
    scripts = [[*tokenizer.encode(text), STOP] for text in spoken]
    session = ScriptedSession(scripts, capacity=2048)
    chat = Chat(session, tokenizer, template, [STOP])
    assert ["".join(chat.ask(q)) for q in ("one", "two")] == spoken
    content = tokenizer.decode(session.held, skip_special=False)
    assert "the fox" not in content and "Good boy." in content and "lazy" in content
    first = rendered(chat, chat.messages[:1])
    assert chat.reused == len(first)  # up to where the first answer's thinking began


def test_an_answer_that_stays_is_not_fed_again(tokenizer: Tokenizer) -> None:
    scripts = [[*tokenizer.encode("Good boy."), STOP], [*tokenizer.encode("The fox."), STOP]]
    session = ScriptedSession(scripts, capacity=2048)
    chat = Chat(session, tokenizer, ChatTemplate(SMOLLM2), [STOP])
    list(chat.ask("one"))
    held = session.position
    list(chat.ask("two"))
    assert chat.reused == held


def test_variables_reach_the_template(tokenizer: Tokenizer) -> None:
    session = FakeSession(capacity=2048, stop=STOP)
    chat = Chat(session, tokenizer, ChatTemplate(THINKING), [STOP], enable_thinking=False)
    list(chat.ask("Hi", 3))
    assert "<think>\n\n</think>" in tokenizer.decode(session.held)


def test_the_same_conversation_again_feeds_one_token(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    chat = Chat(FakeSession(capacity=1024, stop=STOP), tokenizer, template, [STOP])
    first = "".join(chat.ask("Hello", 20))
    chat.reset()
    assert chat.messages == []
    again = chat.ask("Hello", 20)
    assert "".join(again) == first
    assert again.generation is not None and again.generation.prompt_tokens == 1


def test_too_long_a_conversation_changes_nothing(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    session = FakeSession(capacity=400, stop=STOP)
    chat = Chat(session, tokenizer, template, [STOP], system="Short.")
    list(chat.ask("Hello", 10))
    messages, held, reused = list(chat.messages), session.held, chat.reused
    with pytest.raises(InputError, match="longer than the context"):
        chat.ask("long " * 400, 10)
    assert (chat.messages, session.held, chat.reused) == (messages, held, reused)
    wanted = cold(chat, "short", 10)
    assert "".join(chat.ask("short", 10)) == wanted


def test_a_refusing_template_changes_nothing(tokenizer: Tokenizer) -> None:
    refuses = "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}" + SMOLLM2
    chat = Chat(FakeSession(stop=STOP), tokenizer, ChatTemplate(refuses), [STOP])
    list(chat.ask("Hello", 10))
    messages = list(chat.messages)
    with pytest.raises(InputError, match="too many"):
        chat.ask("more", 10)
    assert chat.messages == messages
    with pytest.raises(InputError, match="renders nothing"):
        Chat(FakeSession(), tokenizer, ChatTemplate(""), [STOP]).ask("Hello")


def test_a_full_context_ends_the_answer(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    session = FakeSession(capacity=1024)
    chat = Chat(session, tokenizer, template, [])
    answer = chat.ask("Hello")
    list(answer)
    assert answer.generation is not None and answer.generation.end == "context"
    assert session.position == 1024 and len(chat.messages) == 2


def interrupted(at: int) -> Callable[[int, int], None]:
    """Ctrl-C in the at-th forward, once."""
    count = [0]

    def run(tokens: int, position: int) -> None:
        count[0] += 1
        if count[0] == at:
            raise KeyboardInterrupt

    return run


@pytest.mark.parametrize("at", [1, 2, 6])
def test_ctrl_c_keeps_what_was_said(tokenizer: Tokenizer, template: ChatTemplate, at: int) -> None:
    session = FakeSession(capacity=2048, on_run=interrupted(at))
    chat = Chat(session, tokenizer, template, [STOP])
    answer = chat.ask("Hello", 20)
    pieces = []
    with pytest.raises(KeyboardInterrupt):
        for piece in answer:
            pieces.append(piece)
    if at == 1:  # during the prefill: nothing was said
        assert chat.messages == []
    else:
        assert answer.generation is not None and len(answer.generation.ids) == at - 1
        assert chat.messages[1] == {"role": "assistant", "content": answer.text}
        assert answer.text.startswith("".join(pieces))
    session.stop = STOP
    wanted = cold(chat, "go on", 20)
    assert "".join(chat.ask("go on", 20)) == wanted


def test_ctrl_c_during_a_prefill_in_chunks_reuses_the_chunks_that_were_fed(tokenizer: Tokenizer) -> None:
    session = FakeSession(capacity=1024, chunk=8, stop=STOP, on_run=interrupted(3))
    chat = Chat(session, tokenizer, ChatTemplate(SMOLLM2), [STOP])
    with pytest.raises(KeyboardInterrupt):
        list(chat.ask("Hello"))
    assert session.position == 16
    wanted = cold(chat, "Hello", 20)
    assert "".join(chat.ask("Hello", 20)) == wanted and chat.reused == 16


@pytest.mark.parametrize("how", ["close", "next question", "dropped"])
def test_an_answer_broken_off_joins_the_conversation(tokenizer: Tokenizer, template: ChatTemplate, how: str) -> None:
    session = FakeSession(capacity=2048)
    chat = Chat(session, tokenizer, template, [STOP])
    answer = chat.ask("Hello", 20)
    said = next(answer) + next(answer)
    if how == "close":
        answer.close()
    session.stop = STOP
    if how == "dropped":
        del answer
    again = chat.ask("And?", 20)
    assert [m["role"] for m in chat.messages] == ["user", "assistant"]
    assert chat.messages[1]["content"].startswith(said)
    wanted = cold(chat, "And?", 20)
    assert "".join(again) == wanted


def test_an_answer_never_begun_leaves_no_trace(tokenizer: Tokenizer, template: ChatTemplate) -> None:
    chat = Chat(FakeSession(capacity=1024, stop=STOP), tokenizer, template, [STOP])
    old = chat.ask("Hello")
    list(chat.ask("Bye", 5))
    assert list(old) == [] and [m["content"] for m in chat.messages[:1]] == ["Bye"]


def test_an_empty_answer_is_an_answer(tokenizer: Tokenizer) -> None:
    chat = Chat(ScriptedSession([[STOP]], capacity=512), tokenizer, ChatTemplate(SMOLLM2), [STOP])
    assert "".join(chat.ask("Hello")) == ""
    assert chat.messages[1] == {"role": "assistant", "content": ""}


def test_a_session_used_before_is_rewound(tokenizer: Tokenizer, tmp_path: Path) -> None:
    session = FakeSession(capacity=1024, stop=STOP)
    session.forward([5, 6, 7])
    chat = Chat(session, tokenizer, ChatTemplate(SMOLLM2), [STOP])
    wanted = cold(chat, "Hello", 20)
    assert "".join(chat.ask("Hello", 20)) == wanted and chat.reused == 0


def test_common_prefix() -> None:
    assert [common_prefix(a, [1, 2, 3]) for a in ([], [1], [1, 9, 3], [1, 2, 3, 4], [9])] == [0, 1, 1, 3, 0]
