"""`generate` and `chat` say why an answer ended."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest

from smolship.runtime.bundle import Bundle
from smolship.tools.cli import run
from tests.runtime.fakes import FakeSession

STOP = 2  # <|im_end|>


class Scripted(FakeSession):
    """Says the letters of a word, one a step, then `last`: a token, or an exception."""

    def __init__(self, tokens: list[int], capacity: int = 128):
        super().__init__(vocab=300, capacity=capacity)
        self.tokens, self.start = tokens, 0

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        super()._run(ids, position)
        self.start = position + len(ids) if len(ids) > 1 else self.start
        token = self.tokens[min(position + len(ids) - self.start, len(self.tokens) - 1)]
        if token < 0:
            raise KeyboardInterrupt
        logits = np.zeros(self.vocab, np.float32)
        logits[token] = 9
        return logits


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """What a person types into a chat, before Ctrl-D."""
    left = iter(lines)

    def read(prompt: str) -> str:
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", read)


@pytest.fixture
def say(tiny_bundle, monkeypatch, capsys):
    """say(command, tokens, options) -> (exit code, standard output, standard error)."""
    folder = str(tiny_bundle("llama", "int4"))

    def ask(command, tokens, *options, capacity=128):
        monkeypatch.setattr(Bundle, "session", lambda self, target, threads: Scripted(tokens, capacity))
        typed(monkeypatch, "hi", "and?")
        code = run([command, folder, *(["hi"] if command == "generate" else []), *options])
        return code, *capsys.readouterr()

    return ask


LETTERS = [70, 71, 72]
ENDS = {
    "stop": ([*LETTERS, STOP], [], 128, "ended by the end token 2 <|im_end|>"),
    "max_tokens": (LETTERS, ["--max-tokens", "5"], 128, "ended by the token limit, --max-tokens"),
    "context": (LETTERS, ["--max-tokens", "500"], 128, "ended by a full context, 128 tokens"),
}


@pytest.mark.parametrize("end", ENDS)
def test_generate_says_why(say, end):
    tokens, options, capacity, words = ENDS[end]
    code, out, err = say("generate", tokens, *options, capacity=capacity)
    assert code == 0 and words in err and out.endswith("\n")
    code, out, err = say("generate", tokens, *options, "--json", capacity=capacity)
    said = json.loads(out)
    assert said["end"] == end and said["stop_id"] == (STOP if end == "stop" else None) and err == ""


@pytest.mark.parametrize("end", ["stop", "max_tokens"])
def test_chat_says_why_after_each_answer(say, end):
    tokens, options, capacity, words = ENDS[end]
    code, _, err = say("chat", tokens, *options, capacity=capacity)
    assert code == 0 and err.count(words) == 2 and err.count("reused]") == 2


def test_chat_says_that_the_context_is_full(say):
    """The second question no longer fits."""
    code, _, err = say("chat", LETTERS, "--max-tokens", "500")
    assert code == 0 and "ended by a full context, 128 tokens" in err and "longer than the context" in err


def test_an_end_at_once_is_said(say):
    code, out, err = say("generate", [STOP])
    assert (code, out) == (0, "\n") and "ended by the end token" in err
    code, out, err = say("chat", [STOP])
    assert code == 0 and err.count("ended by the end token") == 2


def test_ctrl_c_in_a_chat_ends_the_answer_alone(say):
    code, out, err = say("chat", [*LETTERS, -1])
    assert code == 0 and err.count("[interrupted; ") == 2 and "smolship: interrupted" not in err
    assert len(out.splitlines()) == 3  # two answers as far as they came, and the end
    code, _, err = say("chat", [-1])  # during the prefill
    assert code == 0 and err.count("[interrupted; ") == 2


def test_ctrl_c_ends_generate_after_what_was_said(say):
    code, out, err = say("generate", [*LETTERS, -1])
    assert code == 130 and out.endswith("\n") and len(out) > 1
    assert err.index("[interrupted; ") < err.index("smolship: interrupted")
    code, out, err = say("generate", [-1])
    assert code == 130 and out == "" and "smolship: interrupted" in err
    code, out, err = say("generate", [*LETTERS, -1], "--json")
    assert code == 130 and json.loads(out)["error"]["kind"] == "interrupted"
