"""The bytes that a token reads are those of the artifact, not of the set that it was made from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from smolship.export.targets import TARGETS, load_target
from smolship.export.traffic import bytes_per_token
from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import GateError
from smolship.runtime.manifest import TargetEntry
from smolship.runtime.readback.hashing import Entry

INT4, INT8 = Entry((6, 64), 4, 32, "quantized"), Entry((6, 64), 8, 64, "quantized")
HALF, NORM = Entry((6, 64), 16, 0, "rounded"), Entry((64,), 16, 0, "rounded")
ODD = Entry((6, 80), 8, 80, "quantized")
N = 6 * 64


@pytest.mark.parametrize(
    ("target", "int4", "int8", "half", "norm"),
    [
        ("onnx", N // 2 + 12 * 4, N + 6 * 4, 4 * N, 256),  # a float32 scale a block, of 64 for int8
        ("executorch", N // 2 + 12 * 2, N + 6 * 4, 4 * N, 256),  # bf16 scales, float32 ones a row
        ("coreml", N // 2 + 12 * 2, N + 6 * 2, 2 * N, 128),
        ("gguf", 12 * 18, 12 * 34, 2 * N, 256),  # Q4_0, Q8_0, F16, F32
    ],
)
def test_each_format_has_its_own_bytes(target: str, int4: int, int8: int, half: int, norm: int) -> None:
    stored = load_target(target).stored_bytes
    assert [stored(entry) for entry in (INT4, INT8, HALF, NORM)] == [int4, int8, half, norm]


def test_onnx_pads_rows_to_whole_blocks() -> None:
    assert load_target("onnx").stored_bytes(ODD) == 6 * 3 * (32 + 4)


@pytest.mark.parametrize(("tied", "expected"), [(True, 111), (False, 11)])
def test_the_table_counts_where_it_is_the_head(tied: bool, expected: int) -> None:
    config: Any = SimpleNamespace(head="embed" if tied else "head")
    weights: Any = SimpleNamespace(entries={"embed": INT8, "layers.0.q": INT4, "head": HALF})
    assert bytes_per_token(config, weights, lambda entry: {8: 100, 4: 10, 16: 1}[entry.bits]) == expected


@pytest.fixture
def artifacts(tiny_bundle: Any) -> Any:
    return open_bundle(tiny_bundle("llama", "int4"))


def tensor_bytes(path: Path, target: str) -> int:
    """Bytes of the tensors in an artifact, as a reader of its own ecosystem finds them; a tied table once."""
    if target == "gguf":
        from gguf import GGUFReader

        return sum(int(tensor.n_bytes) for tensor in GGUFReader(path / "model.gguf").tensors)
    import onnx

    model = onnx.load(path / "model.onnx", load_external_data=False)
    places = {}
    for tensor in model.graph.initializer:
        facts = {item.key: item.value for item in tensor.external_data}
        if facts and not tensor.name.startswith("rotary"):
            places[facts["offset"]] = int(facts["length"])
    return sum(places.values())


@pytest.mark.parametrize("target", ["gguf", "onnx"])
def test_the_manifest_says_what_the_file_holds(artifacts: Any, target: str) -> None:
    """The tiny model's head is its table, so that a token reads every tensor."""
    entry = artifacts.entry(target)
    assert entry.bytes_per_token == tensor_bytes(artifacts.path / entry.folder, target)
    assert entry.bytes_per_token != artifacts.manifest.weights_bytes


def test_executorchs_file_holds_them_too(artifacts: Any) -> None:
    entry = artifacts.entry("executorch")
    size = (artifacts.path / entry.folder / entry.info["file"]).stat().st_size
    assert 0.5 * size < entry.bytes_per_token < size


def test_the_bench_counts_the_artifacts_bytes(artifacts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from smolship.tools import measure

    seen = {}

    def measured(engine: str, folder: Path, info: dict[str, Any], **given: Any) -> Any:
        seen[engine] = given
        raise GateError("no more than that is asked")

    monkeypatch.setattr(measure, "measured", measured)
    for target in ("onnx", "gguf"):
        with pytest.raises(GateError):
            measure.bench_of(artifacts, [target], lambda *step: None, threads=1, repeats=1)
    for target in ("onnx", "gguf"):
        assert seen[target]["weight_bytes_per_token"] == artifacts.entry(target).bytes_per_token


@pytest.mark.parametrize("said", [None, -1, 0, True, 3.5, "9", [1]])
def test_what_a_strange_manifest_says_is_not_taken(artifacts: Any, said: Any) -> None:
    listed = artifacts.entry("onnx").to_json()
    assert TargetEntry.from_json(listed, "manifest.json", "onnx") == artifacts.entry("onnx")
    listed["info"]["weight_bytes_per_token"] = said
    assert TargetEntry.from_json(listed, "manifest.json", "onnx").bytes_per_token is None


def test_every_target_says_it() -> None:
    assert all(callable(load_target(name).stored_bytes) for name in TARGETS)
