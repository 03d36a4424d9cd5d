"""A conversation over one session, which feeds only what the cache does not hold yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from smolship.runtime.errors import InputError
from smolship.runtime.generate import Generation, Sampling, generate
from smolship.runtime.session import Session
from smolship.runtime.template import ChatTemplate, Message
from smolship.runtime.tokenizer import Tokenizer


class Chat:
    """Several turns over one session.

    Each turn renders the whole conversation, as the template wants it now (SmolLM3's drops the thinking of earlier
    turns), and compares its tokens with those in the cache. The cache is rewound to where they part, and fed the rest.
    So it always holds what a new session would be fed. Nothing else may use the session meanwhile.

    messages   the conversation: {"role", "content"}, the system prompt first
    reused     tokens of the last turn's prompt that were in the cache already
    variables  the template's own, such as enable_thinking=False
    """

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        stop_ids: Collection[int],
        sampling: Sampling = Sampling(),
        system: str | None = None,
        **variables: Any,
    ):
        self.session, self.tokenizer, self.template = session, tokenizer, template
        self.stop_ids, self.sampling, self.variables = stop_ids, sampling, variables
        self.messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        self.reused = 0
        self._system = list(self.messages)
        self._cached: list[int] = []  # what the session was fed; it holds them up to its position
        self._open: Answer | None = None

    def ask(
        self, text: str, max_tokens: int | None = None, *, clock: Callable[[], float] = time.perf_counter
    ) -> Answer:
        """Stream the answer to `text`. Question and answer join the conversation when the answer ends.

        An answer that is broken off (Ctrl-C, `close`, or the next question) joins it as far as it came; one without a
        token yet leaves no trace. Raises InputError where the conversation does not fit into the context, or the
        template refuses it; nothing has changed then.
        """
        if self._open:
            self._open.close()
        question = {"role": "user", "content": text}
        ids = self._prompt([*self.messages, question])
        self._open = Answer(self, question, ids, max_tokens, clock)
        return self._open

    def reset(self) -> None:
        """Begin a new conversation with the same system prompt. The cache is still reused where it can be."""
        if self._open:
            self._open.close()
        self.messages = list(self._system)

    def _prompt(self, messages: list[Message]) -> list[int]:
        """The tokens of a conversation up to where the answer begins."""
        rendered = self.template.render(messages, add_generation_prompt=True, **self.variables)
        ids = self.tokenizer.encode(rendered, special=False)
        if len(ids) > self.session.capacity:
            raise InputError(
                "the conversation is longer than the context",
                got=f"{len(ids):,} tokens",
                expected=f"at most {self.session.capacity:,}",
                todo="ask less at once, begin a new conversation, or export with a larger --context",
            )
        if not ids:
            raise InputError("the chat template renders nothing", got=messages)
        return ids

    def _rewind(self, ids: list[int]) -> list[int]:
        """Rewind the cache to what it shares with `ids`; returns what to feed, at least the last token."""
        shared = common_prefix(self._cached[: self.session.position], ids)
        self.reused = min(shared, len(ids) - 1)
        if self.reused < self.session.earliest:  # the state has forgotten so much
            self.reused = 0
        self.session.rewind(self.reused)
        self._cached = list(ids)
        return ids[self.reused :]


class Answer(Iterator[str]):
    """The answer to one question, piece by piece; `text` is what came so far. `generation` has its token ids, times,
    and why it ended."""

    def __init__(
        self, chat: Chat, question: Message, ids: list[int], max_tokens: int | None, clock: Callable[[], float]
    ):
        self.text = ""
        self.generation: Generation | None = None  # None until the first piece is asked for
        self._pieces = self._run(chat, question, ids, max_tokens, clock)

    def _run(
        self, chat: Chat, question: Message, ids: list[int], max_tokens: int | None, clock: Callable[[], float]
    ) -> Iterator[str]:
        feed = chat._rewind(ids)
        generation = self.generation = generate(
            chat.session, feed, max_tokens, chat.stop_ids, chat.sampling, before=ids[: chat.reused], clock=clock
        )
        stream = chat.tokenizer.stream()
        try:
            for token in generation:
                chat._cached.append(token)
                yield self._add(stream.push(token))
            yield self._add(stream.finish())
        finally:
            if generation.ids or generation.end == "stop":
                self.text = chat.tokenizer.decode(generation.ids)
                chat.messages += [question, {"role": "assistant", "content": self.text}]

    def _add(self, piece: str) -> str:
        self.text += piece
        return piece

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Break the answer off."""
        self._pieces.close()  # type: ignore[attr-defined]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first items are equal."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
