"""Targets that are added to a bundle: it comes to what one export of all of them makes, or to nothing."""

from __future__ import annotations

import json
import shutil

import pytest

from smolship.export import add_targets, export, pipeline
from smolship.runtime import folders
from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import InputError
from smolship.runtime.probes import Probes
from smolship.runtime.readback.compare import compare
from smolship.tools.cli import run
from tests.bundles import sign, snapshot
from tests.export.fake_steps import FakeSteps

TEXT = "the quick brown fox jumps over the lazy dog; every good boy deserves favour. " * 20
OPTIONS = {"context": 64, "quant": "int4", "group_size": 64, "embedding": 4, "probe_tokens": 32}


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """Steps that take no time, kept in a folder of the test's own."""
    monkeypatch.setenv("SMOLSHIP_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(folders.os, "fsync", lambda descriptor: None)
    fake = FakeSteps()
    monkeypatch.setattr(pipeline, "run_step", fake)
    return fake


@pytest.fixture
def model(tiny, tmp_path):
    return shutil.copytree(tiny("llama"), tmp_path / "model")


@pytest.fixture
def bundle(model, tmp_path, steps):
    made = export(model, tmp_path / "bundle", to=["gguf", "onnx"], **OPTIONS).path
    steps.begun.clear()
    return made


def but_for_times(bundle):
    files = snapshot(bundle)
    raw = json.loads(files["manifest.json"])
    return files | {"manifest.json": raw | {"steps": sorted(raw["steps"])}}


def refused(bundle, words, to=("executorch",), **options):
    """The message; the bundle is as it was, stands alone, and nothing but a check was begun."""
    before = snapshot(bundle)
    with pytest.raises(InputError, match=words) as caught:
        add_targets(bundle, to, **options)
    assert snapshot(bundle) == before
    assert not list(bundle.parent.glob(".*"))
    return str(caught.value)


@pytest.mark.parametrize("cache", [True, False])
def test_it_comes_to_what_one_export_makes(model, bundle, tmp_path, steps, cache):
    export(model, tmp_path / "whole", to=["gguf", "onnx", "executorch", "coreml"], cache=False, **OPTIONS)
    steps.begun.clear()
    before = open_bundle(bundle).manifest.steps
    added = add_targets(bundle, ["executorch", "coreml"], model=model, cache=cache)
    again = [] if cache else ["quantize"]
    assert steps.begun == [*again, "lower executorch", "lower coreml", "probe"]
    assert but_for_times(bundle) == but_for_times(tmp_path / "whole")
    added.verify()
    costs = added.manifest.steps
    assert next(iter(costs)) == "quantize" and costs["lower gguf"].seconds == before["lower gguf"].seconds
    assert costs["lower gguf"].run == "before executorch, coreml was added" and costs["lower coreml"].run is None
    assert bool(costs["quantize"].run) is cache


def test_parts_of_the_probes_are_found(model, bundle, steps):
    add_targets(bundle, ["coreml"], model=model)
    assert steps.parts == [[], ["part1"]]


def test_the_template_for_apps_stays_and_an_older_bundle_gets_one(model, bundle):
    (bundle / "template.json").write_text("of another version")
    sign(bundle)
    add_targets(bundle, ["coreml"], model=model).verify()
    assert (bundle / "template.json").read_text() == "of another version"
    (bundle / "template.json").unlink()
    sign(bundle)
    assert "template.json" in add_targets(bundle, ["executorch"], model=model).manifest.files


def test_without_probes(model, tmp_path, steps):
    export(model, tmp_path / "bundle", to=["gguf"], context=64, probe_tokens=0)
    added = add_targets(tmp_path / "bundle", ["onnx"], model=model)
    assert "probe" not in steps.begun and "probes.npz" not in added.manifest.files
    assert [note for note in added.manifest.quantization.notes if "no probes" in note]


@pytest.mark.real
def test_real_targets(tiny, tmp_path, monkeypatch):
    """The weights of both are read back, and are the same."""
    export(tiny("llama"), tmp_path / "bundle", to=["gguf"], context=32, probe_tokens=16)
    artifact = (tmp_path / "bundle/gguf/model.gguf").read_bytes()
    added = add_targets(tmp_path / "bundle", ["onnx"], model=tiny("llama"))
    assert (tmp_path / "bundle/gguf/model.gguf").read_bytes() == artifact
    assert all(not held.wrong for held in compare(added, ["gguf", "onnx"]))
    assert {"gguf.simulated", "onnx.simulated"} <= set(added.probes().sketches)


def test_an_interrupt_leaves_the_old_bundle(model, bundle, steps):
    before = snapshot(bundle)
    steps.stop = "lower coreml"
    with pytest.raises(KeyboardInterrupt):
        add_targets(bundle, ["executorch", "coreml"], model=model)
    assert snapshot(bundle) == before and not list(bundle.parent.glob(".*"))
    steps.stop = ""
    steps.begun.clear()
    add_targets(bundle, ["executorch", "coreml"], model=model)
    assert steps.begun == ["lower coreml", "probe"]


def test_another_checkpoint(model, bundle, steps):
    raw = bytearray((model / "model.safetensors").read_bytes())
    raw[-2] ^= 0x10
    (model / "model.safetensors").write_bytes(raw)
    refused(bundle, "the checkpoint: not the bundle's", model=model)
    assert steps.begun == []


def test_other_side_files(model, bundle, steps):
    for name, old, new in (("chat_template.jinja", "assistant", "model"), ("tokenizer_config.json", "}", ', "x": 1}')):
        text = (model / name).read_text()
        (model / name).write_text(text.replace(old, new))
        assert name in refused(bundle, "side files are not the bundle's", model=model)
        (model / name).write_text(text)
    assert steps.begun == []


def test_other_weights(model, bundle):
    """Of a version that quantizes otherwise: the same checkpoint comes to another set."""
    raw = json.loads((bundle / "manifest.json").read_text()) | {"weights_digest": "0" * 64}
    (bundle / "manifest.json").write_text(json.dumps(raw))
    refused(bundle, "the weights: not the bundle's", model=model)


@pytest.mark.parametrize(
    "to, words",
    [
        (["gguf"], "holds that target already"),
        (["coreml", "onnx"], "holds that target already"),
        (["tensorflow"], "unknown target"),
        ([], "unknown target"),
    ],
)
def test_targets_that_cannot_be_added(model, bundle, steps, to, words):
    refused(bundle, words, to=to, model=model)
    assert steps.begun == []


def test_an_altered_bundle(model, bundle, steps):
    (bundle / "gguf/model").write_bytes(b"mine")
    refused(bundle, "altered", model=model)
    assert steps.begun == []


def test_a_bundle_that_is_altered_meanwhile(model, bundle, steps, monkeypatch):
    inner = steps.lower

    def lower(**given):
        with (bundle / "gguf/model").open("r+b") as file:
            file.write(b"mine")
        return inner(**given)

    monkeypatch.setattr(steps, "lower", lower)
    with pytest.raises(InputError, match="not what they were"):
        add_targets(bundle, ["coreml"], model=model)
    assert set(open_bundle(bundle).manifest.targets) == {"gguf", "onnx"}


def test_a_bundle_that_does_not_say_its_checkpoint(model, bundle, steps):
    raw = json.loads((bundle / "manifest.json").read_text())
    del raw["model"]["checkpoint"]
    (bundle / "manifest.json").write_text(json.dumps(raw))
    assert "smolship export MODEL" in refused(bundle, "does not say which checkpoint", model=model)
    assert steps.begun == []


def test_the_model_is_asked_for(bundle, steps):
    assert "smolship export PATH" in refused(bundle, "no model")


def test_a_hub_id_is_known(bundle, model, monkeypatch):
    raw = json.loads((bundle / "manifest.json").read_text())
    raw["model"] |= {"source": "owner/tiny", "revision": "v2"}
    (bundle / "manifest.json").write_text(json.dumps(raw))
    asked, inner = [], pipeline.open_checkpoint

    def open_checkpoint(name, revision=None, tokenizer=None):
        asked.append((name, revision))
        return inner(str(model))

    monkeypatch.setattr("smolship.export.adding.open_checkpoint", open_checkpoint)
    added = add_targets(bundle, ["coreml"])
    assert asked == [("owner/tiny", "v2")]
    assert (added.manifest.model.source, added.manifest.model.revision) == asked[0]
    with pytest.raises(InputError, match="no model"):  # a path is none, whoever wrote the manifest
        raw["model"]["source"] = "../../etc"
        (bundle / "manifest.json").write_text(json.dumps(raw))
        sign(bundle)
        add_targets(bundle, ["executorch"])


def test_a_text_of_ones_own(model, tmp_path, steps):
    own = tmp_path / "own"
    export(model, own, to=["gguf"], probe_text=TEXT, **OPTIONS)
    steps.begun.clear()
    assert "--probe-text FILE" in refused(own, "of a text of their own", model=model)
    refused(own, "not the text", model=model, probe_text="another text " * 100)
    assert steps.begun == []
    added = add_targets(own, ["executorch"], model=model, probe_text=TEXT)
    assert {window.kind for window in Probes.load(added.path / "probes.npz").windows} == {"text"}


def test_a_text_where_there_was_none(model, bundle):
    refused(bundle, "of the default text", model=model, probe_text=TEXT)


def test_other_versions_are_said(model, bundle):
    raw = json.loads((bundle / "manifest.json").read_text())
    raw["tools"]["torch"] = "1.0"
    (bundle / "manifest.json").write_text(json.dumps(raw))
    added = add_targets(bundle, ["coreml"], model=model)
    said = [note for note in added.manifest.quantization.notes if "made with" in note]
    assert said == [f"{name}: made with torch 1.0, before coreml was added" for name in ("gguf", "onnx")]
    again = add_targets(bundle, ["executorch"], model=model)
    assert said == [note for note in again.manifest.quantization.notes if "made with" in note]


class TestTheCommand:
    @pytest.mark.parametrize(
        "given", [["--to", "onnx"], ["--quant", "int4"], ["--context", "64"], ["--probe-tokens", "0"]]
    )
    def test_options_that_it_does_not_take(self, model, bundle, steps, given, capsys):
        before = snapshot(bundle)
        assert run(["export", str(model), "-o", str(bundle), "--add", "coreml", *given]) == 2
        said = capsys.readouterr().err
        assert f"got:      {given[0]}\n" in said and snapshot(bundle) == before and steps.begun == []

    def test_it_adds(self, model, bundle, steps, capsys):
        assert (
            run(["export", str(model), "-o", str(bundle), "--add", "coreml, executorch", "--json", "--no-cache"]) == 0
        )
        assert list(json.loads(capsys.readouterr().out)["targets"]) == ["gguf", "onnx", "coreml", "executorch"]
        assert steps.begun[0] == "quantize"

    def test_an_export_needs_a_model(self, tmp_path, capsys):
        assert run(["export", "-o", str(tmp_path / "out")]) == 2
        assert "MODEL" in capsys.readouterr().err
