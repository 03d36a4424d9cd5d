"""template_kinds.json: the templates of template_kinds.txt with what Python renders, for the apps' evaluators.

context  what all of them are rendered with, on `date`
cases    template, program (template.json's object), expected (the text; null where Python raises)

`PYTHONPATH=export:runtime:tools:. python -P -m tests.apps.kinds` writes it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

from smolship.export.portable import compile_template
from smolship.runtime.errors import InputError
from smolship.runtime.template_worker import environment

SOURCE = Path(__file__).with_name("template_kinds.txt")
FILE = Path(__file__).parents[1] / "vectors" / "template_kinds.json"
DATE = "2024-12-30"
CONTEXT: dict[str, Any] = {
    "n": None,
    "t": True,
    "i": 5,
    "f": 2.5,
    "big": 12345678901234567890123,
    "s": "Hello World",
    "u": "Ünï 日本 👍🏽 Σας ß",
    "l": [3, 1, 2],
    "mix": [1, "a", None, 2.5, True, [1], {"k": 1}],
    "names": ["b", "A", "c", "a"],
    "d": {"b": 1, "a": "x", "items": [1], "1": 2},
    "e": {},
    "nest": {"x": [1, {"y": [True, None, 1e16]}]},
    "people": [{"n": "Bo", "age": 9}, {"n": "al", "age": 30}, {"n": "Al", "age": 9}],
    "v": "given",
}
PATTERNS = {
    "filter": "{{{{ {0}|{1} }}}}",
    "method": "{{{{ {0}.{1} }}}}",
    "test": "{{{{ {0} is {1} }}}}",
    "suffix": "{{{{ {0}{1} }}}}",
    "percent": "{{{{ '{0}' % ({1}) }}}}",
    "format": "{{{{ '{{{0}}}'.format({1}) }}}}",
    "operator": "{{{{ ({0}) {1} ({2}) }}}}",
}
EVERY = 4  # of a table's templates one in so many, for the file's size


def sources() -> Iterator[str]:
    for line in SOURCE.read_text(encoding="utf-8").splitlines():
        if line.startswith("{"):
            yield line
        elif line and not line.startswith("#"):
            name, rest = line.split(" ", 1)
            first, second = (words.split() for words in rest.split(" :: "))
            for words in product(first, second, first if name == "operator" else [""]):
                source = PATTERNS[name].format(*words).replace("␣", " ")
                if crc32(source.encode()) % (EVERY * 3 if name == "operator" else EVERY) == 0:
                    yield source


def cases() -> Iterator[dict[str, Any]]:
    """Those that the export refuses are left out, and those that print an address in memory."""
    made = environment(DATE)
    for source in sources():
        try:
            program = compile_template(source)
        except InputError:
            continue
        try:
            text = made.from_string(source).render(copy.deepcopy(CONTEXT))
        except Exception:  # whatever a template raises is what the apps are to refuse
            text = None
        if text is None or " at 0x" not in text:
            yield {"template": source, "program": program, "expected": text}


def text() -> str:
    lines = (json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases())
    context = json.dumps(CONTEXT, ensure_ascii=False, separators=(",", ":"))
    return f'{{"context":{context},"date":"{DATE}","cases":[\n' + ",\n".join(lines) + "\n]}\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
