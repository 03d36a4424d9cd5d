"""Contexts of tens of thousands of tokens: what each target's artifact holds, and what its engine says at their end."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smolship.export.checkpoints import open_checkpoint
from smolship.export.late import Summing, late_flows, late_logits, late_positions
from smolship.export.long_text import is_filled
from smolship.export.reference import Reference
from smolship.export.rotary import Rotary
from smolship.export.stream import Flow, through
from smolship.export.targets import load_target
from smolship.export.weights import SCHEMES, Weights, write_weights
from smolship.runtime.chunks import SCORES, UNIT, chunk_for
from smolship.runtime.engines import load_engine
from smolship.runtime.errors import InputError
from smolship.runtime.judge import rounding_bound
from smolship.runtime.mil.package import PROTOS, declaration, protos
from smolship.runtime.probes import Gap, Sketch
from smolship.runtime.session import Session
from tests.bundles import job_of
from tests.conftest import make_tiny

LONGEST = 65_536
TARGETS = ("coreml", "executorch", "gguf", "onnx")
HEADS, KV_HEADS, SIZE, LAYERS = 2, 1, 32, 2
IDS = np.random.default_rng(4).integers(0, 300, LONGEST).astype(np.int32)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Two layers, made for 65,536 positions."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "max_position_embeddings": LONGEST}
    sizes |= {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": SIZE}
    return make_tiny(tmp_path_factory.mktemp("long"), "llama", initializer_range=0.2, **sizes)


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory) -> Weights:
    checkpoint = open_checkpoint(str(model))
    return write_weights(checkpoint, checkpoint.config, SCHEMES["none"], tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def lowered(model, weights, tmp_path_factory) -> Callable[[str, int], tuple[Path, dict[str, Any]]]:
    """lowered(target, context) -> folder, the artifact's entry; made once."""
    made: dict[tuple[str, int], tuple[Path, dict[str, Any]]] = {}

    def get(target: str, context: int) -> tuple[Path, dict[str, Any]]:
        if (target, context) not in made:
            folder = tmp_path_factory.mktemp(target)
            job = job_of(open_checkpoint(str(model)), weights, context)
            made[target, context] = folder, load_target(target).lower(job, folder)
        return made[target, context]

    return get


def opened(lowered: Any, target: str, context: int = LONGEST) -> Session:
    folder, info = lowered(target, context)
    return load_engine(target).open_session(folder, info, 2)


def reference(
    model: Path, weights: Weights, target: str, kind: type[Reference] = Reference, ulp: int | None = None
) -> Reference:
    """What simulates the target's engine."""
    return kind(open_checkpoint(str(model)).config, weights, LONGEST, load_target(target).numerics(weights), ulp)


def late(ops: Reference, at: np.ndarray, lead: int, first: Flow) -> np.ndarray:
    """Logits at the positions `at` of IDS, behind what `first` keeps of others."""
    flows = late_flows(ops, IDS, at, first, lead)
    with torch.inference_mode():
        through([first, *flows], lambda positions: None)
        return late_logits(flows, at)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "target", ["executorch", "onnx", *(pytest.param(name, marks=pytest.mark.real) for name in ("coreml", "gguf"))]
)
def test_the_last_positions_of_65_536(model, weights, lowered, target, monkeypatch):
    """Prefill in chunks and decode behind a cache that is full but for them: the engine is as far from the reference as
    rounding takes it, and much further from one whose rotary tables are a position late."""
    at, lead = late_positions(LONGEST)[-16:], 70
    first = int(at[0])

    def said(kind: type[Reference] = Reference, ulp: int | None = None) -> tuple[np.ndarray, Flow]:
        """Logits, and the flow whose keys and values lie before."""
        begun = Flow(reference(model, weights, target), IDS[:24], keep=24)
        return late(reference(model, weights, target, kind, ulp), at, lead, begun), begun

    want, begun = said()
    kept = [np.stack(both) for both in begun.kept]
    with opened(lowered, target) as session:
        assert session.capacity == LONGEST and session.presets
        if session.chunk:
            monkeypatch.setattr(session, "chunk", 48)
        session.preset(kept, first - lead)
        assert session.position == first - lead
        fed = session.forward(IDS[first - lead : first + 1])
        got = np.concatenate([fed, session.forward(IDS[first + 1 :], "all")])
        assert session.position == LONGEST
        with pytest.raises(InputError, match="longer than the context"):
            session.forward([1])
        cached = session.cache(LAYERS - 1)
    assert cached is not None and cached[0].shape == (LONGEST, KV_HEADS, SIZE)
    for part, rows in zip(cached, kept[-1], strict=True):
        np.testing.assert_array_equal(part[: len(rows)], rows.astype(np.float16))
        assert np.abs(part[LONGEST - 1]).max() > 0

    def gap(other: np.ndarray) -> np.ndarray:
        following = np.full(len(at), -1)
        return Gap.between(Sketch.of(want, following), other, following).kl

    bound = rounding_bound(gap(said(Summing, 2)[0]), len(at))
    assert gap(got).mean() < bound < 1e-3
    tables = Rotary.tables
    monkeypatch.setattr(Rotary, "tables", lambda self, n: tuple(np.roll(t, 1, axis=0) for t in tables(self, n)))
    assert gap(said()[0]).mean() > 1e-2


@pytest.mark.sampled(2)
@pytest.mark.parametrize("target", TARGETS)
def test_an_artifact_grows_with_the_context_by_its_tables_alone(lowered, target):
    """By cos and sin of a position, once and not a layer, and the numbers of the positions."""
    sizes = [
        sum(file.stat().st_size for file in lowered(target, context)[0].rglob("*") if file.is_file())
        for context in (LONGEST // 4, LONGEST // 2, LONGEST)
    ]
    grown = np.diff(sizes)
    assert abs(grown[1] - 2 * grown[0]) < 4096
    assert grown[1] / (LONGEST // 2) <= 2 * SIZE * 4 + 16


def test_chunks_keep_the_scores_within_bounds():
    assert chunk_for(512, 9, 2_048, 4) == 512
    assert chunk_for(128, 16, 8_192, 12) == 128
    for heads in (2, 9, 16, 32):
        chunks = {context: chunk_for(512, heads, context, 12) for context in (4_096, 8_192, 32_768, 65_536, 131_072)}
        for context, chunk in chunks.items():
            assert chunk >= UNIT and chunk % UNIT == 0
            assert chunk == UNIT or chunk * heads * context * 12 <= SCORES
        assert list(chunks.values()) == sorted(chunks.values(), reverse=True)
    assert chunk_for(512, 9, 40, 4) == 40


@pytest.mark.parametrize("target", TARGETS)
def test_long_prompts_go_in_chunks(lowered, target, monkeypatch):
    """No call of an engine grows with the prompt."""
    with opened(lowered, target, LONGEST // 4) as session:
        calls = []
        name = "_call" if target == "coreml" else "_run"
        sound = getattr(session, name)

        def watched(*args: Any) -> np.ndarray:
            calls.append(args[1]["input_ids"].size if target == "coreml" else len(args[0]))
            return sound(*args)

        monkeypatch.setattr(session, name, watched)
        session.forward(IDS[:1_100])
        assert sum(calls) == 1_100 and max(calls) <= 512


@pytest.mark.parametrize("target", TARGETS)
def test_a_cache_of_another_shape_is_refused(lowered, target):
    right = np.ones((2, 5, KV_HEADS, SIZE), np.float32)
    with opened(lowered, target, LONGEST // 4) as session:
        for wrong in ([right], [right] * 3, [right, right[:, :0]], [right, right[..., :8]]):
            with pytest.raises(InputError, match="not of this model's shape"):
                session.preset(wrong, 7)
            assert session.position == 0
        with pytest.raises(InputError, match="does not hold so many"):
            session.preset([right] * 2, session.capacity + 1)
        fresh = session.forward(IDS[:9])
        session.preset([right] * 2, 40)
        assert session.position == 40 and not np.array_equal(session.forward(IDS[:9]), fresh)
        session.preset([right] * 2, 0)
        np.testing.assert_array_equal(session.forward(IDS[:9]), fresh)


def test_what_is_filled(model):
    config = open_checkpoint(str(model)).config
    assert is_filled(config, 8_192) and not is_filled(config, LONGEST * 8)


def test_a_state_may_be_larger_than_a_tensor():
    """SmolLM3's keys at 65,536 tokens: 36 layers, 4 heads of 128."""

    def declared(shape: list[int], state: bool) -> tuple[int | None, ...] | None:
        kind = import_module(f"{PROTOS}.MIL_pb2").ValueType()
        tensor = (kind.stateType.wrappedType if state else kind).tensorType
        tensor.dataType, tensor.rank = 10, len(shape)
        for length in shape:
            tensor.dimensions.add().constant.size = length
        return declaration(kind).shape

    protos()
    keys = [36, 4, LONGEST, 128]
    assert declared(keys, state=True) == tuple(keys)
    for shape, state in ((keys, False), ([360, *keys[1:]], True)):
        with pytest.raises(ValueError, match="too large"):
            declared(shape, state)
