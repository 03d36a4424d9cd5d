"""The Kotlin core's own template cases are what Python renders (the core's test reads them: test_kotlin.py)."""

import gzip
import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "android_demo" / "core" / "src" / "test" / "templates"


@pytest.mark.real
def test_the_cases_are_what_their_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_templates", FOLDER / "make.py")
    assert spec and spec.loader
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    kept, made = (json.loads(gzip.decompress(data)) for data in (make.FILE.read_bytes(), make.content()))
    assert len(made["cases"]) > 1200
    assert kept == made, f"run {FOLDER / 'make.py'} again"
