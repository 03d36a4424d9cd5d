"""`smolship cache`: what is kept, and clearing it."""

from __future__ import annotations

import json
import os
import time

import pytest

from smolship.export.kept.entries import Record, entries, now
from smolship.export.kept.store import Asked, open_store
from smolship.tools.cli import run
from smolship.tools.commands.cache import seconds


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two kept steps: one was used just now, the other 40 days ago."""
    root = tmp_path / "kept"
    monkeypatch.setenv("SMOLSHIP_CACHE", str(root))
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "data").write_bytes(bytes(5000))
    with open_store() as store:
        for kind, words in (("quantize", "4 bits"), ("lower", "onnx, context [b]64")):
            record = Record({"asked": kind}, "a\x1b[31mmodel", words, None, 12.5, None, now(), {})
            store.keep(Asked(kind, record.asked, record.model, words), record, ["data"], tmp_path, pytest.fail)
    (old,) = root.glob("lower-*")
    ago = time.time() - 40 * 86400
    os.utime(old / "record.json", (ago, ago))
    return root


def test_the_list(root, capsys):
    assert run(["cache"]) == 0
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    assert [line[0] for line in lines if line and line[0] in ("quantize", "lower")] == ["quantize", "lower"]
    assert "onnx, context [b]64" in said and "a [31mmodel" in said and "12.5 s" in said and str(root) in said
    assert "2 steps, 1" in said and "of at most" in said


def test_json(root, capsys):
    assert run(["cache", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["place"] == str(root) and said["limit_bytes"] > 0
    assert said["bytes"] == sum(step["bytes"] for step in said["steps"]) > 10_000
    assert [(step["kind"], step["options"]) for step in said["steps"]] == [
        ("quantize", "4 bits"),
        ("lower", "onnx, context [b]64"),
    ]
    assert set(said["steps"][0]) == {"kind", "model", "options", "bytes", "seconds", "made", "last_used", "folder"}


def test_clear(root, capsys):
    (root / "thesis.tex").write_text("years of work")
    assert run(["cache", "clear", "--older-than", "41d"]) == 0
    assert "0 of 2 kept steps removed" in capsys.readouterr().out
    assert run(["cache", "clear", "--older-than", "30d"]) == 0
    assert "1 of 2 kept steps removed" in capsys.readouterr().out
    assert [entry.kind for entry in entries(root)] == ["quantize"]
    assert run(["cache", "clear", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [step["kind"] for step in said["removed"]] == ["quantize"] and said["in_use"] == []
    assert sorted(path.name for path in root.iterdir()) == ["CACHEDIR.TAG", "thesis.tex"]


def test_what_is_in_use_is_left(root, tmp_path, capsys):
    with open_store() as store:
        assert store.take(Asked("quantize", {"asked": "quantize"}, "", ""), tmp_path / "into", pytest.fail)
        assert run(["cache", "clear"]) == 0
        said = capsys.readouterr()
        assert "1 of 2 kept steps removed" in said.out and "in use" in said.err
    assert [entry.kind for entry in entries(root)] == ["quantize"]


def test_nothing_is_there(tmp_path, monkeypatch, capsys):
    """And nothing is made by looking."""
    monkeypatch.setenv("SMOLSHIP_CACHE", str(tmp_path / "none"))
    for action in ("list", "clear"):
        assert run(["cache", action]) == 0
    assert "0 steps" in capsys.readouterr().out and not (tmp_path / "none").exists()


def test_refusals(root, monkeypatch, capsys):
    for given, word in (
        (["clear", "--older-than", "soon"], "30d"),
        (["clear", "--older-than", "-1d"], "30d"),
        (["--older-than", "3d"], "smolship cache clear"),
        (["empty"], "list"),
    ):
        assert run(["cache", *given]) == 2, given
        assert word in capsys.readouterr().err
    monkeypatch.setenv("SMOLSHIP_CACHE", "off")
    assert run(["cache"]) == 2 and "off" in capsys.readouterr().err
    assert len(entries(root)) == 2


def test_periods():
    assert [seconds(text) for text in ("45m", "12h", "30d", "2W")] == [2700, 43200, 2_592_000, 1_209_600]
