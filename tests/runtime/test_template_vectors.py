"""The vectors of tests/vectors: what Python renders, code point for code point, or refuses."""

from __future__ import annotations

import json
import lzma
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime import template as module
from smolship.runtime import template_worker
from smolship.runtime.errors import InputError
from smolship.runtime.template import OUTPUT_CHARS, ChatTemplate

FILE = Path(__file__).parents[1] / "vectors" / "templates.json.xz"
Case = dict[str, Any]
Renderer = Callable[[Case], str | None]  # None: refused


@cache
def vectors() -> list[Case]:
    return json.loads(lzma.decompress(FILE.read_bytes()))


def here(case: Case) -> str | None:
    """In this process, without its limits: a process for each of them would take a minute."""
    try:
        template = template_worker.environment(case["date"]).from_string(case["template"])
        return template_worker.render(template, case["context"], OUTPUT_CHARS)
    except Exception:
        return None


def as_users_do(case: Case) -> str | None:
    template = ChatTemplate(case["template"], {}, case["date"])
    context = dict(case["context"])
    try:
        return template.render(context.pop("messages"), **context)
    except InputError:
        return None
    finally:
        template.close()


def verdict(case: Case, text: str | None) -> str:
    """equal, refused (rightly), lacking (refused, and allowed to be) or different."""
    if "expected" not in case:
        return "different" if text is not None else "refused"
    if text is None:
        return "lacking" if case.get("rare") else "different"
    return "equal" if text == case["expected"] else "different"


def judge(cases: list[Case], render: Renderer) -> Counter[str]:
    verdicts = {case["name"]: verdict(case, render(case)) for case in cases}
    counts = Counter(verdicts.values())
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    assert not [name for name, found in verdicts.items() if found == "different"]
    return counts


def test_every_vector_renders_as_python_does() -> None:
    counts = judge([case for case in vectors() if not case.get("limit")], here)
    assert counts == {"equal": 623, "refused": 193}


@pytest.mark.real
def test_a_sample_renders_alike_in_the_sandboxed_process() -> None:
    """Among them conversations with null contents: what `ChatTemplate.render` drops must not change them."""
    plain = [case for case in vectors() if not case.get("limit")]
    nulls = [case for case in plain if "null" in case["name"]]
    judge(random.Random(6).sample(plain, 24) + nulls, as_users_do)
    assert len(nulls) == 8


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.real)], ids=["some", "all"])
def test_what_knows_no_bound_is_refused_within_ours(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    monkeypatch.setattr(module, "CPU_S", 0)  # a second in all, for each of them
    limited = [case for case in vectors() if case.get("limit")]
    cases = limited[::every]
    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(as_users_do, cases))
    assert [case["name"] for case, text in zip(cases, texts, strict=True) if text is not None] == []
    assert len(limited) == 17
