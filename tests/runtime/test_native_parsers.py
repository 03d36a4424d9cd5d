"""Native code sees a bundle's file after its hash and, where it has one, its header (docs/security.md)."""

from __future__ import annotations

import shutil

import pytest

from smolship.runtime.bundle import open_bundle
from smolship.runtime.engines import executorch
from smolship.runtime.errors import InputError
from tests.bundles import sign

ARTIFACTS = {"executorch": "model.pte", "gguf": "model.gguf", "onnx": "model.onnx"}


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "bundle")


def forbidden(*arguments, **options):
    raise AssertionError("native code was asked")


def flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


def test_the_tokenizer_is_hashed_before_it_is_parsed(bundle, monkeypatch):
    assert open_bundle(bundle).tokenizer.encode("fox")
    flip(bundle / "tokenizer.json")
    monkeypatch.setattr("smolship.runtime.bundle.Tokenizer", forbidden)
    with pytest.raises(InputError, match=r"tokenizer\.json: its SHA-256"):
        open_bundle(bundle).tokenizer  # noqa: B018


@pytest.mark.parametrize("target", ARTIFACTS)
def test_artifacts_are_hashed_before_an_engine_is_loaded(bundle, target, monkeypatch):
    flip(bundle / target / ARTIFACTS[target])
    monkeypatch.setattr("smolship.runtime.bundle.load_engine", forbidden)
    with pytest.raises(InputError, match="its SHA-256"):
        open_bundle(bundle).session(target)


@pytest.mark.parametrize("target", ["executorch", "gguf"])
@pytest.mark.parametrize("damage", [lambda data: data[:20], lambda data: b"?" * 40 + data[40:], lambda data: b""])
def test_headers_are_checked_where_the_hash_is_right(bundle, target, damage, monkeypatch):
    """Of a bundle whose maker wrote the manifest, too."""
    import llama_cpp

    path = bundle / target / ARTIFACTS[target]
    path.write_bytes(damage(path.read_bytes()))
    sign(bundle)
    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", forbidden)
    monkeypatch.setattr(executorch, "_runtime", forbidden)
    with pytest.raises(InputError, match="does not begin as a"):
        open_bundle(bundle).session(target)
