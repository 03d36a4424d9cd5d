"""What an export may replace, and whether there is room for it: asked before the work."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections import namedtuple

import pytest

from smolship.export import export, output
from smolship.export.checkpoints import open_checkpoint
from smolship.export.options import Options
from smolship.export.output import NAMES, check_output, check_space, replaceable
from smolship.export.weights import SCHEMES, layouts, stored_shapes
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.manifest import read_manifest
from tests.bundles import snapshot


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "bundle")


def refused(folder, words):
    """The message; the folder is as it was, and stands alone."""
    before = snapshot(folder)
    with pytest.raises(InputError, match=words) as caught:
        check_output(folder)
    assert snapshot(folder) == before and [p.name for p in folder.parent.iterdir()] == [folder.name]
    return str(caught.value)


FOREIGN = {
    "a browser extension": {"manifest_version": 3, "name": "x", "version": "1", "permissions": ["tabs"]},
    "a web app": {"name": "x", "start_url": "/", "icons": [], "display": "standalone"},
    "a container image": {"schemaVersion": 2, "config": {"size": 7, "digest": "sha256:0"}, "layers": []},
    "a list of files": {"files": {"a.txt": {"size": 1, "sha256": "00"}}},
    "nothing": {},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_another_programs_manifest(tmp_path, kind):
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(FOREIGN[kind]))
    refused(folder, "something else")
    (folder / "a.txt").write_text("mine")
    assert "a.txt" in refused(folder, "something else")


@pytest.mark.parametrize("content", ["[]", "null", "{", "", "\ufeff{}", '{"schema": true}'])
def test_a_manifest_that_is_none(bundle, content):
    (bundle / "manifest.json").write_text(content)
    refused(bundle, "something else")


@pytest.mark.parametrize("name", ["thesis.tex", "onnx/notes.md", ".DS_Store", "onnx/model.onnx.bak", "new/", "a/b/c"])
def test_a_strangers_file_in_a_bundle(bundle, name):
    path = bundle / name
    path.mkdir() if name.endswith("/") else path.parent.mkdir(parents=True, exist_ok=True)
    if not name.endswith("/"):
        path.write_text("years of work")
    assert name in refused(bundle, "beside a bundle")


def test_strange_links_and_fifos_in_a_bundle(bundle, tmp_path):
    (bundle / "link").symlink_to(tmp_path)
    assert "link" in refused(bundle, "beside a bundle")
    (bundle / "link").unlink()
    os.mkfifo(bundle / "onnx" / "fifo")
    with pytest.raises(InputError, match="onnx/fifo"):
        check_output(bundle)


def test_a_bundle_may_be_replaced(bundle):
    assert check_output(bundle) == bundle
    (bundle / "config.json").unlink()  # files that are gone, or altered, are nobody's loss
    shutil.rmtree(bundle / "onnx")
    (bundle / "onnx").mkdir()
    (bundle / "weights.json").write_text("altered")
    assert check_output(bundle) == bundle


@pytest.mark.parametrize("change", [{"schema": 0}, {"schema": 7, "more": {}}, {"model": None}, {"steps": None}])
def test_a_bundle_of_another_version_may_be_replaced(bundle, change):
    raw = json.loads((bundle / "manifest.json").read_text()) | change
    (bundle / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(InputError):
        read_manifest(bundle)
    assert check_output(bundle) == bundle


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "new").mkdir()
    assert check_output(tmp_path / "new") == tmp_path / "new"


def test_a_folder_of_folders_is_not_empty(tmp_path):
    (tmp_path / "projects" / "one").mkdir(parents=True)
    assert "one/" in refused(tmp_path / "projects", "something else")


def test_a_folder_that_cannot_be_read(bundle, monkeypatch):
    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(folder)))
        return iter([])

    monkeypatch.setattr(output.os, "walk", walk)
    with pytest.raises(InputError, match="cannot be read"):
        replaceable(bundle)


def test_what_comes_into_the_folder_while_the_work_goes_on_is_kept(tiny, bundle, monkeypatch):
    def meanwhile(step, what, done, total):
        (bundle / "notes.txt").write_text("written meanwhile")

    before = snapshot(bundle)
    with pytest.raises(InputError, match=r"notes\.txt"):
        export(tiny("llama"), bundle, to=("gguf",), context=64, probe_tokens=0, progress=meanwhile)
    assert snapshot(bundle) == before | {"notes.txt": b"written meanwhile"}
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_the_check_comes_before_everything_else(tiny, tmp_path, monkeypatch):
    """Before a checkpoint is opened, which may mean a download."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    monkeypatch.setattr("smolship.export.pipeline.open_checkpoint", lambda *a: pytest.fail("opened"))
    with pytest.raises(InputError, match="something else"):
        export(tiny("llama"), tmp_path / "out", to=("onnx",), context=64)


def test_every_name_at_the_top_of_a_bundle_is_known(tiny_bundle):
    """Else what a killed export left would not be swept."""
    assert {path.name for path in tiny_bundle("llama", "int4").iterdir()} <= NAMES


class TestSpace:
    Usage = namedtuple("Usage", "total used free")

    @pytest.fixture
    def free(self, monkeypatch):
        def set_free(size, total=1 << 40):
            monkeypatch.setattr(output.shutil, "disk_usage", lambda path: self.Usage(total, 0, size))

        return set_free

    @staticmethod
    def check(place, model, quant, targets):
        checkpoint = open_checkpoint(str(model))
        asked = Options("", None, tuple(targets), quant, SCHEMES[quant], 128, 0, None)
        check_space(place, checkpoint, asked, checkpoint.files)

    @pytest.mark.real
    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("kind, quant", [("llama", "int4"), ("smollm3", "int8"), ("llama_bias", "none")])
    def test_it_never_asks_for_more_than_is_written(self, tiny, tiny_bundle, free, kind, quant):
        checkpoint, scheme = open_checkpoint(str(tiny(kind))), SCHEMES[quant]
        shapes = stored_shapes(layouts(checkpoint, checkpoint.config, scheme))
        size = sum(dtype.itemsize * shape[0] * (shape[1] if len(shape) > 1 else 1) for dtype, shape in shapes.values())
        bundle = tiny_bundle(kind, quant)
        targets = list(read_manifest(bundle).targets)
        made = [sum(p.stat().st_size for p in (bundle / t).rglob("*") if p.is_file()) for t in targets]
        assert min(made) >= size and len(made) == 3
        free(size + sum(made))
        self.check(bundle, tiny(kind), quant, targets)
        free(2 * size)
        with pytest.raises(SetupError, match=f"needs [0-9,]+ bytes, and {2 * size:,} are free"):
            self.check(bundle / "not" / "there", tiny(kind), quant, targets)

    def test_a_file_system_that_does_not_tell(self, tiny, free, tmp_path):
        free(0, total=0)
        self.check(tmp_path, tiny("llama"), "int4", ["onnx"])

    def test_a_full_disk_is_said_before_the_work(self, tiny, free, tmp_path):
        free(1000)
        steps = []
        with pytest.raises(SetupError, match="the disk is full"):
            export(
                tiny("llama"), tmp_path / "a" / "b", to=("onnx",), context=64, progress=lambda *step: steps.append(step)
            )
        assert "quantize" not in {step[0] for step in steps} and not list(tmp_path.iterdir())

    def test_the_limit_of_a_file(self, tiny, tmp_path):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        try:
            with pytest.raises(SetupError, match=r"needs [0-9,]+ bytes, and the limit .* is 50,000"):
                self.check(tmp_path, tiny("llama"), "int8", ["onnx"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
