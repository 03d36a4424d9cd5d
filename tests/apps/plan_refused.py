"""Plans that cannot be read: what is changed of a good one, and how its text then reads."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

Change = Callable[[dict[str, Any]], str]
TABLE = "texts.0.wanted"
TIMING = {"prompts": [4], "depths": [2], "tokens": 4, "repeats": 2, "warmups": 0, "sustained": 0}
SAMPLING = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": None}
ANSWER = {"max_tokens": 4, "stop_ids": [2], "sampling": SAMPLING}
MINUS_ONES = base64.b64encode(b"\xff" * 160).decode()
ONE_TEXT = {"texts": [{"ids": [1, 2, 3, 4], "at": [], "wanted": {"dtype": "int32", "shape": [0, 0], "base64": ""}}]}


def put(place: str, value: Any) -> Change:
    """With another value at "a.b.0"."""

    def change(plan: dict[str, Any]) -> str:
        plan = json.loads(json.dumps(plan))
        parent: Any = plan
        *way, last = place.split(".")
        for key in way:
            parent = parent[int(key) if isinstance(parent, list) else key]
        parent[int(last) if isinstance(parent, list) else last] = value
        return dumped(plan)

    return change


def without(key: str) -> Change:
    return lambda plan: dumped({name: value for name, value in plan.items() if name != key})


def timing(**changes: Any) -> Change:
    return put("timing", TIMING | changes)


def answer(**changes: Any) -> Change:
    return lambda plan: dumped(plan | ONE_TEXT | {"calls": [], "answer": ANSWER | changes})


def dumped(plan: dict[str, Any]) -> str:
    return json.dumps(plan, separators=(",", ":"), sort_keys=True) + "\n"


def call(**changes: Any) -> Change:
    return lambda plan: put("calls.1", plan["calls"][1] | changes)(plan)


REFUSED: dict[str, Change] = {
    "schema 2": put("schema", 2),
    "no schema": without("schema"),
    "an unknown key": put("surprise", 1),
    "an unknown key of a call": call(surprise=1),
    "an unknown key of a text": put("texts.0.surprise", 1),
    "an unknown purpose": put("purpose", "fun"),
    "no texts": without("texts"),
    "no calls": without("calls"),
    "no loads": without("loads"),
    "loads is a number": put("loads", 1),
    "info is no object": put("info", []),
    "threads 0": put("threads", 0),
    "1,025 threads": put("threads", 1025),
    "threads as a float": put("threads", 2.0),
    "-1 layers": put("layers", -1),
    "too many layers": put("layers", (1 << 20) + 1),
    "a text without tokens": put("texts.0.ids", []),
    "a negative token": put("texts.0.ids.3", -1),
    "a token beyond 32 bits": put("texts.0.ids.3", 1 << 31),
    "a token as a float": put("texts.0.ids.3", 1.0),
    "a token that is true": put("texts.0.ids.3", True),
    "positions not in order": put("texts.1.at", [6, 5, 30]),
    "a position twice": put("texts.1.at", [5, 5, 30]),
    "a position behind the text": put("texts.1.at", [5, 6, 40]),
    "a negative position": put("texts.1.at", [-1, 6, 30]),
    "fewer positions than rows": put("texts.1.at", [5, 6]),
    "a table as a list": put(TABLE, [[1, 2, 3]]),
    "a table of another type": put(f"{TABLE}.dtype", "int64"),
    "a table of another shape": put(f"{TABLE}.shape", [40, 4]),
    "a table of one dimension": put(f"{TABLE}.shape", [120]),
    "a table of negative size": put(f"{TABLE}.shape", [-40, -3]),
    "a table with more keys": put(f"{TABLE}.order", "C"),
    "a table that is no base64": put(f"{TABLE}.base64", "!!!!"),
    "a table that is broken off": put(f"{TABLE}.base64", "AAAAAA=="),
    "a wanted token that is negative": put(TABLE, {"dtype": "int32", "shape": [40, 1], "base64": MINUS_ONES}),
    "a call of a text that is not there": call(text=2),
    "a call of a negative text": call(text=-1),
    "a call of nothing": call(start=7, stop=7),
    "a call backwards": call(start=9, stop=7),
    "a call behind the text": call(stop=41),
    "a call before the text": call(start=-1),
    "a look that is none": call(look="some"),
    "a look is null": call(look=None),
    "rewound below 0": call(rewind=-1),
    "greedy at first": put("calls.0.greedy", True),
    "greedy, looked at in part": call(greedy=True, look="last"),
    "greedy and rewound": call(greedy=True, rewind=2),
    "a preset without cache": call(preset=3),
    "a stage is null": call(stage=None),
    "a cache of three parts": put("cache", [{"dtype": "float32", "shape": [3, 1, 1, 1], "base64": "AAAAAAAAAAAAAAAA"}]),
    "a cache of three dimensions": put("cache", [{"dtype": "float32", "shape": [2, 1, 1], "base64": "AAAAAAAAAAA="}]),
    "no strings": put("strings", []),
    "strings are a text": put("strings", "ab"),
    "a string is a number": put("strings", ["a", 1]),
    "a string of half a character": put("strings", ["\ud83d"]),
    "a string that is too long": put("strings", ["é" * (1 << 12) + "a"]),
    "too many strings": put("strings", [""] * ((1 << 12) + 1)),
    "strings and an answer": lambda plan: answer()(plan | {"strings": ["a"]}),
    "times of no prompts": timing(prompts=[]),
    "times of no depths": timing(depths=[]),
    "a prompt of no tokens": timing(prompts=[0]),
    "a prompt longer than the text": timing(prompts=[41]),
    "a depth behind the text": timing(depths=[41]),
    "no repeats": timing(repeats=0),
    "no tokens to decode": timing(tokens=0),
    "too many repeats": timing(repeats=(1 << 20) + 1),
    "warm-ups below 0": timing(warmups=-1),
    "sustained below 0": timing(sustained=-1),
    "repeats as a float": timing(repeats=2.5),
    "an answer of no tokens": answer(max_tokens=0),
    "an answer of too many tokens": answer(max_tokens=(1 << 20) + 1),
    "a negative stop token": answer(stop_ids=[-2]),
    "an answer with an odd sampling": answer(sampling=SAMPLING | {"top_p": 2.0}),
    "an answer beside calls": put("answer", ANSWER),
    "an answer of two texts": lambda plan: dumped(plan | {"calls": [], "answer": ANSWER}),
    "an answer beside times": lambda plan: dumped(plan | ONE_TEXT | {"calls": [], "answer": ANSWER, "timing": TIMING}),
    "an empty file": lambda plan: "",
    "a list": lambda plan: "[]\n",
    "broken off": lambda plan: dumped(plan)[:-30],
    "not a number": lambda plan: put("info.x", 0)(plan).replace('"x":0', '"x":NaN'),
}
