"""Each engine reveals the matrices that its artifact was read to hold; a layout that writer and reader misunderstand
alike does not pass."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from smolship.export import export
from smolship.export.checkpoints import open_checkpoint
from smolship.export.targets import TARGETS
from smolship.export.targets.coreml import data as coreml_data
from smolship.export.targets.executorch import data as xnnpack_data
from smolship.export.targets.gguf import tensors as gguf_tensors
from smolship.export.targets.onnx import data as onnx_data
from smolship.runtime.bundle import open_bundle
from smolship.runtime.readback import coreml as read_coreml
from smolship.runtime.readback import gguf as read_gguf
from smolship.runtime.readback import onnx as read_onnx
from smolship.runtime.readback import pte as read_pte
from smolship.runtime.readback.compare import compare
from smolship.runtime.readback.stored import nibbles
from smolship.tools import onehot
from smolship.tools.onehot_models import COLUMNS, Matrix, spread
from tests.bundles import relower

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]  # dozens of small models
MATRICES = ["embed", *(f"layers.1.{kind}" for kind in onehot.LINEARS), "head"]


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A bundle with every target."""
    out = tmp_path_factory.mktemp("onehot") / "llama"
    export(tiny("llama"), out, to=list(TARGETS), context=64, probe_tokens=0)
    return out


@pytest.mark.parametrize("target", TARGETS)
def test_every_engine_reveals_our_matrices(whole, target):
    verdicts = onehot.reveal(open_bundle(whole), target, layer=1)
    assert sorted(v.name for v in verdicts) == sorted(MATRICES)
    assert all(v.equal for v in verdicts), verdicts


@pytest.mark.parametrize(
    "kind, options",
    [
        ("llama3", {"quant": "int8", "embedding": 16}),
        ("llama_bias", {"group_size": 64, "head": 4}),
        ("qwen2", {}),
        ("qwen3", {}),
    ],
)
def test_other_bits_and_groups(tiny, tmp_path, kind, options):
    """One scale a row and no quantized table; wider groups under a head of its own; biases; norms of q and k."""
    export(tiny(kind), tmp_path / "b", to=list(TARGETS), context=64, probe_tokens=0, **options)
    for target in TARGETS:
        verdicts = onehot.reveal(open_bundle(tmp_path / "b"), target)
        assert all(v.equal for v in verdicts), verdicts


@pytest.mark.parametrize(
    "target, kind",
    [
        *(("coreml", kind) for kind in (*onehot.LINEARS, "head", "embed")),  # whose tolerance is the widest
        ("executorch", "gate"),
        ("gguf", "k"),
        ("gguf", "head"),
        ("onnx", "o"),
    ],
)
def test_one_code_that_is_off_by_one_is_seen(whole, target, kind, monkeypatch):
    """What the engine runs is as it is; what it is compared with differs in one code of a column that is looked at."""
    bundle = open_bundle(whole)
    back = onehot.read_back(bundle, target, ["embed", *(f"layers.0.{name}" for name in onehot.LINEARS)])
    real = {name.removeprefix("layers.0."): matrix for name, matrix in back.items()}
    real["head"] = real["embed"]
    maker = onehot.Maker(onehot.config_of(bundle), 0, real, 260)
    (probe,) = (p for p in maker.all() if kind in p.looked_at)
    formula, name = probe.formula, kind if kind in ("head", "embed") else f"layers.0.{kind}"

    def altered():
        matrix = probe.tensors[name]
        codes = matrix.codes.copy()
        row, column = 0, int(spread(codes.shape[1], COLUMNS // 2)[1])
        codes[row, column] += 1 if codes[row, column] < 7 else -1
        probe.tensors[name] = Matrix(matrix.entry, codes, matrix.scales)
        return formula()

    monkeypatch.setattr(probe, "formula", altered)
    tokenizer, _ = onehot.byte_tokenizer()
    assert not onehot.judge(probe, target, {"tokenizer.json": tokenizer}) <= 1


def swapped(packed: np.ndarray) -> np.ndarray:
    """Bytes with their nibbles exchanged."""
    return packed << 4 | packed >> 4


def misread_onnx(patch):
    codes = onnx_data.DataFile._codes

    def written(self, names, padded):
        four = self.job.weights.entries[names[0]].bits == 4
        return (swapped(piece) if four else piece for piece in codes(self, names, padded))

    patch.setattr(onnx_data.DataFile, "_codes", written)
    patch.setattr(read_onnx, "nibbles", lambda packed: nibbles(swapped(packed)))


def misread_pte(patch):
    pack4 = xnnpack_data.pack4
    patch.setattr(xnnpack_data, "pack4", lambda codes: swapped(pack4(codes)))
    patch.setattr(read_pte, "nibbles", lambda packed: nibbles(swapped(packed)))


def misread_gguf(patch):
    """The permutation of q and k left out."""

    def written(job, name):
        rows = job.weights.entries[name].shape[0]
        return iter([(rows, gguf_tensors._stored(job.weights, name, 0, rows))])

    patch.setattr(gguf_tensors, "pieces", written)
    patch.setattr(read_gguf, "_order", lambda rows, head: np.arange(rows))


def misread_coreml(patch):
    """Inputs from last to first."""
    codes, stored = coreml_data.Constants._codes, read_coreml._stored

    def backwards(package, name, values):
        tensor = stored(package, name, values)

        def read(start, stop):
            values, scales = tensor.read(start, stop)
            return (values if scales is None else values[:, ::-1]), scales

        return replace(tensor, read=read)

    patch.setattr(coreml_data.Constants, "_codes", lambda self, name: codes(self, name)[:, ::-1].copy())
    patch.setattr(read_coreml, "_stored", backwards)


MISREAD = {"coreml": misread_coreml, "executorch": misread_pte, "gguf": misread_gguf, "onnx": misread_onnx}


@pytest.mark.parametrize("target", TARGETS)
def test_a_misunderstanding_of_writer_and_reader_is_seen(whole, tiny, tmp_path, target, monkeypatch):
    folder = shutil.copytree(whole, tmp_path / "bundle")
    MISREAD[target](monkeypatch)
    relower(folder, tiny("llama"), target, open_checkpoint(str(tiny("llama"))).config)
    bundle = open_bundle(folder)
    assert not compare(bundle, [target])[0].wrong, "reader and writer agree"
    wrong = {v.name.removeprefix("layers.0.") for v in onehot.reveal(bundle, target) if not v.equal}
    assert wrong == {"q", "k"} if target == "gguf" else set(onehot.LINEARS) <= wrong, wrong
