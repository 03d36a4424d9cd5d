"""Dataclasses from JSON that nobody has checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from smolship.runtime.errors import InputError
from smolship.runtime.records import read_record


@dataclass
class Inner:
    name: str
    size: float | None


@dataclass
class Outer:
    count: int
    bits: Literal[4, 8]
    inner: Inner | None
    all: tuple[Inner, ...]
    by_name: dict[str, Inner]
    words: list[str]
    on: bool
    rest: Any


GOOD: dict[str, Any] = {
    "count": 3,
    "bits": 8,
    "inner": {"name": "a", "size": 1},
    "all": [{"name": "b", "size": None}, {"name": "c"}],
    "by_name": {"d": {"name": "d", "size": 0.5}},
    "words": ["e"],
    "on": True,
    "rest": {"anything": [1]},
}


def test_what_fits():
    found = read_record(Outer, GOOD, "a.json")
    b, c, d = Inner("b", None), Inner("c", None), Inner("d", 0.5)
    assert found == Outer(3, 8, Inner("a", 1.0), (b, c), {"d": d}, ["e"], True, {"anything": [1]})
    assert type(found.inner.size) is float  # type: ignore[union-attr]
    assert read_record(Outer, GOOD | {"inner": None, "rest": None}, "a.json").inner is None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"count": 3.0}, "a.json: count cannot be used"),
        ({"count": True}, "a.json: count"),
        ({"count": None}, "a.json: count"),
        ({"bits": 5}, "a.json: bits"),
        ({"bits": [4]}, "a.json: bits"),
        ({"on": 1}, "a.json: on"),
        ({"words": "e"}, "a.json: words"),
        ({"words": ["e", 7]}, "a.json: words[1]"),
        ({"inner": []}, "a.json: inner"),
        ({"inner": {}}, "a.json: inner.name"),
        ({"inner": {"name": "a", "size": "1"}}, "a.json: inner.size"),
        ({"inner": {"name": "a", "size": 10**400}}, "a.json: inner.size"),
        ({"inner": {"name": "a", "size": float("nan")}}, "a.json: inner.size"),
        ({"inner": {"name": "a", "other": 1}}, "a.json: inner has unknown keys"),
        ({"all": [{"name": "b"}, {"name": 1}]}, "a.json: all[1].name"),
        ({"by_name": {"d": 1}}, "a.json: by_name[d]"),
        ({"more": 1}, "a.json has unknown keys"),
    ],
)
def test_what_does_not(change, where):
    with pytest.raises(InputError, match=re.escape(where)):
        read_record(Outer, GOOD | change, "a.json")


@pytest.mark.parametrize("raw", [None, [], 3, "{}"])
def test_what_is_no_object(raw):
    with pytest.raises(InputError, match=r"a\.json: at\[3\] cannot be used"):
        read_record(Outer, raw, "a.json", "at[3]")


def test_unknown_keys_are_left_out_where_that_is_said():
    raw = GOOD | {"inner": {"name": "a", "size": 1, "other": 1}}
    assert read_record(Outer, raw, "a.json", lenient=(Inner,)) == read_record(Outer, GOOD, "a.json")
    with pytest.raises(InputError, match="unknown keys"):
        read_record(Outer, raw | {"more": 1}, "a.json", lenient=(Inner,))
