"""The set of weights as a file: read back equal, in any rows; its digest sees every bit and no chunk."""

from __future__ import annotations

import errno
import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from smolship.export import weights as weights_module
from smolship.export.checkpoints import open_checkpoint
from smolship.export.quantize import QuantTensor, layout, quantize, to_half, unpack4
from smolship.export.slots import row_chunks
from smolship.export.tensorfile import TensorWriter, read_header
from smolship.export.weights import SCHEMES, Scheme, write_weights
from smolship.runtime.disk import disk_errors
from smolship.runtime.errors import SetupError
from smolship.runtime.readback.hashing import Entry, TensorHash


@pytest.fixture(scope="module")
def checkpoint(tiny):
    return open_checkpoint(str(tiny("llama_bias")))


@pytest.mark.parametrize("scheme", [*SCHEMES.values(), Scheme(4, 8, 8, group=64)], ids=[*SCHEMES, "group 64"])
def test_every_tensor_comes_back_as_it_was_quantized(checkpoint, tmp_path, scheme):
    weights = write_weights(checkpoint, checkpoint.config, scheme, tmp_path)
    assert list(weights.entries) == list(checkpoint.config.shapes())
    library = load_file(tmp_path / "weights.safetensors")
    for name, shape in checkpoint.config.shapes().items():
        original, entry = checkpoint.read(name), weights.entries[name]
        assert entry.shape == shape
        if not weights.quantized(name):
            assert entry.origin == "rounded"
            np.testing.assert_array_equal(weights.read(name), to_half(original, name).astype(np.float32))
            np.testing.assert_array_equal(library[name], original.astype(np.float16))
            continue
        expected = quantize(original, entry.bits, entry.group)
        got = weights.tensor(name)
        np.testing.assert_array_equal(got.codes, expected.codes)
        np.testing.assert_array_equal(got.scales, expected.scales)
        np.testing.assert_array_equal(weights.read(name, 3, 9), expected.dequantize()[3:9])
        codes = library[f"{name}.codes"]
        np.testing.assert_array_equal(unpack4(codes) if entry.bits == 4 else codes, expected.codes)


def test_the_scheme_decides_bits_by_kind(checkpoint, tmp_path):
    weights = write_weights(checkpoint, checkpoint.config, Scheme(4, 16, 8, group=128), tmp_path)
    held = {name: (entry.bits, entry.group) for name, entry in weights.entries.items()}
    assert held["embed"] == (16, 0) and held["head"] == (8, 128) and held["norm"] == (16, 0)
    assert held["layers.0.q"] == (4, 128) and held["layers.1.down"] == (4, 64) == layout(192, 4, 128)
    assert held["layers.0.q.bias"] == (16, 0)
    assert weights.share_at(4, checkpoint.config) == 1.0


def test_the_share_held_at_4_bits_counts_parameters(checkpoint, tmp_path):
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    weights.entries["layers.0.down"] = replace(weights.entries["layers.0.down"], bits=8)
    total = sum(out * width for name, (out, width) in checkpoint.config.linears().items() if name != "head")
    assert weights.share_at(4, checkpoint.config) == pytest.approx(1 - 128 * 192 / total)


def test_the_digest_does_not_depend_on_the_chunks(checkpoint, tmp_path, monkeypatch):
    whole = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    monkeypatch.setattr(weights_module, "row_chunks", lambda rows, width: row_chunks(rows, width, 7 * width))
    (tmp_path / "b").mkdir()
    pieces = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path / "b")
    assert pieces.digest == whole.digest
    files = [folder / "weights.safetensors" for folder in (tmp_path, tmp_path / "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_tensors_hash_sees_every_code_scale_value_and_its_layout():
    rng = np.random.default_rng(1)
    q = quantize(rng.standard_normal((4, 64), np.float32), 4, 32)
    entry = Entry((4, 64), 4, 32, "quantized")

    def digest(rows: QuantTensor | np.ndarray, entry: Entry = entry, name: str = "a") -> str:
        hashed = TensorHash(name, entry)
        if isinstance(rows, QuantTensor):
            hashed.update(rows.codes, rows.scales)
        else:
            hashed.update(rows)
        return hashed.hexdigest()

    codes, scales = q.codes.copy(), q.scales.copy()
    codes[3, 63] += 1 if codes[3, 63] < 7 else -1
    scales[3, 1] *= 2
    seen = {
        digest(q),
        digest(replace(q, codes=codes)),
        digest(replace(q, scales=scales)),
        digest(q, name="b"),
        digest(q, replace(entry, group=64)),
        digest(q, replace(entry, bits=8)),
        digest(np.ones(4, np.float16)),
        digest(np.array([1, 1, 1, 1.001], np.float16)),
    }
    assert len(seen) == 8


@pytest.mark.parametrize("name", ["layers.1.up", "norm", "layers.0.q.bias", "embed"])
def test_the_sets_digest_sees_each_tensor(checkpoint, tmp_path, name):
    class Altered:
        def read(self, wanted, start=0, stop=None):
            rows = checkpoint.read(wanted, start, stop).copy()
            if wanted == name:
                rows.reshape(-1)[-1] += 0.5
            return rows

    (tmp_path / "b").mkdir()
    plain = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], tmp_path)
    other = write_weights(Altered(), checkpoint.config, SCHEMES["int4"], tmp_path / "b")
    assert plain.digest != other.digest
    assert [n for n in plain.entries if plain.entries[n] != other.entries[n]] == [name]


def test_progress_counts_every_number(checkpoint, tmp_path):
    calls = []
    write_weights(checkpoint, checkpoint.config, SCHEMES["int8"], tmp_path, lambda *call: calls.append(call))
    assert calls[-1][1] == calls[-1][2] == sum(int(np.prod(s)) for s in checkpoint.config.shapes().values())
    assert json.loads((tmp_path / "weights.json").read_text())["digest"]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.uint8])
def test_the_safetensors_library_reads_what_the_writer_wrote(tmp_path, dtype):
    rng = np.random.default_rng(2)
    made = {
        name: rng.integers(0, 100, shape).astype(dtype) for name, shape in {"b": (5, 3), "a": (7,), "c": ()}.items()
    }
    with TensorWriter(tmp_path / "t", {name: (array.dtype, array.shape) for name, array in made.items()}) as writer:
        writer.append("a", made["a"][:2])  # in pieces, in any order of tensors
        writer.append("b", made["b"][:4])
        writer.append("c", made["c"])
        writer.append("a", made["a"][2:])
        writer.append("b", made["b"][4:])
    loaded, slots = load_file(tmp_path / "t"), read_header(tmp_path / "t")
    for name, array in made.items():
        np.testing.assert_array_equal(loaded[name], array)
        np.testing.assert_array_equal(slots[name].read(), array)
    np.testing.assert_array_equal(slots["b"].read(1, 4), made["b"][1:4])
    np.testing.assert_array_equal(slots["b"].read(4, 99), made["b"][4:])


def test_bf16_rows_are_torchs(tmp_path):
    import torch
    from safetensors.torch import save_file

    made = torch.randn(9, 4).to(torch.bfloat16)
    save_file({"x": made}, tmp_path / "t")
    np.testing.assert_array_equal(read_header(tmp_path / "t")["x"].read(2, 7), made[2:7].float().numpy())


def test_a_tensor_not_written_whole_is_our_bug(tmp_path):
    shapes = {"x": (np.dtype(np.float32), (4,))}
    with pytest.raises(AssertionError, match="x"), TensorWriter(tmp_path / "t", shapes) as writer:
        writer.append("x", np.zeros(3, np.float32))
    with pytest.raises(AssertionError, match="x"), TensorWriter(tmp_path / "t", shapes) as writer:
        writer.append("x", np.zeros(5, np.float32))


def test_a_full_disk_is_named(tmp_path):
    writer = TensorWriter(tmp_path / "t", {"x": (np.dtype(np.float32), (4,))})
    writer.file.close()
    with pytest.raises(SetupError, match="disk is full") as caught, disk_errors():
        writer.file = open("/dev/full", "wb", buffering=0)  # noqa: PTH123, SIM115
        writer.append("x", np.zeros(4, np.float32))
    writer.file.close()
    assert caught.value.exit_code == 3 and str(errno.ENOSPC) in str(caught.value)


def test_row_chunks_cover_every_row_once():
    for rows, width in [(1, 1), (10, 3), (7, 10**9)]:
        spans = list(row_chunks(rows, width, 9))
        assert [i for start, stop in spans for i in range(start, stop)] == list(range(rows))
        assert all(stop - start == 1 or (stop - start) * width <= 9 for start, stop in spans)
