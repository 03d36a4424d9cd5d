"""Chat templates: equal to transformers' rendering, and harmless whatever they hold."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import Any

import pytest

from smolship.runtime import template as module
from smolship.runtime.errors import InputError
from smolship.runtime.template import ChatTemplate
from tests.runtime.fakes import SMOLLM2, THINKING

USER = {"role": "user", "content": "What is <b>2 & 3</b>?"}
ANSWER = {"role": "assistant", "content": "<think>\nHmm.\n</think>\n\nFive, 日本 👍."}
MORE = {"role": "user", "content": "  And 4?\n"}
SYSTEM = {"role": "system", "content": "Be brief. /no_think"}
TOOL = {"name": "add", "parameters": {"a": "<int>", "é": [1, 2.5, None, True]}}
CONVERSATIONS = {
    "one": [USER],
    "three": [USER, ANSWER, MORE],
    "system": [SYSTEM, USER, ANSWER, MORE],
    "override": [{"role": "system", "content": "Only this. /system_override"}, USER],
    "ends in an answer": [USER, ANSWER],
}
TEMPLATES = {
    "smollm2": SMOLLM2,
    "thinking": THINKING,
    "blocks": "  {% if true %}\n   a\n  {% endif %}\n{# note #}\n{{ bos_token }}{{ eos_token }}{{ missing }}!\n",
    "tojson": "{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ messages[0] | tojson(sort_keys=true) }}",
    "loops": "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "state": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
    "{{ dict(a=1) }}{{ dict.fromkeys(['k']) }}{{ tools is none }}{{ documents is none }}",
    "generation": "{% for m in messages %}{% generation %}\n  {{ m.content }}{% endgeneration %}\n{% endfor %}",
    "macro": "{% macro turn(m) %}[{{ m.role }}] {{ m['content'] | trim }}{% endmacro %}"
    "{% for m in messages[::-1] %}{{ turn(m) }}{{ '\\n' if not loop.last }}{% endfor %}",
}
SPECIAL = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_S", 0)  # a second in all for each process


@pytest.fixture(scope="module")
def theirs() -> Any:
    """transformers' own rendering, with the date pinned."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from transformers.utils import chat_template_utils

    class Pinned(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Pinned:
            return cls(2026, 1, 31)

    patch = pytest.MonkeyPatch()
    patch.setattr(chat_template_utils, "datetime", Pinned)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **SPECIAL)
    yield lambda messages, source, **given: tokenizer.apply_chat_template(
        messages, chat_template=source, tokenize=False, **given
    )
    patch.undo()


@pytest.mark.parametrize("name", TEMPLATES)
def test_renders_as_transformers_does(theirs: Any, name: str) -> None:
    ours = ChatTemplate(TEMPLATES[name], SPECIAL, date="2026-01-31")
    for messages in CONVERSATIONS.values():
        for given in (
            {"add_generation_prompt": True},
            {"add_generation_prompt": False},
            {"add_generation_prompt": True, "enable_thinking": False, "tools": [TOOL]},
        ):
            assert ours.render(messages, **given) == theirs(messages, TEMPLATES[name], **given)


def test_the_date_is_todays_unless_pinned() -> None:
    source = "{{ strftime_now('%Y-%m-%d') }}"
    before = datetime.now().strftime("%Y-%m-%d")
    assert ChatTemplate(source).render([USER]) in (before, datetime.now().strftime("%Y-%m-%d"))
    assert ChatTemplate(source, date="2024-02-29").render([USER]) == "2024-02-29"
    with pytest.raises(InputError, match="not a date"):
        ChatTemplate(source, date="yesterday")


HOSTILE = {
    "long loop": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "longer than 0 s"),
    "loop of lookups": ("{{ lipsum(n=10000000) }}", "longer than 0 s"),
    "gigabyte string": ("{{ messages[0].content * 10 ** 9 }}", "MemoryError"),
    "gigabyte constant": ("{{ 'a' * 10 ** 9 }}", "MemoryError"),
    "wide format": ("{{ '%2000000000d' % 1 }}", "MemoryError"),
    "doubling": (
        "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "MemoryError",
    ),
    "endless output": ("{% for i in range(99999) %}{{ 'a' * 999 }}{% endfor %}", "more than 4,194,304 characters"),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "classes": ("{{ ''.__class__.__mro__ }}", "attribute '__class__' of 'str' object is unsafe"),
    "globals": ("{{ cycler.__init__.__globals__ }}", "attribute '__init__' of 'type' object is unsafe"),
    "method": ("{{ messages.__len__() }}", "attribute '__len__' of 'list' object is unsafe"),
    "namespace": ("{{ namespace(__class__=1) }}", "cannot hold"),
    "changes its input": ("{{ messages.append(1) }}", "SecurityError"),
    "other file": ("{% include 'x' %}", "no loader"),
    "raises": ("\n\n{{ raise_exception('roles must alternate') }}", r"got:      roles must alternate \(line 3"),
    "raises a novel": ("{{ raise_exception('a' * 10 ** 8) }}", "aaa"),
    "syntax": ("a\n{% if %}", r"TemplateSyntaxError.*\(line 2 of"),
    "no such filter": ("{{ 1 | nothing }}", "No filter named 'nothing'"),
    "undefined": ("\n{{ messages[9].content }}", r"UndefinedError.*\(line 2 of"),
    "division": ("{{ 1 / 0 }}", "ZeroDivisionError"),
    "wrong type": ("{{ strftime_now(3) }}", "TypeError"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_template_is_refused_in_seconds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, message = HOSTILE[name]
    if "longer than" not in message:  # pages of 100 megabytes may take a busy machine longer than that second
        monkeypatch.setattr(module, "CPU_S", 5)
    start = time.monotonic()
    with pytest.raises(InputError, match=message) as caught:
        ChatTemplate(source).render([USER])
    assert time.monotonic() - start < 20  # 1 s of processor time, on a machine that does other things too
    assert len(str(caught.value)) < 600


OUT_OF_BOUNDS = [
    "{{ messages.__class__ }}",
    "{{ ''|attr('__class__') }}",
    "{{ '{0.__doc__}'.format(1) }}",
    "{{ messages[0].update }}",
    "{{ raise_exception.__code__ }}",
]


@pytest.mark.parametrize("source", OUT_OF_BOUNDS)
def test_what_reaches_into_python_is_undefined_as_in_transformers(theirs: Any, source: str) -> None:
    assert ChatTemplate(source).render([USER]) == theirs([USER], source) == ""


def test_a_process_that_hangs_or_dies_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("{% for i in range(messages[0].n) %}{% for j in range(9999) %}{% endfor %}{% endfor %}ok")
    assert template.render([{"n": 1}]) == "ok"
    with pytest.raises(InputError, match="longer than"):
        template.render([{"n": 99999}])
    assert template.render([{"n": 2}]) == "ok"
    assert template._worker is not None
    os.kill(template._worker._process.pid, 9)
    with pytest.raises(InputError, match="status -9"):
        template.render([{"n": 2}])
    assert template.render([{"n": 2}]) == "ok"
    monkeypatch.setattr(module, "CLOCK_S", 0.2)
    with pytest.raises(InputError, match="longer than 0 s"):  # where the system does not limit processor time
        template.render([{"n": 99999}])


@pytest.mark.real
def test_processor_time_is_limited_by_rendering_not_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_S", 1)
    template = ChatTemplate("{% for i in range(9999) %}{% for j in range(messages|length) %}{% endfor %}{% endfor %}ok")
    start = time.monotonic()
    while time.monotonic() - start < 2.5:
        assert template.render([{}] * 100) == "ok"


def test_a_rendering_costs_milliseconds_and_no_new_process() -> None:
    template = ChatTemplate(THINKING)
    template.render([USER])
    assert template._worker is not None
    process = template._worker._process
    times = []
    for _ in range(20):
        start = time.perf_counter()
        template.render([USER, ANSWER, MORE] * 20)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02
    assert template._worker._process is process
    template.close()
    assert process.returncode is not None
    assert template.render([USER]).startswith("<|im_start|>system")


def test_a_conversation_larger_than_a_pipe() -> None:
    text = "é" * 500_000
    assert ChatTemplate("{{ messages[0].content }}").render([{"content": text}]) == text


def test_messages_that_are_not_plain_data_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be given to the template"):
        ChatTemplate("x").render([{"role": object()}])
