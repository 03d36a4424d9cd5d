"""Templates and messages of our own through transformers and through us: the same text, or both refuse."""

from __future__ import annotations

import enum
import itertools
import subprocess
from datetime import datetime
from typing import Any

import jinja2
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from smolship.runtime import template_worker
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.template import OUTPUT_CHARS, ChatTemplate

CONTEXT = {
    "messages": [{"role": "user", "content": "Tick <&> 'tock'\n"}, {"role": "assistant", "content": "Ω 🎈", "n": None}],
    "d": {"items": 1, "b": [True, None, 2.0], "é": {"x": float("inf")}, "_u": 0},
    "l": [3, "c", 1.5, False],
    "s": "  Rien ne  va plus ",
    "n": -7,
    "none": None,
    "add_generation_prompt": True,
}

VALUES = [
    "d",
    "l",
    "s",
    "n",
    "none",
    "missing",
    "messages",
    "1.0",
    "10 ** 20",
    "'é<'",
    "range(3)",
    "dict(k='v')",
    "namespace(a=1)",
    "(1, 'b')",
    "s.__class__",
    "d._u",
    "l.append",
    "d.update",
    "dict.fromkeys('ab', 0)",
    "cycler('x', 'y')",
    "strftime_now",
    "true",
]
FORMS = [
    "{{{{ {0} }}}}",
    "{{{{ {0} ~ '|' }}}}",
    "{{{{ {0} is defined }}}}",
    "{{{{ {0} | tojson }}}}",
    "{{{{ {0} | tojson(indent=1, sort_keys=true, separators=[',', ': ']) }}}}",
    "{{{{ {0} | length }}}}",
    "{{% if {0} %}}y{{% else %}}n{{% endif %}}",
    "{{% for x in {0} %}}{{{{ x }}}};{{% else %}}-{{% endfor %}}",
    "{{{{ {0} + {0} }}}}",
    "{{{{ {0}.a }}}}|{{{{ {0}[0] }}}}",
    "{{{{ {0} | default('D', true) }}}}",
    "{{{{ {0} | string | upper }}}}",
    "{{{{ {0} | list }}}}",
    "{{{{ {0} == {0} }}}}",
    "{{{{ {0} is mapping }}}}",
]

TEMPLATES = [
    # names of parameters
    "{{ strftime_now(format='%d/%m %y') }}",
    "{{ strftime_now('%A %-j') }}",
    "{{ strftime_now(form='%Y') }}",
    "{{ strftime_now() }}",
    "{{ raise_exception(message='no') }}",
    "{{ raise_exception(msg='no') }}",
    "{{ 'é&' | tojson(ensure_ascii=true) }}",
    "{{ d | tojson(none, 2) }}",
    "{{ 1 | tojson(x=2) }}",
    "{{ 1 | tojson(value=2) }}",
    "{{ l | tojson(indent='--') }}",
    "{{ missing | tojson }}",
    "{{ dict.fromkeys(iterable='ab') }}",
    "{{ dict([('a', 1)], b=2) }}",
    "{{ namespace(self=1).self }}",
    "{{ namespace({'k': 5}, j=6).k }}",
    "{{ namespace({'_k': 5}) }}",
    "{% set q = namespace() %}{% set q._x = 1 %}",
    "{% set q = namespace(a=1) %}{% set q.b = q.a + 1 %}{{ q.b }}{{ q.c }}",
    # what a generation block keeps to itself
    "{% generation %}{% set v = 4 %}{{ v }}{% endgeneration %}[{{ v }}]",
    "{% set v = 1 %}{% generation %}{{ v }}{% endgeneration %}{{ v }}",
    "{% set v = 1 %}{% generation %}{% set v = 2 %}{{ v }}{% endgeneration %}{{ v }}",
    "{% generation %}{% macro m() %}in{% endmacro %}{{ m() }}{% endgeneration %}",
    "{% generation %}{% macro m() %}in{% endmacro %}{% endgeneration %}{{ m is defined }}",
    "{% set c = namespace(n=0) %}{% generation %}{% set c.n = 3 %}{% endgeneration %}{{ c.n }}",
    "{% for m in messages %}{% generation %}{{ loop.index }}{{ m.role }}{% endgeneration %}{% endfor %}",
    "{% for m in messages %}{% generation %}{% continue %}{% endgeneration %}{% endfor %}",
    "{% for m in messages %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    "{% for m in messages %}{% generation %}{% for i in l %}{% break %}{% endfor %}{% endgeneration %}.{% endfor %}",
    "{% generation %}\n  a\n{% generation %}b{% endgeneration %}\n{% endgeneration %}\n c",
    "{%- generation -%}  x  {%- endgeneration -%}  y",
    "{% generation %}{{ raise_exception('g') }}{% endgeneration %}",
    "{% generation x %}{% endgeneration %}",
    "{% generation %}",
    "{% endgeneration %}",
    "{% generation() %}a{% endgeneration %}",
    "{% call dict() %}{% generation %}x{% endgeneration %}{% endcall %}",
    "{% macro f() %}{% generation %}{{ caller() }}{% endgeneration %}{% endmacro %}{% call f() %}z{% endcall %}",
    "{% filter upper %}{% generation %}ab{% endgeneration %}{% endfilter %}",
    "{% autoescape true %}{% generation %}{{ '<' }}{% endgeneration %}{{ '<' }}{% endautoescape %}",
    "{% set t %}{% generation %}k{% endgeneration %}{% endset %}{{ t | length }}",
    # the sandbox
    "{{ l.append(1) }}",
    "{{ d.pop('b') }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ s.__len__() }}",
    "{{ d['__class__'] }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{0.real}'.format(3) }}",
    "{{ '%s' | format(l) }}",
    "{{ (s | attr('strip'))() }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ range(999999) }}",
    "{{ range(99999999) | length }}",
    "{{ s.format_map(d) }}",
    # the rest of the environment
    "{{ n // 2 }} {{ n % 3 }} {{ n | abs }} {{ 7 / 2 }}",
    "{% set a, b = 1, 2 %}{{ b }}{{ a }}",
    "{% do l %}",
    "{% trans %}x{% endtrans %}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% block q %}1{% endblock %}{{ self.q() }}",
    "{{ d | dictsort }}{{ d | items | list }}",
    "{{ messages | map(attribute='content') | join('/') }}",
    "  {% if true %}\n  x\n  {% endif %}\n",
    "{# c #}\n\nx\n",
    "{{ '\\x41' }}{{ 'a' 'b' }}",
    "{{ l | sort }}",
    "{{ none + 1 }}",
    "{{ debug() }}",
    "{{ gettext('x') }}",
    "{{ lipsum is defined }}{{ joiner is defined }}",
    "{{ s | wordwrap(5) }}",
    "{% for x in l recursive %}{{ loop.depth }}{% endfor %}{{ loop is defined }}",
    "{{ messages[0].content | e }}{{ '<' }}",
    "{{ d.items }}{{ d['items'] }}",
    "{{ messages[5] }}",
    "{{ messages[5].role }}",
    "{% else %}",
    "{{ 1 if false }}",
    "{{",
]
EVERY = [*TEMPLATES, *(form.format(value) for form, value in itertools.product(FORMS, VALUES))]


class Pinned(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Pinned:
        return cls(2031, 5, 9)


@pytest.fixture(autouse=True)
def the_same_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template_utils, "datetime", Pinned)


def rendered(render: Any) -> str | None:
    """The text, without addresses of objects; None where it is refused."""
    try:
        return without_addresses(render())
    except (
        jinja2.TemplateError,
        ArithmeticError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        SyntaxError,
        RecursionError,
        InputError,
    ):
        return None


def without_addresses(text: str) -> str:
    """Functions and objects print where they lie and what they are called, which no model was trained on."""
    return "<an object>" if " at 0x" in text.lower() or "<class" in text.lower() else text


@pytest.mark.parametrize("source", EVERY)
def test_a_template_renders_as_in_transformers(source: str) -> None:
    theirs = rendered(lambda: chat_template_utils._compile_jinja_template(source).render(**CONTEXT))
    ours = rendered(
        lambda: template_worker.render(
            template_worker.environment("2031-05-09").from_string(source), CONTEXT, OUTPUT_CHARS
        )
    )
    assert ours == theirs


def test_the_templates_show_something() -> None:
    """Comparing refusals only would be comparing nothing."""
    texts = [
        rendered(lambda s=source: chat_template_utils._compile_jinja_template(s).render(**CONTEXT)) for source in EVERY
    ]  # type: ignore[misc]
    assert sum(text is None for text in texts) > 50
    assert len({text for text in texts if text}) > 120


class Role(enum.StrEnum):
    user = "user"


SHOW = "{% for m in messages %}{{ m }}{% if m.content is defined %}<{{ m.content }}>{% endif %}{% endfor %}{{ tools }}"
CONVERSATIONS: dict[str, list[Any]] = {
    "null content": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "calls": [{"id": None}]}],
    "null tool calls": [{"role": "assistant", "content": "b", "tool_calls": None, "name": None}],
    "reasoning_content": [{"role": "assistant", "content": "c", "reasoning_content": "why"}],
    "thinking": [{"role": "assistant", "thinking": "hm", "content": "d"}],
    "reasoning": [{"role": "assistant", "content": "e", "reasoning": "so"}],
    "two of them": [{"role": "assistant", "content": "f", "reasoning": "1", "thinking": "2"}],
    "all of them": [{"reasoning": "1", "thinking": "2", "reasoning_content": "3", "role": "assistant"}],
    "null reasoning": [{"role": "assistant", "content": "g", "reasoning_content": None, "thinking": "2"}],
    "empty reasoning": [{"role": "assistant", "content": "h", "reasoning_content": "", "thinking": "2"}],
    "only nulls": [{"role": None, "content": None}],
    "reasoning as a list": [{"role": "assistant", "thinking": [{"type": "text", "text": None}]}],
    "keys that are no strings": [{"role": "user", "content": {1: "x", None: 2, 2.5: (3, "t")}}],
    "tuples": [{"role": "user", "content": ("a", ["b", (1,)])}],
    "derived types": [{"role": Role.user, "content": "i"}],
    "odd numbers": [{"role": "user", "content": [float("nan"), float("-inf"), 10**30, -0.0, True]}],
    "half a surrogate": [{"role": "user", "content": "\ud83d!"}],
    "no dict": ["hello"],
    "a number": [7],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_messages_reach_the_template_as_in_transformers(name: str) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>")
    given = {"tools": [{"name": "t", "description": None}], "add_generation_prompt": True}
    theirs = rendered(
        lambda: tokenizer.apply_chat_template(CONVERSATIONS[name], chat_template=SHOW, tokenize=False, **given)
    )
    assert rendered(lambda: ChatTemplate(SHOW).render(CONVERSATIONS[name], **given)) == theirs
    assert (theirs is None) == (name in ("no dict", "a number"))


@pytest.mark.parametrize(
    "items", [["a"], [1], [[{}]], 3, "text", [None], [{"title": "t", "text": None}], [], None, ({},)]
)
@pytest.mark.parametrize("name", ["tools", "documents"])
def test_lists_of_dicts_are_asked_for_as_in_transformers(name: str, items: Any) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    messages, show = [{"role": "user", "content": "j"}], "{{ tools }}{{ documents }}"
    theirs = rendered(
        lambda: tokenizer.apply_chat_template(messages, chat_template=show, tokenize=False, **{name: items})
    )
    assert rendered(lambda: ChatTemplate(show).render(messages, **{name: items})) == theirs


def test_the_callers_messages_stay_as_they_are() -> None:
    messages = [{"role": "assistant", "content": None, "thinking": "t"}]
    ChatTemplate(SHOW).render(messages)
    assert messages == [{"role": "assistant", "content": None, "thinking": "t"}]


def test_a_system_without_room_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", full)
    with pytest.raises(SetupError, match="temporarily unavailable"):
        ChatTemplate("a").render([])
