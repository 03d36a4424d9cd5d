"""Steps that an export has done are not done again: what is taken, what is not, and that it comes to the same."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from smolship.export import export, pipeline
from smolship.export.kept import keys, place, store
from smolship.export.kept.entries import entries
from smolship.runtime import folders
from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import InputError
from tests.bundles import snapshot
from tests.export.fake_steps import FakeSteps


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where steps are kept."""
    monkeypatch.setenv("SMOLSHIP_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def model(tiny, tmp_path):
    return shutil.copytree(tiny("llama"), tmp_path / "model")


@pytest.fixture
def steps(monkeypatch):
    """Steps that take no time, on a disk that need not be waited for."""
    fake = FakeSteps()
    monkeypatch.setattr(pipeline, "run_step", fake)
    monkeypatch.setattr(folders.os, "fsync", lambda descriptor: None)
    return fake


@pytest.fixture
def begun(steps):
    """The steps that were begun since it was emptied, but for the check."""
    return steps.begun


def run(model, out, **options):
    """(the bundle, what was said of each step at its end)"""
    said = {}

    def progress(step, what, done, total):
        said[step] = what

    given = {"to": ["gguf"], "context": 64, "probe_tokens": 0} | options
    return export(model, out, progress=progress, **given), said


def but_for_times(bundle: Path):
    """All of a bundle; of the costs of steps, which have one."""
    files = snapshot(bundle)
    raw = json.loads(files["manifest.json"])
    return files | {"manifest.json": raw | {"steps": list(raw["steps"])}}


ALL, LOWER = ["quantize", "lower gguf"], ["lower gguf"]
TWO = {"to": ["gguf", "onnx"], "probe_tokens": 64}


def test_an_interrupted_export_goes_on_where_it_was(model, tmp_path, kept, steps, begun):
    whole, _ = run(model, tmp_path / "whole", cache=False, **TWO)
    assert begun == ["quantize", "lower gguf", "lower onnx", "probe"] and not kept.exists()
    steps.stop = "lower onnx"
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path / "out", **TWO)
    assert not (tmp_path / "out").exists()
    steps.stop = ""
    begun.clear()
    bundle, said = run(model, tmp_path / "out", **TWO)
    assert begun == ["lower onnx", "probe"]
    assert said["quantize"].startswith("kept from 20") and said["lower gguf"].startswith("kept from 20")
    assert but_for_times(bundle.path) == but_for_times(whole.path)
    runs = {name: cost.run for name, cost in bundle.manifest.steps.items()}
    assert runs == {"quantize": said["quantize"], "lower gguf": said["quantize"], "lower onnx": None, "probe": None}


def test_a_repeated_export_takes_all(model, tmp_path, kept, begun):
    bundle, _ = run(model, tmp_path / "out", **TWO)
    begun.clear()
    again, _ = run(model, tmp_path / "again", **TWO)
    assert begun == [] and but_for_times(again.path) == but_for_times(bundle.path)
    again.verify()
    for name, cost in again.manifest.steps.items():
        made = bundle.manifest.steps[name]
        assert (cost.seconds, cost.peak_bytes) == (made.seconds, made.peak_bytes) and cost.run and not made.run
    whole, _ = run(model, tmp_path / "whole", cache=False, **TWO)  # in spite of it
    assert len(begun) == 4 and not any(cost.run for cost in whole.manifest.steps.values())


@pytest.mark.real
def test_real_steps(model, tmp_path, kept, monkeypatch):
    """Interrupted after the first target; then nothing of it is made again, and it comes to the same bits."""
    inner, begun = pipeline.run_step, []

    def run_step(name, arguments, progress):
        begun.append(f"{name} {arguments.get('target', '')}".strip())
        if begun[-1] == "lower onnx" and begun.count("check") == 2:
            raise KeyboardInterrupt
        return inner(name, arguments, progress)

    monkeypatch.setattr(pipeline, "run_step", run_step)
    options = TWO | {"probe_tokens": 16, "context": 32}
    whole, _ = run(model, tmp_path / "whole", cache=False, **options)
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path / "out", **options)
    begun.clear()
    bundle, _ = run(model, tmp_path / "out", **options)
    assert begun == ["check", "lower onnx", "probe"]
    assert but_for_times(bundle.path) == but_for_times(whole.path)


def edit(name, **changes):
    def change(model):
        raw = json.loads((model / name).read_text()) | changes
        (model / name).write_text(json.dumps(raw))

    return change


def weight(model):
    raw = bytearray((model / "model.safetensors").read_bytes())
    raw[-2] ^= 0x10  # of one number
    (model / "model.safetensors").write_bytes(raw)


def template(model):
    path = model / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant", "model"))


@pytest.mark.parametrize(
    "options, change, wanted",
    [
        ({}, None, []),
        ({"quant": "int8"}, None, ALL),
        ({"group_size": 64}, None, ALL),
        ({"embedding": 4}, None, ALL),
        ({"context": 65}, None, LOWER),
        ({"to": ["onnx", "gguf"]}, None, ["lower onnx"]),
        ({}, weight, ALL),
        ({}, edit("config.json", rms_norm_eps=1e-6), ALL),
        ({}, edit("generation_config.json", temperature=0.5, do_sample=True), LOWER),
        ({}, template, LOWER),
        ({}, lambda model: os.utime(model / "model.safetensors", (0, 0)), []),
    ],
)
def test_what_a_step_depends_on(model, tmp_path, kept, begun, options, change, wanted):
    run(model, tmp_path / "out")
    begun.clear()
    if change:
        change(model)
    moved = model.rename(tmp_path / "moved")  # the place is nothing that it depends on
    bundle, _ = run(moved, tmp_path / "out", **options)
    assert begun == wanted
    bundle.verify()


def test_probes_depend_on_more(model, tmp_path, kept, begun):
    text = "the quick brown fox jumps over the lazy dog; every good boy deserves favour. " * 20
    run(model, tmp_path / "out", probe_tokens=32)
    for options in ({"probe_tokens": 40}, {"probe_tokens": 32, "probe_text": text}):
        begun.clear()
        run(model, tmp_path / "out", **options)
        assert begun == ["probe"], options
        run(model, tmp_path / "out", **options)
        assert begun == ["probe"], "and not once more"


def test_versions_of_what_a_step_uses(model, tmp_path, kept, begun, monkeypatch):
    run(model, tmp_path / "out", to=["gguf", "onnx"])
    versions = keys._version
    for package, wanted in {
        "onnx_ir": ["lower onnx"],
        "torch": ["lower gguf", "lower onnx"],
        "coremltools": [],
    }.items():
        begun.clear()
        with monkeypatch.context() as patch:
            patch.setattr(keys, "_version", lambda name, new=package: "99" if name == new else versions(name))
            run(model, tmp_path / "out", to=["gguf", "onnx"])
        assert begun == wanted, package


def test_a_changed_source_takes_nothing(model, tmp_path, kept, begun, monkeypatch):
    run(model, tmp_path / "out")
    begun.clear()
    monkeypatch.setattr(keys, "sources", lambda: "changed")
    run(model, tmp_path / "out")
    assert begun == ALL


def test_every_source_counts(monkeypatch, tmp_path):
    keys.sources.cache_clear()
    before, own = keys.sources(), tmp_path / "more"
    own.mkdir()
    monkeypatch.setattr(keys.smolship.export, "__path__", [*keys.smolship.export.__path__, str(own)])
    for content in ("a = 1", "a = 2"):
        (own / "new.py").write_text(content)
        keys.sources.cache_clear()
        assert keys.sources() != before
        before = keys.sources()
    keys.sources.cache_clear()


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "kind, name, do, wanted",
    [
        ("quantize", "files/.work/weights.safetensors", flip, ["quantize"]),
        ("lower", "files/gguf/model", flip, LOWER),
        ("lower", "files/gguf/model", lambda path: path.write_bytes(path.read_bytes()[:-1]), LOWER),
        ("lower", "files/gguf/model", Path.unlink, LOWER),
        ("lower", "files/gguf/more/data", flip, LOWER),
        ("lower", "files/.work/gguf/weights.safetensors", flip, LOWER),
        ("lower", "record.json", flip, LOWER),
        ("lower", "record.json", lambda path: path.write_text("[]"), LOWER),
        (
            "lower",
            "record.json",
            lambda path: path.write_text(path.read_text().replace('seconds": ', 'seconds": 1')),
            LOWER,
        ),
    ],
)
def test_a_damaged_one_is_made_again(model, tmp_path, kept, begun, kind, name, do, wanted):
    first, _ = run(model, tmp_path / "first")
    before = but_for_times(first.path)
    shutil.rmtree(first.path)
    (folder,) = kept.glob(f"{kind}-*")
    do(folder / name)
    begun.clear()
    bundle, said = run(model, tmp_path / "out")
    assert begun == wanted
    assert "damaged" in said[wanted[0]] and "removed" in said[wanted[0]]
    assert but_for_times(bundle.path) == before
    begun.clear()
    run(model, tmp_path / "out")
    assert begun == []


def test_bundles_never_share_a_file(model, tmp_path, kept, begun):
    """What a user writes into one of them changes no other, and is not taken for what was kept."""
    bundles = [run(model, tmp_path / name)[0].path for name in ("a", "b", "c")]
    before = but_for_times(bundles[1])
    with (bundles[0] / "gguf/model").open("r+b") as file:
        file.write(b"mine")
    assert but_for_times(bundles[1]) == before == but_for_times(bundles[2])
    begun.clear()
    bundle, said = run(model, tmp_path / "d")
    assert begun == LOWER and "damaged (gguf/model)" in said["lower gguf"]
    assert but_for_times(bundle.path) == before


def test_a_checkpoint_that_changes_meanwhile_is_not_kept(model, tmp_path, kept, steps, monkeypatch):
    inner = pipeline.run_step

    def run_step(name, arguments, progress):
        if name == "quantize":
            weight(model)  # as many bytes as before
        return inner(name, arguments, progress)

    monkeypatch.setattr(pipeline, "run_step", run_step)
    run(model, tmp_path / "out")
    assert entries(kept) == []


def test_a_disk_without_room_does_not_fail_the_export(model, tmp_path, kept, begun, monkeypatch):
    def full(source, target):
        target.parent.mkdir(parents=True)
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr(store, "link", full)
        bundle, said = run(model, tmp_path / "out")
    bundle.verify()
    assert "not kept: the disk is full" in said["quantize"] and "not kept" in said["lower gguf"]
    assert entries(kept) == [] and [path.name for path in kept.iterdir()] == ["CACHEDIR.TAG"]


def test_a_full_disk_is_no_damage(model, tmp_path, kept, begun, monkeypatch):
    run(model, tmp_path / "out")
    begun.clear()

    def full(source, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr(store, "clone", full)
        _, said = run(model, tmp_path / "out")
    assert begun == LOWER and "cannot be taken" in said["lower gguf"]
    begun.clear()
    run(model, tmp_path / "out")
    assert begun == []


def test_more_than_may_be_kept(model, tmp_path, kept, steps, monkeypatch):
    monkeypatch.setenv("SMOLSHIP_CACHE_LIMIT", "1kB")
    bundle, said = run(model, tmp_path / "out")
    bundle.verify()
    assert "not kept" in said["quantize"] and entries(kept) == []


def test_a_place_of_the_users_own_that_cannot_be_used(model, tmp_path, steps, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setenv("SMOLSHIP_CACHE", str(tmp_path / "link"))
    with pytest.raises(InputError, match="a link"):
        run(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_usual_place_where_it_cannot_be_used(model, tmp_path, monkeypatch, begun):
    monkeypatch.delenv("SMOLSHIP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "smolship").symlink_to(tmp_path / "elsewhere")
    bundle, said = run(model, tmp_path / "out")
    bundle.verify()
    assert "no steps are kept" in said["check"] and "a link" in said["check"]
    assert begun == ALL and not (tmp_path / "elsewhere").exists()
    (tmp_path / "smolship").unlink()
    _, said = run(model, tmp_path / "out")
    assert said["check"] == "check" and len(entries(tmp_path / "smolship")) == 2
    assert (tmp_path / "smolship").stat().st_mode & 0o777 == 0o700


def test_parts_of_probes_are_found_by_other_targets(model, tmp_path, kept, steps):
    """And by the next export where one was interrupted; not where the text, the context or the set is another."""
    steps.stop = "probe"
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path / "out", probe_tokens=32)
    steps.stop = ""
    for options in ({}, {"to": ["gguf", "onnx"]}, {"probe_tokens": 40}, {"quant": "int8"}, {"cache": False}):
        run(model, tmp_path / "out", **{"probe_tokens": 32} | options)
    assert steps.parts == [[], ["part1"], ["part1", "part2"], [], [], None]
    sizes = sorted(entry.size for entry in entries(kept) if entry.kind == "parts")
    assert sizes[-1] > sizes[0] + len("measured")


def test_the_manifest_names_the_checkpoint(model, tmp_path, tiny, steps):
    bundle, _ = run(model, tmp_path / "out")
    other, _ = run(tiny("llama"), tmp_path / "other")
    assert bundle.manifest.model.checkpoint == other.manifest.model.checkpoint
    weight(model)
    changed, _ = run(model, tmp_path / "changed")
    assert changed.manifest.model.checkpoint != bundle.manifest.model.checkpoint
    raw = json.loads((tmp_path / "out/manifest.json").read_text())
    del raw["model"]["checkpoint"], raw["steps"]["quantize"]["run"]
    (tmp_path / "out/manifest.json").write_text(json.dumps(raw))
    assert open_bundle(tmp_path / "out").manifest.model.checkpoint is None  # an older bundle


def test_place_is_used_as_it_is(kept, model, tmp_path, steps):
    """A folder of the user's own keeps its mode and what else lies there."""
    kept.mkdir(mode=0o755)
    (kept / "thesis.tex").write_text("years of work")
    run(model, tmp_path / "out")
    assert (kept / "thesis.tex").exists() and kept.stat().st_mode & 0o777 == 0o755
    assert place.place() == kept
