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
from smolship.runtime.engines import gguf as engine
from smolship.runtime.engines.gguf import GgufTokenizer, computes, open_session
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.tokenizer import Tokenizer
from tests.bundles import job_of
from tests.conftest import make_tiny
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


LONG, CALL = 480, 64


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    """A model of windows of 9 tokens, in a cache that is longer than what llama.cpp keeps of them: 256."""
    made = tmp_path_factory.mktemp("windows")
    checkpoint = open_checkpoint(str(make_tiny(made / "model", "gemma3")))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["none"], made)
    target.lower(job_of(checkpoint, weights, LONG), made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "CHUNK", CALL)
        yield made


def test_what_lies_far_behind_a_window_is_fed_again(windows, monkeypatch):
    ids, at, near, far = np.random.default_rng(8).integers(0, 300, LONG), 450, 400, 150
    with open_session(windows, INFO | {"context": LONG}, threads=2) as session:
        session.forward(ids[:far])
        wanted = session.forward(ids[far : far + 1])
        session.forward(ids[far + 1 : at])
        calls = []
        sound = session._decode
        monkeypatch.setattr(session, "_decode", lambda tokens, at: calls.append((at, len(tokens))) or sound(tokens, at))
        state = session.llama.llama_state_seq_get_size(session.context, 0)
        for to, again in ((near, []), (far, [(0, CALL), (CALL, CALL), (2 * CALL, far - 2 * CALL)])):
            session.rewind(to)
            assert (calls, session.earliest) == (again, 0)
        np.testing.assert_allclose(session.forward(ids[far : far + 1]), wanted, atol=1e-3)
        monkeypatch.setattr(session, "_decode", sound)
        session.forward(ids[far + 1 : near])
        again = session.forward(ids[near : near + 1])
        session.rewind(0)
        session.forward(ids[:near])
        np.testing.assert_allclose(session.forward(ids[near : near + 1]), again, atol=1e-3)
        assert session.llama.llama_state_seq_get_size(session.context, 0) < state


def test_an_interrupt_while_the_text_is_fed_again_is_made_good(windows, monkeypatch):
    ids = np.random.default_rng(8).integers(0, 300, LONG)
    with open_session(windows, INFO | {"context": LONG}, threads=2) as session:
        session.forward(ids[:150])
        wanted = session.forward(ids[150:151])
        session.forward(ids[151:450])
        sound = session._decode

        def once(tokens, at):
            if at:
                raise KeyboardInterrupt
            return sound(tokens, at)

        monkeypatch.setattr(session, "_decode", once)
        with pytest.raises(KeyboardInterrupt):
            session.rewind(150)
        monkeypatch.setattr(session, "_decode", sound)
        np.testing.assert_allclose(session.forward(ids[150:151]), wanted, atol=1e-3)


def test_what_was_preset_cannot_be_fed_again(windows):
    """A session says how far back it reaches then."""
    layers = [np.ones((2, 5, 2, 32), np.float32)] * 3
    ids = np.random.default_rng(8).integers(0, 300, LONG)
    with open_session(windows, INFO | {"context": LONG}, threads=2) as session:
        session.preset(layers, 400)
        assert session.earliest == 399
        session.forward(ids[:40])
        with pytest.raises(InputError, match="0, or a position from 399"):
            session.rewind(398)
        session.rewind(410)
        first = session.forward(ids[10:20])
        session.preset(layers, 400)
        np.testing.assert_allclose(session.forward(ids[:20]), first, atol=1e-3)
        session.rewind(0)
        assert session.earliest == 0


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
