"""Renders one chat template, in a process of its own with little memory and time. Runs as a script, not a module.

Arguments: folders to import jinja2 from. Input, a dict a line, marshalled in base 64 (JSON has no tuples, and turns
keys into strings): first {"source", "special_tokens", "date", "memory_bytes", "cpu_s", "output_chars"}, then one of
variables for each rendering. Output, a JSON object a line: {"text"}, or {"error"} and the end of the process: what a
template raises is not caught, so that nothing of it stays.
"""

from __future__ import annotations

import base64
import contextlib
import json
import marshal
import resource
import sys
import time
import traceback
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any

if __name__ == "__main__":
    sys.path.extend(sys.argv[1:])

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError


def answer(**value: str) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The last word of this process: what was raised, and at which line of the template."""
    line = getattr(error, "lineno", None)  # of a syntax error
    if line is None:
        lines = [frame.lineno for frame in traceback.extract_tb(trace) if frame.filename == "<template>"]
        line = lines[-1] if lines else None
    where = f" (line {line} of the template)" if line else ""
    name = "" if kind is jinja2.TemplateError else f"{kind.__name__}: "  # raise_exception's: the message says it all
    answer(error=name + str(error)[:300] + where)


class Generation(Extension):
    """{% generation %} … {% endgeneration %} marks the assistant's words for training. Here they pass through, but what
    is set inside is unknown outside, and a loop cannot be left from inside, as in any call block."""

    tags = {"generation"}  # noqa: RUF012  (as jinja declares it)

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("words"), [], [], body).set_lineno(line)

    def words(self, caller: Callable[[], str]) -> str:
        return caller()


class Namespace(jinja2.utils.Namespace):
    """jinja's, without names that begin with an underscore: they reach into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that namespace(self=…) works
        self, attributes = args[0], dict(*args[1:], **kwargs)
        for name in attributes:
            check_name(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        check_name(name)
        super().__setitem__(name, value)


def check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}")


class Dict:
    """dict(…) and dict.fromkeys(…), without the type itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def environment(date: str | None) -> ImmutableSandboxedEnvironment:
    """Settings, filters and functions that chat templates expect: those of transformers."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    # Templates may name parameters: they have transformers' names.
    def strftime_now(format: str) -> str:
        return (datetime.fromisoformat(date) if date else datetime.now()).strftime(format)

    def tojson(
        x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        # jinja's own escapes HTML.
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    found = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    found.filters["tojson"] = tojson
    found.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "dict": Dict(),
        "namespace": Namespace,
    }
    return found


def limit(kind: int, soft: int, hard: int | None = None) -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS does not limit the address space: there the clock must do
        resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1] if hard is None else hard))


def render(template: jinja2.Template, variables: dict[str, Any], output_chars: int) -> str:
    pieces, size = [], 0
    for piece in template.generate(variables):
        size += len(piece)
        if size > output_chars:
            raise jinja2.TemplateError(f"it writes more than {output_chars:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def main() -> None:
    sys.excepthook = report
    start = marshal.loads(base64.b64decode(sys.stdin.readline()))
    limit(resource.RLIMIT_AS, start["memory_bytes"], start["memory_bytes"])
    limit(resource.RLIMIT_FSIZE, 0, 0)
    limit(resource.RLIMIT_CORE, 0, 0)
    template = None
    for line in sys.stdin:
        # The limit is on all that this process ever used: move it along. At the limit the kernel ends the process.
        limit(resource.RLIMIT_CPU, int(time.process_time()) + 1 + start["cpu_s"])
        if template is None:
            template = environment(start["date"]).from_string(start["source"])
        variables = start["special_tokens"] | marshal.loads(base64.b64decode(line))
        answer(text=render(template, variables, start["output_chars"]))


if __name__ == "__main__":
    main()
