"""The vectors that the demo apps are tested against are what the code gives today."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from tests.apps.vectors import FOLDER, MAKERS, text

WRITE = "write them anew: PYTHONPATH=export:runtime:tools:. python -P -m tests.apps"


def close(value: Any) -> Any:
    """With arrays of float64 rounded to 10 digits: another processor's exp and log may differ in the last."""
    if isinstance(value, dict) and value.get("dtype") == "float64":
        array = np.frombuffer(base64.b64decode(value["base64"]), "<f8").reshape(value["shape"])
        return np.vectorize(lambda x: f"{x:.10g}", otypes=[str])(array).tolist()
    if isinstance(value, dict):
        return {key: close(one) for key, one in value.items()}
    return [close(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", MAKERS)
def test_the_files_are_what_the_code_gives(name: str) -> None:
    said = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    made = text(MAKERS[name]())
    if said != made:
        for old, new in zip(json.loads(said), json.loads(made), strict=True):
            assert close(old) == close(new), f"{name}.json, {old['name']}: {WRITE}"


def test_no_file_is_left_over() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.json" for name in MAKERS}


def test_names_are_of_one_case_each() -> None:
    for name in MAKERS:
        names = [case["name"] for case in json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))]
        assert len(set(names)) == len(names) > 10, name
