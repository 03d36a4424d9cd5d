"""A chat template as its syntax tree in JSON, for apps: phones have no jinja2 (docs/apps.md has the format).

jinja2 itself parses the template, in the environment that renders it, so that whitespace control, precedence and
literals are jinja's. What the apps cannot evaluate is refused here, with its line; an app refuses the rest by itself.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.compiler import CodeGenerator

from smolship.runtime.errors import InputError, clip
from smolship.runtime.template_worker import environment

SCHEMA = 1
SOURCE = 1 << 17  # bytes of a template
BYTES = 2 << 20  # of the file
DEPTH = 90  # of nodes in nodes: fewer than 200 levels of JSON
DIGITS = 1000  # of a whole number
STATEMENTS = (
    "Output TemplateData For If Macro CallBlock FilterBlock With Scope Assign AssignBlock ExprStmt Break Continue"
)
EXPRESSIONS = (
    "Name NSRef Const Tuple List Dict Pair CondExpr Filter Test Keyword Call Getitem Getattr Slice Concat Compare "
    "Operand Add Sub Mul Div FloorDiv Mod Pow And Or Not Neg Pos"
)
KNOWN = frozenset(f"{STATEMENTS} {EXPRESSIONS}".split())
VALID = "a template that jinja compiles"
RENAMED = {"node": "value"}  # fields; "node" is the name of the class


def compile_template(source: str) -> dict[str, Any]:
    """The content of template.json. Raises InputError, with the line, for a template that apps cannot render."""
    size = len(source.encode())
    if size > SOURCE:
        raise _refused(f"{size:,} bytes", None, f"up to {SOURCE:,}")
    try:
        tree = environment(None).parse(source)
        _check_compiles(source)
        body = [_node(node, 1, 1) for node in tree.body]
    except TemplateSyntaxError as error:
        raise _refused(str(error), error.lineno, VALID) from None
    except (RecursionError, MemoryError):
        raise _refused("statements or expressions too deep inside of one another", None, VALID) from None
    except AssertionError as error:  # jinja's own, as for a name that stands in the filter of a set block alone
        raise _refused(f"jinja's compiler fails: {str(error) or 'an assertion'}", None, VALID) from None
    except (SyntaxError, ValueError) as error:  # Python's, of what jinja makes of it
        raise _refused(f"{type(error).__name__}: {getattr(error, 'msg', error)}", None, VALID) from None
    program = {"schema": SCHEMA, "source_sha256": hashlib.sha256(source.encode()).hexdigest(), "body": body}
    if (size := len(to_bytes(program))) > BYTES:
        raise _refused(f"a syntax tree of {size:,} bytes", None, f"up to {BYTES:,}")
    return program


def to_bytes(program: dict[str, Any]) -> bytes:
    """template.json."""
    return json.dumps(program, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


class _Checker(CodeGenerator):
    """jinja's compiler for its refusals alone: nothing that stands in an untrusted template is computed."""

    def _output_child_to_const(self, *args: Any) -> str:
        raise nodes.Impossible


def _check_compiles(source: str) -> None:
    """Refuses what parses and does not compile, such as unknown filters and a break outside of loops."""
    checking = environment(None)
    checking.code_generator_class, checking.optimized = _Checker, False
    checking.compile(source)


def _node(node: nodes.Node, line: int, depth: int) -> dict[str, Any]:
    """A node of jinja's as an object; jinja leaves some without a line, which have their parent's."""
    kind, line = type(node).__name__, node.lineno or line
    if depth > DEPTH:
        raise _refused("statements or expressions inside of one another", line, f"at most {DEPTH} levels")
    if isinstance(node, nodes.CallBlock) and isinstance(node.call.node, nodes.ExtensionAttribute):
        kind, fields = "Generation", [("body", node.body)]
    elif kind in KNOWN:
        fields = list(node.iter_fields())
    else:
        raise _refused(NAMES.get(kind, kind), line)
    found = {"node": kind, "line": line}
    return found | {RENAMED.get(name, name): _field(value, line, depth) for name, value in fields}


def _field(value: Any, line: int, depth: int) -> Any:
    if isinstance(value, nodes.Node):
        return _node(value, line, depth + 1)
    if isinstance(value, list):
        return [_field(one, line, depth) for one in value]
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _refused("half of a surrogate pair in a text", line) from None
    elif isinstance(value, int) and abs(value) >= 10**DIGITS:
        raise _refused("a whole number", line, f"at most {DIGITS:,} digits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise _refused(f"the number {value}", line, "a finite number")
    return value


NAMES = {
    "Block": "{% block %}",
    "Extends": "{% extends %}",
    "Include": "{% include %}",
    "Import": "{% import %}",
    "FromImport": "{% from … import %}",
    "ScopedEvalContextModifier": "{% autoescape %}",
}


def _refused(what: str, line: int | None, expected: str = "what docs/apps.md lists") -> InputError:
    where = f"line {line}: " if line else ""
    return InputError("apps cannot render the chat template", got=where + clip(what, 200), expected=expected)
