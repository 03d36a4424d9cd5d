"""plan.json: plans of the harness, refused ones too, and what execute.py makes of those that can be executed.

plan      the file's text, as the host writes it: one line, sorted keys
accepted  whether it can be read; `why` not
digest    that the result names as `plan`: SHA-256 of the file
engine    of the toy below: vocab, capacity, chunk, forgets, cold, nan
result    the result file's object without what the machine gives: artifact, waiting, versions, system, cpu, seconds,
          memory_before_load and memory; and, where the plan asks for loads, without `loads`
error     true where executing it is refused, as the engine cannot do it; `refused`: what

The toy engine. A cache holds tokens t0, t1, …; h = 1, then for each token h = (31 h + t + 7) mod 65521. The logits
behind it are ((13 h (v + 1) + v²) mod 1009 - 504) / 16 for each token v, exact in float32, a zero being -0.0 where v is
odd. Where nan is [p, v], logit v behind the token at position p is NaN. `forgets` as in chat.json; chunk is a trait
without effect; it has no presets, shows no cache and its runtime is "toy". Where `tokenizer` is there, it has one of
that name: the ids of a string are the bytes of its UTF-8 modulo `vocab`, around it comes id 1 in front, and their text
has for each the letter of that number modulo 26, from a on; it refuses strings that begin with "!". Its clock begins at
0 and moves with each token fed by 1 + p // 8 times 1/512 s (1,953,125 ns), p being the token's position, by 8 times
that with each of the first `cold` tokens, and in no other way: so all times are exact. After loads it is at 0 again,
and `cold` counts anew.
Log-sum-exps may differ by 1e-9.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np

from smolship.runtime import execute as executor
from smolship.runtime.errors import InputError
from smolship.runtime.files import parse_json
from smolship.runtime.generate import Generation, Sampling, generate
from smolship.runtime.plan import Answer, Call, Plan, Text, Timing
from smolship.runtime.records import read_record, to_json
from smolship.runtime.session import Session
from smolship.runtime.timing import loaded, phases, timed
from tests.apps.plan_refused import REFUSED

GIVEN_BY_MACHINE = (
    "artifact",
    "waiting",
    "versions",
    "system",
    "cpu",
    "seconds",
    "memory_before_load",
    "memory",
    "loads",
)
ENGINE = {"vocab": 40, "capacity": 64, "chunk": None, "forgets": None, "cold": 0, "nan": None}
Case = dict[str, Any]


@dataclass
class ToyTokenizer:
    name: str
    vocab: int

    def encode(self, text: str, special: bool = True) -> list[int] | None:
        if text.startswith("!"):
            return None
        return [1] * special + [byte % self.vocab for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(ord("a") + one % 26) for one in ids)


class Toy(Session):
    runtime = "toy"

    def __init__(self, engine: dict[str, Any]):
        super().__init__(engine["vocab"], engine["capacity"])
        self.chunk, self.forgets, self.cold, self.nan = (engine[k] for k in ("chunk", "forgets", "cold", "nan"))
        self.states = [1]  # behind 0, 1, … tokens
        self.fed, self.ticks, self.reached = 0, 0, 0
        if name := engine.get("tokenizer"):
            self.tokenizer = ToyTokenizer(name, self.vocab)

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        del self.states[position + 1 :]
        for token in ids.tolist():
            self.ticks += (8 if self.fed < self.cold else 1) * (1 + (len(self.states) - 1) // 8)
            self.fed += 1
            self.states.append((31 * self.states[-1] + token + 7) % 65521)
        last = len(self.states) - 1
        self.reached = max(self.reached if position else 0, last)
        v = np.arange(self.vocab)
        logits = ((13 * self.states[-1] * (v + 1) + v * v) % 1009 - 504).astype(np.float32) / 16
        logits[(logits == 0) & (v % 2 == 1)] = -0.0
        if self.nan and self.nan[0] == last - 1:
            logits[self.nan[1]] = np.nan
        return logits

    @property
    def earliest(self) -> int:
        return 0 if self.forgets is None else max(self.reached - self.forgets, 0)

    def clock(self) -> float:
        return self.ticks / 512

    def close(self) -> None:
        pass


def case(name: str, plan: Plan, **engine: Any) -> Case:
    raw, toy = to_json(plan), ENGINE | engine
    assert plan.digest == hashlib.sha256(raw).hexdigest()
    head = {"name": name, "plan": raw.decode(), "accepted": True, "digest": plan.digest, "engine": toy}
    try:
        return head | {"result": _executed(plan, toy)}
    except InputError as error:
        return head | {"error": True, "refused": error.parts()["what"]}


def _executed(plan: Plan, engine: dict[str, Any]) -> dict[str, Any]:
    loads = None
    session: Any = Toy(engine)
    if plan.loads:
        session, loads = loaded(lambda: Toy(engine), [], 0.0)
        session.ticks = session.fed = 0

    def generated(*args: Any, **kwargs: Any) -> Generation:
        return generate(*args, **kwargs, clock=session.clock)

    with (
        patch.object(executor, "timed", lambda *args: timed(*args, clock=session.clock)),
        patch.object(executor, "generate", generated),
    ):
        result = executor.execute(plan, session, "")
    result.loads = loads
    result.answers(plan)
    return {key: value for key, value in json.loads(to_json(result)).items() if key not in GIVEN_BY_MACHINE}


def refused(name: str, text: str) -> Case:
    try:
        read_record(Plan, parse_json(text, "plan", "plan.json"), "plan", todo="make it again")
    except InputError as error:
        return {"name": name, "plan": text, "accepted": False, "why": error.parts()["what"]}
    raise AssertionError(f"{name}: accepted")


def cases() -> list[Case]:
    good = json.loads(to_json(made(*CALLS, texts=(TEXT, SPARSE))))
    return accepted() + [refused(name, change(good)) for name, change in REFUSED.items()]


def _ids(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, ENGINE["vocab"], count).astype(np.int32)


def _text(seed: int, count: int, at: Sequence[int], wanted: int) -> Text:
    rows = np.random.default_rng(seed + 1).integers(0, ENGINE["vocab"], (len(at), wanted)).astype(np.int32)
    return Text(_ids(seed, count), np.array(at, np.int32), rows)


TEXT = _text(4, 40, range(40), 3)
SPARSE = _text(6, 40, (5, 6, 30), 2)
CALLS = (
    Call("prompt", 0, 0, 7, rewind=0),
    Call("single tokens", 0, 7, 12, "all", exact=True),
    Call("unseen", 0, 12, 20, "none"),
    Call("rewound", 0, 3, 9, "all", rewind=3),
    Call("of another text", 1, 9, 31),
    Call("greedy", 0, 31, 36, "all", greedy=True),
)


STRINGS = ("", "a", "e\u0301 é", "\u2028\x7f\u0000", "👍🏽\uffff", "!refused", 'two\nlines\t"\\/')


def made(*calls: Call, texts: tuple[Text, ...] = (TEXT,), **more: Any) -> Plan:
    return Plan("parity", "toy", "toy", {"file": "model.toy", "context": 64}, 2, texts=texts, calls=calls, **more)


def asked(
    prompt: int, max_tokens: int, stops: Sequence[int] = (), sampling: Sampling = Sampling(), **more: Any
) -> Plan:
    answer = Answer(max_tokens, np.array(stops, np.int32), sampling)
    return made(texts=(Text.plain(_ids(8, prompt)),), answer=answer, **more)


def accepted() -> list[Case]:
    block = np.ones((2, 3, 1, 4), np.float32)
    again = tuple(Call("again", 0, 0, 5, rewind=0, exact=True) for _ in range(2))
    ids, timing = phases(Toy(ENGINE).traits, 3, 4, 2)
    bench = made(texts=(Text.plain(ids),), timing=timing)
    cool = replace(timing, warmups=3, sustained=0)
    short = made(texts=(TEXT,), timing=Timing((1, 5, 5), (3,), 4, 2))
    return [
        case("nothing asked: the traits", made(texts=())),
        case("calls of every kind", made(*CALLS, texts=(TEXT, SPARSE))),
        case("calls of every kind, in chunks", made(*CALLS, texts=(TEXT, SPARSE)), chunk=4),
        case("the same twice is the same", made(*again)),
        case(
            "some positions wanted",
            made(Call("a", 0, 0, 40, "all"), Call("b", 0, 4, 7, "all", rewind=4), texts=(SPARSE,)),
        ),
        case(
            "the wanted ones alone",
            made(Call("a", 0, 0, 5, "none"), Call("b", 0, 5, 7, "all", exact=True), texts=(SPARSE,)),
        ),
        case("greedy from the first call", made(Call("a", 0, 0, 4, "none"), Call("b", 0, 4, 24, "all", greedy=True))),
        case("to the end of the context", made(Call("a", 0, 0, 40), Call("b", 0, 0, 24, "all", greedy=False))),
        case("a logit that is no number", made(Call("a", 0, 0, 6, "all", exact=True)), nan=[3, 17]),
        case(
            "greedy over a logit that is no number",
            made(Call("a", 0, 0, 4), Call("b", 0, 4, 8, "all", greedy=True)),
            nan=[3, 17],
        ),
        case("keys and values: not shown", made(Call("a", 0, 0, 4), layers=2)),
        case("loads alone", made(texts=(), loads=True)),
        case("loads, then a call", made(Call("a", 0, 0, 5, exact=True), loads=True)),
        case("an arithmetic", made(Call("a", 0, 0, 5), arithmetic="fp16")),
        case("times", short),
        case("times of a bench", bench, cold=200),
        case("times of a bench, warm-ups that do not agree", made(texts=bench.texts, timing=cool), cold=200),
        case("times after calls", made(Call("a", 0, 0, 9), texts=(TEXT,), timing=short.timing)),
        case("an answer", asked(5, 12)),
        case("an answer that stops", asked(5, 30, [3, 4, 5, 6, 7, 8, 9])),
        case("an answer up to the end of the context", asked(40, 60)),
        case("an answer by sampling of one", asked(5, 8, sampling=Sampling(0.7, 0.9, 1, 0.1, 1.2, 5))),
        case("an answer with a penalty", asked(5, 20, sampling=Sampling(repetition_penalty=4.0))),
        case("an answer after loads", asked(5, 4, loads=True)),
        case(
            "an engine that forgets, rewound as far as it can",
            made(Call("a", 0, 0, 20), Call("b", 0, 12, 16, rewind=12)),
            forgets=8,
        ),
        case("an engine that forgets, begun anew", made(Call("a", 0, 0, 20), Call("b", 0, 0, 16, rewind=0)), forgets=8),
        case(
            "rewound too far for one that forgets", made(Call("a", 0, 0, 20), Call("b", 0, 0, 16, rewind=11)), forgets=8
        ),
        case("rewound beyond its position", made(Call("a", 0, 0, 5), Call("b", 0, 0, 5, rewind=6))),
        case("longer than the context", made(Call("a", 0, 0, 40), Call("b", 0, 0, 40))),
        case("longer than the context by single tokens", made(Call("a", 0, 0, 40), Call("b", 0, 0, 25, "all"))),
        case("a prompt longer than the context", asked(65, 4)),
        case("a token that the model has not", made(Call("a", 0, 0, 5)), vocab=30),
        case(
            "a wanted one that the model has not",
            made(texts=(Text(np.zeros(1, np.int32), np.zeros(1, np.int32), np.array([[40]], np.int32)),)),
        ),
        case("a tokenizer's traits", made(texts=()), tokenizer="toy's own"),
        case("strings", made(texts=(), strings=STRINGS), tokenizer="toy's own"),
        case("strings, behind calls", made(Call("a", 0, 0, 4), strings=("ab",)), tokenizer="toy's own"),
        case("strings without a tokenizer", made(texts=(), strings=("ab",))),
        case("a preset", made(Call("a", 0, 0, 5, preset=3), cache=(block,))),
        case("an answer of no numbers", asked(5, 4), nan=[6, 3]),
    ]
