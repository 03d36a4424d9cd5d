"""template.json: it holds all of a template, and what apps cannot render is refused with its line."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from jinja2 import nodes

from smolship.export.portable import compile_template, to_bytes
from smolship.runtime.errors import InputError
from smolship.runtime.template import OUTPUT_CHARS
from smolship.runtime.template_worker import environment, render
from tests.apps import rebuild
from tests.runtime.test_template_vectors import here, vectors

Case = dict[str, Any]


def compiled(case: Case) -> Any:
    """template.json as an app reads it; None where there is none."""
    try:
        return json.loads(to_bytes(compile_template(case["template"])))
    except InputError:
        return None


@pytest.mark.real
def test_rebuilt_from_template_json_every_vector_renders_as_python_does() -> None:
    counts: Counter[str] = Counter()
    for case in vectors():
        program = compiled(case)
        if program is None:
            counts["not compiled" if "expected" in case else "rightly not compiled"] += 1
            continue
        found = environment(case["date"])
        assert rebuild.tree(program, found) == found.parse(case["template"]), case["name"]
        if case.get("limit"):
            continue
        try:
            text = render(rebuild.template(program, case["date"]), case["context"], OUTPUT_CHARS)
        except Exception:
            text = None
        assert text == here(case) == case.get("expected"), case["name"]
        counts["equal" if "expected" in case else "refused"] += 1
    assert counts == {"equal": 619, "refused": 111, "not compiled": 4, "rightly not compiled": 84}


def test_the_file_keeps_whole_numbers_and_the_order_of_keys() -> None:
    raw = to_bytes(compile_template("{{ [1, 1.0, 1e16, 0.1, 10**2, True, none, {'b': 1, 'a': 'é'}] }}")).decode()
    assert '"value":1}' in raw and '"value":1.0}' in raw and '"value":1e+16}' in raw and '"value":true}' in raw
    assert raw.index('"value":"b"') < raw.index('"value":"a"') < raw.index("é")
    assert '"line":null' not in raw


@pytest.mark.parametrize(
    "source, why",
    [
        ("a\n{% include 'x' %}", "line 2: {% include %}"),
        ("{% extends 'x' %}", "line 1: {% extends %}"),
        ("\n\n{% import 'x' as y %}", "line 3: {% import %}"),
        ("{% from 'x' import y %}", "line 1: {% from"),
        ("{% if a %}\n{% block b %}x{% endblock %}{% endif %}", "line 2: {% block %}"),
        ("{% autoescape true %}x{% endautoescape %}", "line 1: {% autoescape %}"),
        ("a\n{{ x | nosuch }}", "line 2: No filter named 'nosuch'"),
        ("{{ x is nosuch }}", "line 1: No test named 'nosuch'"),
        ("{% break %}", "SyntaxError: 'break' outside loop"),
        ("\n{% for %}", "line 2: "),
        ("{{ 1e999 }}", "line 1: the number inf"),
        ("{{ '\\ud800' }}", "line 1: half of a surrogate pair"),
        ("{{ 9" + "0" * 1000 + " }}", "line 1: a whole number"),
        ("{{ 9" + "0" * 5000 + " }}", "ValueError"),
        ("x" * (1 << 17) + "x", "131,073 bytes"),
        ("\n{{ a" + " + a" * 90 + " }}", "line 2: statements or expressions inside of one another"),
        ("{% if a %}" * 90 + "b" + "{% endif %}" * 90, "line 1: statements or expressions inside of one another"),
        ("{{ a" + " + a" * 250 + " }}", "SyntaxError: too many nested parentheses"),
        ("{{ " + "(" * 3000 + "a" + ")" * 3000 + " }}", "too deep inside"),
        ("{{ " + "-" * 3000 + "1 }}", "too deep inside"),
        ("{% if a %}" * 3000 + "{% endif %}" * 3000, "too deep inside"),
        ("{{ [" + "a," * 65_000 + "] }}", "a syntax tree of"),
    ],
)
def test_what_apps_cannot_render_is_refused_with_its_line(source: str, why: str) -> None:
    with pytest.raises(InputError, match="apps cannot render the chat template") as caught:
        compile_template(source)
    assert why in (caught.value.parts()["got"] or "")


def test_nothing_of_a_template_is_computed_to_compile_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """jinja's compiler computes constants, also those that take all memory and no end of time."""
    computed: list[nodes.Expr] = []
    monkeypatch.setattr(nodes.BinExpr, "as_const", lambda self, context=None: computed.append(self) or "x")
    for huge in ("'x' * 10**10", "10**10**8", "('a' * 10**9) | length", "range(10 * 10**9) | list"):
        assert compile_template(f"{{{{ {huge} }}}}{{% set y = {huge} %}}{{% if {huge} %}}{{% endif %}}")["body"]
    assert computed == []
    environment(None).compile("{{ 1 + 1 }}")
    assert len(computed) == 1


def test_a_fault_of_jinjas_own_compiler_is_a_refusal():
    with pytest.raises(InputError, match="compiler fails"):
        compile_template("{% set y | replace('A', v) %}A{% endset %}{{ y }}")
