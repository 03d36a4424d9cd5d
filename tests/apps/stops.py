"""stops.json: how an answer ends, as generate.generate has it.

prompt        tokens that are fed first (ids 1, 1, …)
capacity      tokens that the cache holds
ids           the largest logit's token of each forward in turn; null: its logits are NaN
stops         ids that end an answer
max_tokens    null: no bound
breaks_after  the consumer takes that many tokens and no more
end, kept, stop_id  of the answer; "error": true where it is refused, after the tokens `kept`
position      tokens in the cache at the end; the last token is never fed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from smolship.runtime.errors import InputError
from smolship.runtime.generate import generate
from smolship.runtime.session import Session

VOCAB = 50


class Says(Session):
    """Puts the largest logit on the given tokens in turn."""

    def __init__(self, ids: Sequence[int | None], capacity: int, vocab: int = VOCAB):
        super().__init__(vocab, capacity)
        self.ids = iter(ids)

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        wanted, logits = next(self.ids), np.zeros(self.vocab, np.float32)
        if wanted is None:
            return logits * np.float32("nan")
        logits[wanted] = 1
        return logits

    def close(self) -> None:
        pass


def case(
    name: str,
    ids: Sequence[int | None],
    stops: Sequence[int] = (),
    max_tokens: int | None = None,
    capacity: int = 64,
    prompt: int = 3,
    breaks_after: int | None = None,
) -> dict[str, Any]:
    session = Says(ids, capacity)
    head = {
        "name": name,
        "prompt": prompt,
        "capacity": capacity,
        "ids": list(ids),
        "stops": list(stops),
        "max_tokens": max_tokens,
    }
    if breaks_after is not None:
        head["breaks_after"] = breaks_after
    kept: list[int] = []
    try:
        generation = generate(session, [1] * prompt, max_tokens, stops)
        for token in generation:
            kept.append(token)
            if len(kept) == breaks_after:
                break
    except InputError:
        return head | {"error": True, "kept": kept, "position": session.position}
    return head | {
        "end": generation.end,
        "kept": generation.ids,
        "stop_id": generation.stop_id,
        "position": session.position,
    }


def cases() -> list[dict[str, Any]]:
    return [
        case("a stop token", [5, 6, 7, 2], [2]),
        case("the second of several", [5, 6, 9, 2], [2, 9]),
        case("at once", [2], [2]),
        case("a stop token counts as no token", [5, 2], [2], max_tokens=2),
        case("max_tokens before the stop token", [5, 6, 2], [2], max_tokens=2),
        case("max_tokens 1", [5, 6], [2], max_tokens=1),
        case("max_tokens 1 and a stop token", [2], [2], max_tokens=1),
        case("no stop tokens", [2, 2, 2, 2], max_tokens=4),
        case("the context is full", [5, 6, 7, 8], capacity=6),
        case("the context is full at the stop token", [5, 6, 7, 2], [2], capacity=6),
        case("the prompt fills the context: one token", [5, 6], capacity=3),
        case("the prompt fills the context: the stop token", [2], [2], capacity=3),
        case("max_tokens and the end of the context at once", [5, 6, 7, 8], max_tokens=4, capacity=6),
        case("max_tokens beyond the context", [5, 6, 7, 8], max_tokens=400, capacity=6),
        case("one token of context", [5], prompt=1, capacity=1),
        case("broken off", [5, 6, 7, 2], [2], breaks_after=2),
        case("broken off at the last of max_tokens", [5, 6, 7], [2], max_tokens=2, breaks_after=2),
        case("a prompt that does not fit", [5], prompt=4, capacity=3),
        case("an empty prompt", [5], prompt=0),
        case("max_tokens 0", [5], max_tokens=0),
        case("max_tokens -1", [5], max_tokens=-1),
        case("no numbers at once", [None]),
        case("no numbers later", [5, 6, None], [2]),
        case("a stop token that no model has", [5, 49, 7], [50, 1 << 20], max_tokens=3),
    ]
