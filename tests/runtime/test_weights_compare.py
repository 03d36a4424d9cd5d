"""Weights read back from every target: equal to the bit, and one altered byte is found and named."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import numpy as np
import pytest

import smolship.runtime.readback
from smolship.export import export
from smolship.export.checkpoints import open_checkpoint
from smolship.export.targets import TARGETS
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.bundle import open_bundle
from smolship.runtime.engines import ENGINES
from smolship.runtime.errors import InputError
from smolship.runtime.readback.compare import READERS, compare, expected
from smolship.tools.cli import run
from smolship.tools.comparison import rows
from tests.bundles import relower
from tests.conftest import make_tiny
from tests.gguf_maker import make_gguf

pytestmark = pytest.mark.filterwarnings("ignore")
PLACES = [  # tensor, what of it, row
    ("embed", "codes", 0),
    ("embed", "codes", -1),
    ("embed", "scales", 0),
    ("layers.0.q", "codes", 0),
    ("layers.0.q", "scales", 0),
    ("layers.0.k", "codes", -1),
    ("layers.1.gate", "scales", -9),
    ("layers.1.down", "codes", -1),
    ("layers.0.attn_norm", "values", 0),
    ("norm", "values", 0),
]


@pytest.fixture(scope="module")
def weights(tiny, tmp_path_factory):
    checkpoint = open_checkpoint(str(tiny("llama")))
    return write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A bundle with every target."""
    out = tmp_path_factory.mktemp("weights") / "llama"
    export(tiny("llama"), out, to=list(TARGETS), context=64, probe_tokens=0)
    return out


@pytest.fixture
def bundle(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "bundle")


def wrong(folder: Path, target: str) -> dict[str, str]:
    bundle = open_bundle(folder)
    return {
        name: what
        for one in compare(bundle, bundle.manifest.targets)
        if one.target == target
        for name, what in one.wrong.items()
    }


def test_every_target_holds_the_same_weights(whole, capsys):
    assert run(["weights", str(whole)]) == 0
    printed = capsys.readouterr().out
    assert "20 tensors: EQUAL" in printed and "layers.0–1.gate" in printed
    assert printed.count("✓") == 11 * len(TARGETS) and "✗" not in printed
    assert set(READERS) == set(ENGINES)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {"head_dim": 24}),
        ("gemma3", {"head_dim": 24, "query_pre_attn_scalar": 24, "sliding_window": 3}),
        ("phi3", {"rope_parameters": {"rope_theta": 900.0, "partial_rotary_factor": 0.25}}),
    ],
    ids=str,
)
def test_weights_beside_operators_that_few_models_need(tmp_path, kind, changes):
    """Rotary embeddings that ONNX Runtime's attention does not turn by itself are operators with constants, too."""
    model = make_tiny(tmp_path / "m", kind, **changes)
    bundle = export(model, tmp_path / "b", to=list(TARGETS), context=16, probe_tokens=0)
    assert all(one.found and not one.wrong for one in compare(bundle, bundle.manifest.targets))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
@pytest.mark.parametrize("target", TARGETS)
def test_one_altered_byte_is_found_and_named(bundle, weights, target, place):
    name, part, row = place
    flip(bundle / target, candidates(weights, name, part, row))
    found = wrong(bundle, target)
    assert list(found) == [name], found
    if found[name].startswith("different"):
        row %= weights.entries[name].shape[0]
        assert f"1 of its {part}, first in row" in found[name]
        assert not (part == "codes" and f"row {row:,} " not in found[name]), found[name]
    others = [other for other in TARGETS if other != target]
    assert not any(wrong(bundle, other) for other in others)


@pytest.mark.parametrize("target", TARGETS)
def test_the_command_names_tensor_and_target(bundle, weights, target, capsys):
    flip(bundle / target, candidates(weights, "layers.1.up", "codes", 3))
    assert run(["weights", str(bundle)]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{target}: layers.1.up: different: 1 of its codes, first in row 3" in printed
    assert run(["weights", str(bundle), "-e", next(t for t in TARGETS if t != target)]) == 0


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("damage", ["half", "a quarter", "empty", "garbage"])
def test_a_broken_file_is_refused_or_found(bundle, target, damage):
    for path in sorted((bundle / target).rglob("*")):
        if not path.is_file() or path.suffix in (".json", ".jinja") or path.name == "Modelfile":
            continue
        content = path.read_bytes()
        made = {
            "half": content[: len(content) // 2],
            "a quarter": content[: len(content) // 4],
            "empty": b"",
            "garbage": np.random.default_rng(5).bytes(len(content)),
        }[damage]
        path.write_bytes(made)
        try:
            assert wrong(bundle, target), f"{path.name} was not missed"
        except InputError as error:
            assert "expected" in str(error)
        path.write_bytes(content)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("target", TARGETS)
def test_no_offset_that_lies_ends_in_a_traceback(bundle, target):
    """Bytes of what is not weight data, at random: refused, or found, or harmless."""
    rng = np.random.default_rng(3)
    path = {
        "coreml": "model.mlpackage/Data/com.apple.CoreML/model.mlmodel",
        "executorch": "model.pte",
        "gguf": "model.gguf",
        "onnx": "model.onnx",
    }[target]
    content = (bundle / target / path).read_bytes()
    for _ in range(60):
        changed = bytearray(content)
        for at in rng.integers(0, min(len(content), 30_000), 3):
            changed[at] = rng.integers(256)
        (bundle / target / path).write_bytes(changed)
        try:
            wrong(bundle, target)
        except InputError as error:
            assert "expected" in str(error)


@pytest.mark.real
def test_other_families_forms_and_stacks(tiny, tmp_path):
    """Biases, a head of its own, int8, int4 tables, and nothing quantized at all."""
    for kind, options in {
        "llama_bias": {"quant": "int8"},
        "smollm3": {"quant": "none"},
        "llama3": {"embedding": 4, "group_size": 64},
    }.items():
        targets = [name for name in TARGETS if not (kind == "smollm3" and name == "coreml")]
        export(tiny(kind), tmp_path / kind, to=targets, context=64, probe_tokens=0, **options)
        for target in targets:
            assert not wrong(tmp_path / kind, target)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind, family", [("Q4_0", "llama"), ("Q8_0", "llama_bias")])
def test_a_target_that_holds_a_set_of_its_own(tiny, tmp_path, kind, family):
    """Lifted weights that XNNPACK cannot hold are rounded again for it: it is compared with what it should hold."""
    make_gguf(tiny(family), tmp_path / "m.gguf", kind)
    quant = {"Q4_0": "int4", "Q8_0": "int8"}[kind]
    export(tmp_path / "m.gguf", tmp_path / "b", to=list(TARGETS), quant=quant, context=64, probe_tokens=0)  # type: ignore[arg-type]
    bundle = open_bundle(tmp_path / "b")
    held = compare(bundle, TARGETS)
    assert not any(one.wrong for one in held)
    assert "lifted / re-rounded" in {row.facts[-1] for row in rows(held)}
    own, set_ = expected(bundle, "executorch"), expected(bundle)
    assert own != set_ == expected(bundle, "onnx")
    bundle.manifest.targets["onnx"].weights = bundle.manifest.targets["executorch"].weights
    (tmp_path / "b" / "weights-onnx.json").write_bytes((tmp_path / "b" / "weights-executorch.json").read_bytes())
    wrong = compare(bundle, ["executorch", "onnx"])[1].wrong
    assert wrong and {own[name].origin for name in wrong} == {"re-rounded"}


def test_what_is_missing_is_named(bundle, tiny):
    """A target that was lowered from a model with one layer less than the bundle's."""
    from dataclasses import replace

    config = open_checkpoint(str(tiny("llama"))).config
    for target in ("coreml", "executorch", "onnx"):  # a GGUF file is written without a graph
        relower(bundle, tiny("llama"), target, replace(config, layers=config.layers[:1]))
        found = wrong(bundle, target)
        assert set(found.values()) == {"missing"} and set(found) == {
            n for n in expected(open_bundle(bundle)) if ".1." in n
        }


def test_a_list_that_was_changed_is_refused(bundle):
    text = (bundle / "weights.json").read_text()
    for old, new in [('"sha256": "', '"sha256": "0'), ('"bits": 4', '"bits": 5'), ('"shape"', '"form"'), ("{", "[")]:
        (bundle / "weights.json").write_text(text.replace(old, new, 1))
        with pytest.raises(InputError):
            compare(open_bundle(bundle), ["onnx"])


def test_readers_import_nothing_of_the_writers():
    """And no torch, which writers need."""
    for path in Path(smolship.runtime.readback.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert not name.startswith(("smolship.export", "smolship.tools", "torch", "executorch", "onnx_ir")), (
                    path
                )


def candidates(weights, name: str, part: str, row: int) -> list[tuple[bytes, int]]:
    """What some file may hold for a row of a tensor, and where in that to alter a byte."""
    row %= weights.entries[name].shape[0]
    if part == "values":
        values = weights.values(name)
        return [(values.astype(kind).tobytes(), 0) for kind in ("<f4", "<f2")]
    q = weights.tensor(name, row, row + 8)
    codes, nibbles = q.codes[0, :32], (q.codes[0, :32] + 8).astype(np.uint8)
    packed = [nibbles[::2] | nibbles[1::2] << 4, nibbles[:16] | nibbles[16:] << 4]  # ONNX and XNNPACK; GGUF
    packed.append(packed[0] ^ 0x88)  # Core ML
    forms = packed if q.bits == 4 else [codes.view(np.uint8), codes.view(np.uint8) ^ 0x80]
    if part == "codes":
        return [(form.tobytes(), 5) for form in forms]
    block = [(q.scales[0, :1].astype("<f2").tobytes() + form.tobytes(), 0) for form in forms]  # GGUF
    scales = [np.repeat(q.scales, n, axis=1).astype(kind) for n in (1, 2) for kind in ("<f4", "<f2")]
    bf16 = (q.scales.view(np.uint32) >> 16).astype("<u2")
    return block + [(s.tobytes(), 0) for s in (*scales, bf16)]


def flip(folder: Path, forms: list[tuple[bytes, int]]) -> None:
    """Alter one bit of the one place below `folder` that holds one of these."""
    places = [
        (path, content.find(form) + at)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for content in [path.read_bytes()]
        for form, at in forms
        if form in content
    ]
    assert len(set(places)) == 1, places
    path, at = places[0]
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
