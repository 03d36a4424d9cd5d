"""The scripts in examples/ do what they say, on tiny models."""

from __future__ import annotations

import ast
import json
import runpy
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from smolship.runtime.manifest import read_manifest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def script(monkeypatch, capsys):
    """script("chat", …) -> exit code, standard output, standard error of examples/chat.py with these arguments."""

    def call(name, *arguments):
        path = EXAMPLES / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
        return ended.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A copy of the tiny bundle with one target: a session of each engine is another test's affair."""
    copy = shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "bundle")
    manifest = read_manifest(copy)
    for name in ("executorch", "gguf"):
        del manifest.targets[name]
        shutil.rmtree(copy / name)
    manifest.write(copy)
    return copy


def test_each_is_short_and_shows_how_it_is_called():
    paths = sorted(EXAMPLES.glob("*.py"))
    assert [path.stem for path in paths] == ["chat", "ci_gate", "export_and_check"]
    for path in paths:
        text = path.read_text()
        assert len(text.splitlines()) <= 60, path
        assert f"python examples/{path.name} " in (ast.get_docstring(ast.parse(text)) or ""), path


def test_export_and_check(tiny, script, tmp_path):
    out = tmp_path / "new"
    code, said, _ = script("export_and_check", tiny("llama"), "--out", out, "--to", "onnx", "--context", "128")
    digest = read_manifest(out).weights_digest
    assert code == 0 and f"weights {digest[:16]}" in said
    assert "onnx: 20 tensors read back, 0 differ" in said and "onnx: parity passed" in said


def test_export_and_check_refuses_as_the_command_does(script, tmp_path):
    code, said, error = script("export_and_check", tmp_path / "nothing", "--out", tmp_path / "new")
    assert code == 2 and not said and error.startswith("no such checkpoint\n  got: ")


def test_chat_streams_and_keeps_the_cache(bundle, script):
    arguments = ("chat", bundle, "hello", "and then?", "--max-tokens", "4", "--temperature", "0.9", "--seed", "5")
    code, said, _ = script(*arguments)
    assert code == 0 and said.count("\n[ended by ") == 2
    assert "; 0 tokens were in the cache already]" in said.partition("> and then?")[0]
    assert "; 0 tokens" not in said.partition("> and then?")[2]
    assert script(*arguments)[1] == said
    assert script(*arguments[:-1], "6")[1] != said


def test_the_gate_opens_and_closes(loads_once, bundle, script, tmp_path):
    baseline, junit = tmp_path / "baseline.json", tmp_path / "parity.xml"
    gate = ("ci_gate", bundle, "--baseline", baseline)
    assert script(*gate, "--share", "1e-6", "--junit", junit)[:2] == (0, "every gate passed\n")
    assert not ET.parse(junit).findall(".//failure")

    faster = json.loads(baseline.read_text())
    for speed in faster["onnx"]["decode_tokens_per_s"].values():
        speed["median"] *= 1e6
    baseline.write_text(json.dumps(faster))
    code, said, _ = script(*gate, "--share", "0.5", "--junit", junit, "--max-kl", "1e-9")
    assert code == 1 and "onnx-cpu: original → engine\n" in said and "onnx: decode after 32: " in said
    assert len(ET.parse(junit).findall(".//failure")) == 1
