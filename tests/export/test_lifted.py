"""Weights that a GGUF file holds on a grid of ours: taken as they are, given back as they are, and rounded again, with
a word, for what cannot hold them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from smolship.export import export
from smolship.export.checkpoints import open_checkpoint
from smolship.export.checkpoints.gguf_file import read_gguf
from smolship.export.quantize import MIN_SCALE, portable
from smolship.export.rerounding import make_weights_for, weights_for
from smolship.export.targets import load_target
from smolship.export.weights import SCHEMES, Scheme, Weights, reround, write_weights
from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import InputError
from smolship.runtime.manifest import read_manifest
from smolship.runtime.parity import parity
from smolship.runtime.readback.compare import compare
from smolship.tools.cli import run as cli
from tests.bundles import job_of
from tests.gguf_maker import make_gguf

# Positive, negative, zeros of both signs, a subnormal fp16, the smallest normal and the largest scale.
ODD = [0.03, -0.03, 0.0, -0.0, 2.0**-20, -(2.0**-24), MIN_SCALE, -0.5]


def tamper(path: Path, name: str, scales: list[float]) -> np.ndarray:
    """Put `scales`, over and over, into the blocks of a Q4_0 or Q8_0 tensor; returns them, one a block."""
    slot = read_gguf(path)[1][name]
    size = {2: 18, 8: 34}[slot.kind]
    count = slot.shape[0] * slot.shape[1] // 32
    made = np.resize(np.array(scales, "<f2"), count)
    data = bytearray(path.read_bytes())
    whole = np.frombuffer(data, np.uint8, count * size, slot.offset).reshape(count, size)
    whole[:, :2] = made[:, None].view(np.uint8)
    path.write_bytes(data)
    return made


def blocks(path: Path, name: str) -> bytes:
    slot = read_gguf(path)[1][name]
    size = {2: 18, 8: 34}[slot.kind] * slot.shape[0] * slot.shape[1] // 32
    return path.read_bytes()[slot.offset : slot.offset + size]


@pytest.fixture(scope="module")
def files(tiny, tmp_path_factory):
    """files("Q4_0", "llama_bias") -> a GGUF file of a tiny checkpoint, odd scales in layer 1's v and down."""
    folder = tmp_path_factory.mktemp("lifted")

    def get(kind: str, model: str = "llama") -> Path:
        path = folder / f"{model}-{kind}.gguf"
        if not path.exists():
            make_gguf(tiny(model), path, kind)
            for part in ("attn_v", "ffn_down"):
                tamper(path, f"blk.1.{part}.weight", ODD)
        return path

    return get


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_lifted_rows_are_the_files_values(files, kind):
    checkpoint = open_checkpoint(str(files(kind)))
    for name in ("layers.0.q", "layers.0.k", "layers.1.v", "layers.1.down", "embed"):
        q = checkpoint.lift(name)
        assert (q.bits, q.group) == checkpoint.grid(name) == ({"Q4_0": 4, "Q8_0": 8}[kind], 32)
        np.testing.assert_array_equal(q.dequantize(), checkpoint.read(name), err_msg=name)
        part = checkpoint.lift(name, 5, 70)
        np.testing.assert_array_equal(part.codes, q.codes[5:70])
        np.testing.assert_array_equal(part.scales, q.scales[5:70])
    scales = checkpoint.lift("layers.1.down").scales
    np.testing.assert_array_equal(scales.reshape(-1)[: len(ODD)], np.array(ODD, np.float16).astype(np.float32))
    assert np.signbit(scales.reshape(-1)[3]) and checkpoint.grid("norm") is None


def test_what_is_lifted_under_which_scheme(files, tmp_path):
    def origins(kind: str, scheme: Scheme) -> dict[str, str]:
        checkpoint = open_checkpoint(str(files(kind)))
        entries = write_weights(checkpoint, checkpoint.config, scheme, tmp_path).entries
        return {
            name: f"{entries[name].origin} {entries[name].bits} {entries[name].group}"
            for name in ("embed", "layers.0.q", "norm")
        }

    lifted4, lifted8, none = "lifted 4 32", "lifted 8 32", "rounded 16 0"
    for scheme in (SCHEMES["int4"], SCHEMES["int8"], replace(SCHEMES["int4"], group=128)):
        assert origins("Q4_0", scheme) == {"embed": lifted4, "layers.0.q": lifted4, "norm": none}
    assert origins("Q8_0", SCHEMES["int8"]) == {"embed": lifted8, "layers.0.q": lifted8, "norm": none}
    assert origins("Q8_0", SCHEMES["int4"]) == {"embed": lifted8, "layers.0.q": "quantized 4 32", "norm": none}
    assert origins("Q8_0", Scheme(4, 4, 4)) == {"embed": "quantized 4 32", "layers.0.q": "quantized 4 32", "norm": none}
    assert set(origins("Q4_0", SCHEMES["none"]).values()) == {none}


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_the_same_blocks_come_out(files, tmp_path, kind):
    """Bit for bit, rows of q and k in llama.cpp's order again."""
    checkpoint = open_checkpoint(str(files(kind)))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int8"], tmp_path)
    load_target("gguf").lower(job_of(checkpoint, weights, 64), tmp_path)
    names = [name for name, slot in read_gguf(files(kind))[1].items() if len(slot.shape) == 2]
    assert len(names) == 15
    for name in names:
        assert blocks(tmp_path / "model.gguf", name) == blocks(files(kind), name), name


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_scales_that_are_not_finite_are_refused(tiny, tmp_path, value):
    make_gguf(tiny("llama"), tmp_path / "m.gguf", "Q4_0")
    tamper(tmp_path / "m.gguf", "blk.0.ffn_up.weight", [1.0, value])
    checkpoint = open_checkpoint(str(tmp_path / "m.gguf"))
    with pytest.raises(InputError, match="not finite"):
        write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)


def test_a_target_holds_what_it_can(files, tmp_path):
    """XNNPACK: no scale that is not positive, none that bf16 does not hold, no groups at 8 bits; the rest stays."""
    executorch = load_target("executorch")
    path = tmp_path / "m.gguf"
    path.write_bytes(files("Q4_0").read_bytes())
    fine = ["blk.0.ffn_up.weight", "blk.0.attn_q.weight"]
    for name in fine:
        tamper(path, name, [0.5, 2.0**-14, 1.5])
    tamper(path, "blk.0.ffn_gate.weight", [0.5, float(np.float16(0.1))])  # no bf16 number
    checkpoint = open_checkpoint(str(path))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    own, said = make_weights_for(executorch, checkpoint.config, weights, tmp_path / "own", lambda *_: None)
    assert said.digest == own.digest != weights.digest
    assert said.rerounded == {"scales that are not positive": 12, "scales that bf16 does not hold": 1}
    assert list(own.entries) == list(weights.entries)
    for name, entry in weights.entries.items():
        if name in ("layers.0.up", "layers.0.q") or entry.bits == 16:
            assert own.entries[name] == entry
            np.testing.assert_array_equal(own.read(name), weights.read(name))
        else:
            assert own.entries[name].origin == "re-rounded"
            assert portable(own.scales(name)).all()
            was, now = weights.read(name), own.read(name)
            # Nearly the same scales are found again: one for magnitudes up to 7 moves such weights by .096.
            assert np.linalg.norm(now - was) < 0.07 * np.linalg.norm(was), name
    for place in ("own", "made again"):  # an earlier export has lowered the target
        again = weights_for(executorch, checkpoint.config, Weights(tmp_path), tmp_path / place, lambda *_: None)
        assert again.digest == own.digest
    np.testing.assert_array_equal(again.read("layers.0.gate"), own.read("layers.0.gate"))


def test_8_bits_in_groups_become_8_bits_a_row(files, tmp_path):
    checkpoint = open_checkpoint(str(files("Q8_0", "llama_bias")))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int8"], tmp_path)
    target = load_target("executorch")
    own, said = make_weights_for(target, checkpoint.config, weights, tmp_path / "own", lambda *_: None)
    assert own.entries["embed"] == weights.entries["embed"]  # not the head: ExecuTorch's own kernel reads it
    assert (own.entries["head"].bits, own.entries["head"].group) == (8, 128)
    assert said.rerounded == {"8 bits and a scale for each group": 15}
    for other in ("onnx", "coreml", "gguf"):
        same = make_weights_for(load_target(other), checkpoint.config, weights, tmp_path / other, lambda *_: None)
        assert same == (weights, None)


@pytest.fixture(scope="module")
def bundle(files, tmp_path_factory):
    """Matrices in Q4_0 and Q8_0 by turns, all lifted, on every target."""
    out = tmp_path_factory.mktemp("bundle") / "mixed"
    targets = ["executorch", "onnx", "coreml", "gguf"]
    export(files("Q8_0 Q4_0"), out, to=targets, quant="int8", context=64, probe_tokens=128)
    return open_bundle(out)


@pytest.mark.parametrize("target", ["executorch", "onnx", "gguf", pytest.param("coreml", marks=pytest.mark.real)])
def test_parity_passes_on_every_target_and_says_what_was_rounded_again(bundle, target):
    report = parity(bundle, target, quick=True, threads=1)
    assert report.passed, [check for check in report.checks if not check.passed]
    again = [check for check in report.checks if check.stage == "re-rounding"]
    if target != "executorch":
        assert not again and report.weights_digest == bundle.manifest.weights_digest
        return
    assert again[0].kl > 1e-7 and "15 lifted matrices were rounded again" in again[0].note
    assert report.weights_digest == json.loads((bundle.path / "weights-executorch.json").read_text())["digest"]


def test_inspect_says_what_was_lifted_and_rounded_again(bundle, capsys):
    assert cli(["inspect", str(bundle.path)]) == 0
    said = " ".join(" ".join(capsys.readouterr()).split())
    assert "15 matrices as the GGUF file holds them" in said
    assert "executorch: 15 lifted matrices were rounded again" in said


def test_every_artifact_holds_its_set(bundle):
    for one in compare(bundle, bundle.manifest.targets):
        assert not one.wrong, (one.target, one.wrong)


def test_the_engine_is_judged_by_its_own_weights(bundle, monkeypatch):
    """Against a simulation with the weights that the other targets hold, ExecuTorch's would fail."""
    probes = bundle.probes()
    probes.sketches["executorch.simulated"] = probes.sketches["onnx.simulated"]
    monkeypatch.setattr(type(bundle), "probes", lambda self: probes)
    report = parity(bundle, "executorch", quick=True, threads=1)
    assert not report.passed


def test_a_manifest_that_lies_about_it_is_refused(bundle, tmp_path):
    raw = json.loads((bundle.path / "manifest.json").read_text())
    for wrong in (7, {}, {"digest": "x", "rerounded": {"a": "b"}}):
        raw["targets"]["executorch"]["info"]["weights"] = wrong
        (tmp_path / "manifest.json").write_text(json.dumps(raw))
        with pytest.raises(InputError, match=r"info\.weights"):
            read_manifest(tmp_path)


def test_rerounding_again_changes_nothing(files, tmp_path):
    checkpoint = open_checkpoint(str(files("Q4_0")))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    digests = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        digests.append(reround(weights, ["layers.0.up"], tmp_path / folder).digest)
    assert digests[0] == digests[1] != weights.digest


def test_gguf_py_reads_the_same_from_what_comes_out(files, tmp_path):
    """Its reader, not ours: the values of a re-exported file are those of the file that went in."""
    checkpoint = open_checkpoint(str(files("Q4_0")))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    load_target("gguf").lower(job_of(checkpoint, weights, 64), tmp_path)
    inside, outside = (
        {t.name: t for t in gguf.GGUFReader(path).tensors} for path in (files("Q4_0"), tmp_path / "model.gguf")
    )
    assert set(inside) == set(outside)
    for name, tensor in inside.items():
        values = [gguf.quants.dequantize(t.data, t.tensor_type) for t in (tensor, outside[name])]
        if tensor.data.ndim == 1:
            values[0] = values[0].astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(*values, err_msg=name)
