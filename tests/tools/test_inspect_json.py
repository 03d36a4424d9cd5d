"""`inspect --json` and `export --json` print the manifest as it lies in the bundle (docs/commands.md)."""

from __future__ import annotations

import json

import pytest

from smolship.tools.cli import run


@pytest.mark.parametrize(
    ("kind", "quant"), [("llama", "int4"), pytest.param("smollm3", "int8", marks=pytest.mark.real)]
)
def test_it_is_the_file(tiny_bundle, kind, quant, capsys):
    folder = tiny_bundle(kind, quant)
    assert run(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "manifest.json").read_text())
