"""What an export refuses, it refuses before the work, all problems at once; what changes nothing does not end it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from smolship.export import export, pipeline, preflight, translation
from smolship.export.families import rope
from smolship.runtime.errors import GateError, InputError, SetupError
from smolship.tools.cli import run
from tests.bundles import snapshot
from tests.conftest import make_tiny


@pytest.fixture
def changed(tiny: Any, tmp_path: Path) -> Any:
    """changed("llama", key=value, …) -> a copy of the tiny checkpoint with that in its config.json."""

    def make(kind: str, **changes: Any) -> Path:
        folder = shutil.copytree(tiny(kind), tmp_path / "model")
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return folder

    return make


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Only the check may run; the list says what else was begun."""
    begun: list[str] = []
    inner = pipeline.run_step

    def step(name: str, *rest: Any) -> Any:
        if name == "check":
            return inner(name, *rest)
        begun.append(name)
        raise AssertionError(f"{name} was begun")

    monkeypatch.setattr(pipeline, "run_step", step)
    return begun


def test_all_problems_of_all_targets_at_once(tmp_path, no_work):
    model = make_tiny(
        tmp_path / "odd",
        "smollm3",
        hidden_size=80,
        num_attention_heads=4,
        num_key_value_heads=4,
        no_rope_layers=[1, 0, 1, 1],
    )
    with pytest.raises(InputError) as caught:
        export(model, tmp_path / "out", to=["executorch", "onnx", "gguf"], context=1000)
    text = str(caught.value)
    for part in ("3 problems", "context", "512", "gguf: ", "no_rope_layers", "80 inputs"):
        assert part in text
    assert not no_work and not (tmp_path / "out").exists()


@pytest.mark.parametrize("context", [0, 1, -5, 513])
def test_a_context_that_cannot_be(tiny, tmp_path, no_work, context):
    with pytest.raises(InputError, match="context cannot be that long"):
        export(tiny("llama"), tmp_path / "out", to=["onnx"], context=context)


def test_a_tokenizer_that_gguf_cannot_hold_is_known_beforehand(tiny, tmp_path, no_work):
    model = shutil.copytree(tiny("llama"), tmp_path / "model")
    raw = json.loads((model / "tokenizer.json").read_text())
    raw["normalizer"] = {"type": "NFC"}
    (model / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match=r"llama\.cpp does not tokenize so: normalizer"):
        export(model, tmp_path / "out", to=["onnx", "gguf"], context=64)


@pytest.mark.parametrize(
    ("target", "sizes", "why"),
    [
        ("coreml", {"intermediate_size": 9}, "layers.0.gate is stored in an array of 9 numbers"),
        ("coreml", {"head_dim": 4, "num_key_value_heads": 1}, "layers.0.k is stored in an array of 4 numbers"),
        ("gguf", {"vocab_size": 259}, "merges of tokenizer.json"),
        ("gguf", {"intermediate_size": 48}, "layers.0.down"),
    ],
    ids=str,
)
def test_sizes_that_a_format_cannot_hold(tmp_path, no_work, target, sizes, why):
    model = make_tiny(tmp_path / "model", "llama", **sizes)
    with pytest.raises(InputError, match=f"{target}: .*{why}"):
        export(model, tmp_path / "out", to=[target], context=64, quant="int8")


@pytest.mark.parametrize(
    ("lost", "extra"),
    [
        ("torch", "export"),
        ("transformers", "export"),
        ("onnx_ir", "onnx"),
        ("coremltools", "coreml"),
        ("executorch", "executorch"),
        ("gguf", "gguf"),
    ],
)
def test_a_package_that_is_not_installed(tiny, tmp_path, no_work, monkeypatch, lost, extra):
    find = preflight.find_spec
    monkeypatch.setattr(preflight, "find_spec", lambda name: None if name == lost else find(name))
    with pytest.raises(SetupError, match=rf"(?s)no {lost}.*pip install 'smolship\[{extra}\]'"):
        export(tiny("llama"), tmp_path / "out", to=["onnx", "coreml", "executorch", "gguf"], context=64)


def test_only_what_is_needed_must_be_installed(tiny, tmp_path, monkeypatch):
    find = preflight.find_spec
    monkeypatch.setattr(preflight, "find_spec", lambda name: None if name in ("transformers", "gguf") else find(name))
    export(tiny("llama"), tmp_path / "out", to=["onnx"], context=64, probe_tokens=0)


@pytest.mark.real
@pytest.mark.parametrize(
    "changes",
    [
        {
            "pad_token_id": 300,
            "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128},
            "torch_dtype": "float7",
            "head_dim": None,
        },
        pytest.param(
            {
                "pad_token_id": -7,
                "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
                "attn_implementation": "flash_attention_2",
                "auto_map": {"AutoModelForCausalLM": "evil.Model"},
                "logits_scaling": 7.0,
                "use_qk_norm": True,
            },
            marks=pytest.mark.real,
        ),
    ],
    ids=["gptq", "bitsandbytes"],
)
def test_a_value_that_no_logit_depends_on_ends_no_export(changed, tmp_path, changes):
    bundle = export(changed("smollm3", **changes), tmp_path / "out", to=["onnx"], context=64, probe_tokens=32)
    notes = " ".join(bundle.manifest.quantization.notes)
    assert all(key in notes for key in ("quantization_config", "logits_scaling") if key in changes)


def test_export_judges_its_own_translation(tiny, tmp_path, monkeypatch):
    """A reading of ours that is not the original's: here every theta is wrong by a tenth."""
    read = rope.Rotary
    monkeypatch.setattr(rope, "Rotary", lambda theta, *rest: read(theta * 1.1, *rest))
    out = tmp_path / "out"
    with pytest.raises(GateError, match=r"(?s)our decoder does not say what the original says.*nothing was written"):
        export(tiny("llama"), out, to=["onnx"], context=64, probe_tokens=64)
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob(".out*"))
    monkeypatch.undo()


def test_and_ends_in_1_with_the_older_bundle_as_it_was(tiny, tiny_bundle, tmp_path, monkeypatch, capsys):
    out = shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "out")
    options = ["--to", "onnx", "--context", "64", "--probe-tokens", "64"]
    before = snapshot(out)
    norm = translation.translation_checks
    monkeypatch.setattr(translation, "translation_checks", lambda *args: [_failed(check) for check in norm(*args)])
    assert run(["export", str(tiny("llama")), "-o", str(out), *options]) == 1
    assert "mean KL" in capsys.readouterr().err
    assert snapshot(out) == before


def _failed(check: Any) -> Any:
    check.passed = False
    return check


def test_an_export_without_probes_says_so(tiny, tmp_path):
    bundle = export(tiny("llama"), tmp_path / "out", to=["onnx"], context=64, probe_tokens=0)
    assert any("--probe-tokens 0" in note for note in bundle.manifest.quantization.notes)
