"""The steps of an export, each by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smolship.export.checkpoints import open_checkpoint
from smolship.export.facts import resolve
from smolship.export.options import Options, scheme_of
from smolship.export.running import write_shared
from smolship.export.steps import STEPS, Checked, Lowered, read
from smolship.export.weights import Weights
from smolship.runtime.process import environment

QUANTIZE = """
import json, sys
from smolship.export import worker
worker.STEPS["quantize"](**json.load(sys.stdin), progress=lambda *step: None)
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""


def given(model: Path) -> dict[str, Any]:
    """What every step is given."""
    options = Options("a/model", "main", ("onnx",), "int4", scheme_of("int4", 64, None, 4), 32, 0, None)
    return json.loads(json.dumps({"model": str(model), "options": asdict(options)}))


def test_quantizing_needs_no_torch(tiny, tmp_path):
    """Its memory is that of some rows, where torch alone would take 200 MB."""
    scheme = scheme_of("int4", 64, None, 4)
    request = {"model": str(tiny("llama")), "scheme": asdict(scheme), "folder": str(tmp_path)}
    command = [sys.executable, "-c", QUANTIZE]
    done = subprocess.run(
        command, input=json.dumps(request), env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert {entry.group for entry in Weights(tmp_path).entries.values() if entry.bits == 4} == {64}


def test_what_targets_share_is_written(tiny, tmp_path):
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "weights.json").write_text("listed")
    checkpoint = open_checkpoint(str(tiny("llama")))
    write_shared(checkpoint, resolve(checkpoint), tmp_path)
    names = {"config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json", "weights.json"}
    assert names | {"template.json"} <= {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "weights.json").read_text() == "listed"


def test_a_check_says_what_the_model_is(tiny, tmp_path):
    said = STEPS["check"](**given(tiny("llama3")), out=str(tmp_path / "out"), progress=lambda *step: None)
    model = read(Checked, json.loads(json.dumps(said))).model
    shapes = open_checkpoint(str(tiny("llama3"))).config.shapes().values()
    numbers = sum(rows * (rest[0] if rest else 1) for rows, *rest in shapes)
    assert (model.source, model.revision, model.head_dim, model.vocab) == ("a/model", "main", 32, 300)
    assert (model.layers, model.heads, model.kv_heads, model.parameters) == (2, 4, 2, numbers)


def test_what_lowering_returns(tiny_bundle):
    """Notes are the user's: the manifest's entry has none of them."""
    entry = json.loads((tiny_bundle("llama", "int4") / "manifest.json").read_text())["targets"]["onnx"]
    lowered = read(Lowered, {"entry": entry, "notes": ["a note"]})
    assert lowered.entry.to_json() == entry and lowered.notes == ["a note"]
