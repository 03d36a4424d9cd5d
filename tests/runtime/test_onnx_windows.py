"""ONNX sessions whose layers with a window keep that and one call: what they compute, and how far back they reach."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from smolship.export.checkpoints import open_checkpoint
from smolship.export.config import Attention
from smolship.export.reference import Reference, run
from smolship.export.targets import Job
from smolship.export.targets import onnx as target
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.engines import onnx as engine
from smolship.runtime.engines.onnx import open_session
from smolship.runtime.engines.onnx_windows import EVICTS, Kept, evicting
from smolship.runtime.errors import InputError
from smolship.runtime.session import Session
from tests.conftest import make_tiny

LONG, WINDOW, CALL = 160, 9, 16
INFO = {"file": "model.onnx", "context": LONG}
IDS = np.random.default_rng(8).integers(0, 300, LONG)
# Windows in some layers, in layers without rotary embedding, in all layers, and beside the states of convolutions.
KINDS = {
    "gemma3": {},
    "smollm3": {"use_sliding_window": True, "sliding_window": WINDOW},
    "phi3": {"sliding_window": WINDOW},
    "lfm2": {},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """made(kind) -> the folder of the artifact, and the logits of the reference for IDS, [LONG, V]; made once."""
    kept: dict[str, tuple[Path, np.ndarray]] = {}

    def get(kind: str) -> tuple[Path, np.ndarray]:
        if kind not in kept:
            folder = tmp_path_factory.mktemp(kind)
            checkpoint = open_checkpoint(str(make_tiny(folder / "model", kind, **KINDS[kind])))
            config = checkpoint.config
            if kind == "lfm2":
                mixers = [
                    replace(x.mixer, window=WINDOW) if isinstance(x.mixer, Attention) else x.mixer
                    for x in config.layers
                ]
                config = replace(
                    config, layers=tuple(replace(x, mixer=m) for x, m in zip(config.layers, mixers, strict=True))
                )
            weights = write_weights(checkpoint, config, SCHEMES["none"], folder)
            target.lower(Job(config, weights, LONG, checkpoint.files), folder)
            reference = Reference(config, weights, LONG, target.numerics(weights))
            kept[kind] = folder, run(config, reference, IDS)
        return kept[kind]

    return get


@pytest.fixture(autouse=True)
def short_calls(monkeypatch) -> None:
    monkeypatch.setattr(engine, "CHUNK", CALL)


@pytest.fixture
def session(made) -> Iterator[Session]:
    with open_session(made("gemma3")[0], INFO, threads=1) as opened:
        yield opened


def close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=3e-5)


def walk(session: Session, want: np.ndarray, steps: int = 80) -> None:
    """Calls of many lengths with rewinds between them, each compared with the reference; every position is gone back
    to from a few tokens behind it."""
    for ahead in (1, 2, CALL):
        for at in range(1, LONG - ahead):
            session.forward(IDS[session.position : at + ahead])
            session.rewind(at)
            close(session.forward(IDS[at : at + 1]), want[at : at + 1])
        session.rewind(0)
    rng = np.random.default_rng(1)
    for _ in range(steps):
        if rng.random() < 0.4 and session.position:
            near = max(0, session.position - int(rng.integers(1, 12)))
            session.rewind(near if rng.random() < 0.8 else int(rng.integers(0, session.position + 1)))
        count = min(int(rng.integers(1, 5 if rng.random() < 0.6 else 50)), LONG - session.position)
        if count:
            close(session.forward(IDS[session.position : session.position + count]), want[session.position - 1][None])
        else:
            session.rewind(0)


@pytest.mark.parametrize("call", [1, 4, CALL])
@pytest.mark.parametrize("kind", KINDS)
def test_every_call_and_rewind_equals_the_reference(made, monkeypatch, kind, call):
    """Windows shorter than a prompt, a call and what both take together."""
    monkeypatch.setattr(engine, "CHUNK", call)
    folder, want = made(kind)
    with open_session(folder, INFO, threads=1) as session:
        rows = {cache.shape[2] for cache in session.caches if cache.ndim == 4}
        assert WINDOW + call in rows and session.blocks == (WINDOW + call,)
        close(session.forward(IDS, "all"), want)
        session.rewind(0)
        walk(session, want)


G = CALL + 1  # rows that are given up at once
sound_reach = Kept.reach


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("reach", lambda self, tokens: max(sound_reach(self, tokens) - 1, 0)),
        ("first", lambda self, tokens: max(-(-(tokens - self.rows - 1) // G) * G, 0)),
        ("first", lambda self, tokens: max(-(-(tokens - self.rows) // (G - 1)) * (G - 1), 0)),
    ],
    ids=["a position too far back", "a row too late", "a row less at once"],
)
def test_a_miscounted_row_is_seen(made, monkeypatch, name, wrong):
    monkeypatch.setattr(Kept, name, wrong)
    folder, want = made("gemma3")
    with open_session(folder, INFO, threads=1) as session, pytest.raises(AssertionError, match="Not equal"):
        walk(session, want)


def test_the_text_is_fed_again_only_where_it_must_be(session, made, monkeypatch):
    calls = []
    sound = session._decode
    session.forward(IDS[:100])
    monkeypatch.setattr(session, "_decode", lambda tokens, at: calls.append((at, len(tokens))) or sound(tokens, at))
    reach = session._reach
    assert 100 - CALL <= reach < 100
    session.rewind(reach)
    assert not calls
    session.rewind(reach - 1)
    assert calls == [(at, min(CALL, reach - 1 - at)) for at in range(0, reach - 1, CALL)] and session.earliest == 0
    close(session.forward(IDS[reach - 1 : reach]), made("gemma3")[1][reach - 1 : reach])


@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_call_that_breaks_off_is_made_good(session, made, monkeypatch, when):
    """An interrupt reaches Python before or behind ONNX Runtime's work, which moves rows."""
    session.forward(IDS[:100])
    run = session.model.run_with_iobinding

    class Interrupted:
        def run_with_iobinding(self, binding: object) -> None:
            if when == "behind":
                run(binding)
            raise KeyboardInterrupt

    model = session.model
    monkeypatch.setattr(session, "model", Interrupted())
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            session.forward(IDS[100:110])
    monkeypatch.setattr(session, "model", model)
    assert session.position == 100
    close(session.forward(IDS[100:101]), made("gemma3")[1][100:101])


def test_behind_a_preset_it_says_how_far_it_reaches(made, session):
    layers = [np.random.default_rng(i).normal(size=(2, 5, 2, 32)).astype(np.float32) for i in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "CHUNK", LONG)
        whole = open_session(made("gemma3")[0], INFO, threads=1)
    for count in (5, 24, 25, 26, 100):
        for one in (session, whole):
            one.preset(layers, count)
        close(session.forward(IDS[:30], "all"), whole.forward(IDS[:30], "all"))
    assert whole.earliest == 0 < session.earliest
    with pytest.raises(InputError, match=f"0, or a position from {session.earliest}"):
        session.rewind(session.earliest - 1)
    earliest = session.earliest
    for one in (session, whole):
        one.rewind(earliest)
    close(session.forward(IDS[40:60]), whole.forward(IDS[40:60]))
    whole.close()
    session.rewind(0)
    assert session.earliest == 0


def test_a_call_that_breaks_off_behind_a_preset_is_refused(session, monkeypatch):
    """Nobody knows the tokens that would have to be fed again."""
    session.preset([np.ones((2, 5, 2, 32), np.float32)] * 3, 100)
    with monkeypatch.context() as patch, pytest.raises(AttributeError):
        patch.setattr(session, "model", None)
        session.forward(IDS[:1])
    with pytest.raises(InputError, match="preset again"):
        session.forward(IDS[:1])


def test_keys_and_values_are_shown_while_all_are_there(session):
    session.forward(IDS[: WINDOW + CALL])
    assert all(part.shape[0] == WINDOW + CALL for layer in range(3) for part in session.cache(layer))
    session.forward(IDS[:1])
    assert [session.cache(layer) is None for layer in range(3)] == [True, False, True]


def test_a_context_of_a_window_and_a_call_is_kept_whole(made):
    for context, whole in ((WINDOW + CALL, True), (WINDOW + CALL + 1, False)):
        with open_session(made("gemma3")[0], INFO | {"context": context}, threads=1) as session:
            assert (not session.kept) == whole


def test_nothing_but_the_attribute_is_added(made):
    raw = (made("gemma3")[0] / "model.onnx").read_bytes()
    changed, windows = evicting(raw, 100)
    assert windows == {f"past_key_values.{layer}.key": WINDOW for layer in (0, 2)}
    assert evicting(changed, 100) == (changed, {}) and evicting(raw, WINDOW - 1) == (raw, {})
    model, found = onnx.load_from_string(changed), 0
    for node in model.graph.node:
        for attribute in [a for a in node.attribute if a.name == EVICTS.decode()]:
            assert (attribute.type, attribute.i, node.op_type) == (attribute.INT, 1, "GroupQueryAttention")
            node.attribute.remove(attribute)
            found += 1
    assert found == 2 and model == onnx.load_from_string(raw)


@pytest.mark.sampled(40)
@pytest.mark.parametrize("seed", range(400))
def test_a_damaged_graph_is_refused_or_read(made, seed):
    raw, rng = bytearray((made("gemma3")[0] / "model.onnx").read_bytes()), np.random.default_rng(seed)
    for at in rng.integers(0, len(raw), 3):
        raw[at] = rng.integers(256)
    with contextlib.suppress(InputError):
        evicting(bytes(raw[: rng.integers(len(raw) // 2, len(raw) + 1)]), 100)
