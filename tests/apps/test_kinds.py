"""The small templates that the apps' evaluators are tested with are what the code gives today."""

from __future__ import annotations

import json

from tests.apps.kinds import FILE, text


def test_the_file_is_what_the_code_gives() -> None:
    message = "write it anew: PYTHONPATH=export:runtime:tools:. python -P -m tests.apps.kinds"
    assert FILE.read_text(encoding="utf-8") == text(), message


def test_there_are_texts_and_errors() -> None:
    cases = json.loads(FILE.read_text(encoding="utf-8"))["cases"]
    assert sum(case["expected"] is not None for case in cases) > 400
    assert sum(case["expected"] is None for case in cases) > 100
