"""The llama.cpp engine: its place in the cache, files that it cannot open, and its absence."""

from __future__ import annotations

import random
import struct
import sys

import numpy as np
import pytest

from smolship.export.checkpoints import open_checkpoint
from smolship.export.targets import gguf as target
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.engines.gguf import GgufTokenizer, computes, open_session
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.tokenizer import Tokenizer
from tests.bundles import job_of
from tests.gguf_maker import blob, pair, text

CONTEXT = 600
INFO = {"file": "model.gguf", "context": CONTEXT}
IDS = np.random.default_rng(5).integers(0, 300, CONTEXT)
TEXT = 8  # the type of a string in GGUF


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    made = tmp_path_factory.mktemp("engine")
    checkpoint = open_checkpoint(str(tiny("llama")))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["none"], made)
    target.lower(job_of(checkpoint, weights, CONTEXT), made)
    return made


@pytest.fixture
def session(folder):
    with open_session(folder, INFO, threads=2) as session:
        yield session


def test_prefill_in_chunks_is_decode(session):
    """More tokens than one call takes, against the last of them by itself."""
    assert session.chunk < CONTEXT
    whole = session.forward(IDS)
    assert whole.shape == (1, 300) and session.position == CONTEXT
    session.rewind(CONTEXT - 1)
    np.testing.assert_allclose(session.forward(IDS[-1:]), whole, atol=2e-3 * np.abs(whole).max())


def test_sums_in_fp16_are_said(session):
    """A native build on a Pi 5 has them."""
    assert session.traits.computes is None
    assert computes(b"CPU : NEON = 1 | ARM_FMA = 1 | FP16_VA = 1 | DOTPROD = 1 | ") == "sums of fp16 products in fp16"
    assert computes(b"CPU : NEON = 1 | ARM_FMA = 1 | DOTPROD = 1 | ") is None


def test_a_rewound_cache_is_a_new_one(session):
    cold = session.forward(IDS[:40], "all")
    session.rewind(20)
    session.forward(IDS[100:130])
    session.rewind(20)
    assert session.position == 20
    np.testing.assert_array_equal(session.forward(IDS[20:40], "all"), cold[20:])
    session.rewind(0)
    np.testing.assert_array_equal(session.forward(IDS[:20], "all"), cold[:20])


def test_two_sessions_do_not_meet(folder, session):
    alone = session.forward(IDS[:9])
    with open_session(folder, INFO, threads=1) as other:
        other.forward(IDS[50:80])
        session.rewind(8)
        np.testing.assert_allclose(session.forward(IDS[8:9]), alone, atol=2e-3 * np.abs(alone).max())


def test_the_context_ends_where_the_manifest_says(folder):
    """llama.cpp's own cache is a multiple of 256."""
    with open_session(folder, INFO | {"context": 10}, threads=1) as session:
        session.forward(IDS[:10])
        with pytest.raises(InputError, match="longer than the context"):
            session.forward([1])


def test_closing_twice(folder):
    session = open_session(folder, INFO, threads=1)
    session.close()
    session.close()


@pytest.mark.parametrize("context", [None, 0, -1, "8", 1 << 40])
def test_a_context_that_is_none(folder, context):
    with pytest.raises(InputError, match="no usable context"):
        open_session(folder, INFO | {"context": context}, threads=1)


def test_llama_cpp_is_quiet(folder, capfd):
    with open_session(folder, INFO, threads=1) as session:
        session.forward([1])
    assert capfd.readouterr() == ("", "")


NOISE = random.Random(1).randbytes(10_000)
COUNTS = b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60) + bytes(10_000)
FILES = {
    "empty": (b"", "does not begin"),
    "short": (b"GGUF", "does not begin"),
    "noise": (NOISE, "does not begin"),
    "huge counts": (COUNTS, "claims 1,152,921,504,606,846,976 tensors"),
    "another version": (blob(version=99), "version 99"),
    "no architecture": (blob(), "unknown model architecture"),
    "unknown architecture": (blob([pair("general.architecture", TEXT, text("nothing"))]), "unknown model architecture"),
    "no tokenizer": (blob([pair("general.architecture", TEXT, text("llama"))]), "key not found"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_model(tmp_path, name, capfd):
    content, why = FILES[name]
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(InputError, match="not a model that llama") as error:
        open_session(tmp_path, INFO, threads=1)
    assert why in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_truncated_file(folder, tmp_path):
    content = (folder / "model.gguf").read_bytes()
    for size in (len(content) - 1000, len(content) // 2, 2000):
        (tmp_path / "model.gguf").write_bytes(content[:size])
        with pytest.raises(InputError, match="not a model that llama"):
            open_session(tmp_path, INFO, threads=1)


def test_no_file_and_a_file_elsewhere(folder):
    with pytest.raises(InputError, match="no GGUF file"):
        open_session(folder, INFO | {"file": "other.gguf"}, threads=1)
    with pytest.raises(InputError, match="leaves its folder"):
        open_session(folder / "sub", {"file": "../model.gguf", "context": 8}, threads=1)


def test_without_the_package(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(SetupError, match=r"smolship\[gguf\]"):
        open_session(folder, INFO, threads=1)


def test_a_cache_that_does_not_fit(folder, monkeypatch):
    import llama_cpp

    monkeypatch.setattr(llama_cpp, "llama_init_from_model", lambda model, options: None)
    with pytest.raises(InputError, match="cannot make a cache"):
        open_session(folder, INFO, threads=1)


def test_the_tokenizer_alone(folder, tiny):
    tokenizer = GgufTokenizer(folder / "model.gguf")
    want = open_checkpoint(str(tiny("llama"))).files["tokenizer.json"]
    assert tokenizer.encode("the quick <|im_end|> fox\n") == Tokenizer(want).encode("the quick <|im_end|> fox\n")
    tokenizer.close()
