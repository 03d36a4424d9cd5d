"""jinja2's own tree out of template.json, to see that nothing of a template is lost in it."""

from __future__ import annotations

from typing import Any

import jinja2
from jinja2 import nodes

from smolship.runtime.template_worker import Generation, environment


def template(program: dict[str, Any], date: str | None) -> jinja2.Template:
    """The template, compiled from the tree alone."""
    found = environment(date)
    code = found.compile(tree(program, found))
    return jinja2.Template.from_code(found, code, found.globals)


def tree(program: dict[str, Any], found: jinja2.Environment) -> nodes.Template:
    return nodes.Template([_value(node) for node in program["body"]]).set_environment(found)


def _value(raw: Any) -> Any:
    if isinstance(raw, list):
        return [_value(one) for one in raw]
    return _node(raw) if isinstance(raw, dict) else raw


def _node(raw: dict[str, Any]) -> nodes.Node:
    line = raw["line"]
    if raw["node"] == "Generation":
        words = nodes.Call(nodes.ExtensionAttribute(Generation.identifier, "words"), [], [], None, None)
        return nodes.CallBlock(words, [], [], _value(raw["body"])).set_lineno(line)
    kind = getattr(nodes, raw["node"])
    names = ["value" if name == "node" else name for name in kind.fields]
    assert set(raw) == {"node", "line", *names}
    return kind(*(_value(raw[name]) for name in names), lineno=line)
