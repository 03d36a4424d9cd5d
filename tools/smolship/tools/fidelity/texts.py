"""Text that comes with Python, in documents, each for one use: training, calibrating or judging.

A document is a topic of the language reference (`pydoc_data.topics`) or the docstrings of one module of the standard
library. Both are Python's own documentation, under the PSF License Version 2. Which use a document has follows from its
name; a paragraph that is judged on appears in no other document.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = "Python's documentation: pydoc_data.topics and the standard library's docstrings (PSF License Version 2)"
LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "pydoc_data", "__pycache__"}
SHORTEST = 800  # characters of a document
PARAGRAPH = 60  # characters: shorter ones, such as headings, may appear anywhere


@dataclass(frozen=True)
class Texts:
    """Name -> text of the documents for each use, in the order of their names' hashes: topics and modules mixed."""

    training: dict[str, str]
    calibration: dict[str, str]
    judging: dict[str, str]


@cache
def texts() -> Texts:
    """The documents of this Python: another version has others."""
    uses: dict[str, dict[str, str]] = {"judging": {}, "calibration": {}, "training": {}}
    for name, text in sorted((_topics() | _modules()).items(), key=lambda item: _hash(item[0])):
        uses[use(name)][name] = text
    seen: set[str] = set()
    for documents in uses.values():  # judging first: what it has, the others lose
        own = {paragraph for text in documents.values() for paragraph in text.split("\n\n")}
        for name, text in documents.items():
            documents[name] = "\n\n".join(p for p in text.split("\n\n") if len(p) < PARAGRAPH or p not in seen)
        seen |= own
    return Texts(**{use: {n: t for n, t in found.items() if len(t) >= SHORTEST} for use, found in uses.items()})


def use(name: str) -> str:
    """What a document is for."""
    part = int(_hash(name), 16) % 10
    return {0: "judging", 1: "calibration"}.get(part, "training")


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _topics() -> dict[str, str]:
    from pydoc_data.topics import topics

    return {f"topic {name}": text for name, text in topics.items()}


def _modules() -> dict[str, str]:
    root = Path(sysconfig.get_paths()["stdlib"])
    found = {}
    for path in root.rglob("*.py"):
        inside = path.relative_to(root)
        if not LEFT_OUT & set(inside.parts):
            found[f"module {inside.as_posix()}"] = _docstrings(path.read_bytes())
    return found


def _docstrings(code: bytes) -> str:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, documented)]
    return "\n\n".join(text for node in nodes if (text := ast.get_docstring(node)))
