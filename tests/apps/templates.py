"""templates.json: each case of tests/vectors/templates.json.xz with its template compiled for apps.

program  template.json's object. A text is the source_sha256 of an earlier case's program, which is meant. Null where
         the export refuses the template, and "refused" says why.

expected, error, limit, rare, context and date are those of the source (tests/vectors/README.md).
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

from smolship.export.portable import compile_template
from smolship.export.templates import one_line
from smolship.runtime.errors import InputError

SOURCE = Path(__file__).parents[1] / "vectors" / "templates.json.xz"
KEPT = ("context", "date", "expected", "error", "limit", "rare")


def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    written: set[str] = set()
    for case in json.loads(lzma.decompress(SOURCE.read_bytes())):
        made = compiled(case["template"])
        if made["program"]:
            digest = made["program"]["source_sha256"]
            if digest in written:
                made["program"] = digest
            written.add(digest)
        found.append({"name": case["name"], **made, **{key: case[key] for key in KEPT if key in case}})
    return found


def compiled(source: str) -> dict[str, Any]:
    try:
        return {"program": compile_template(source)}
    except InputError as error:
        return {"program": None, "refused": one_line(error)}
