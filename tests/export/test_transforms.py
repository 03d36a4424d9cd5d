"""Tensors that a checkpoint has in another form: as data, in rows, lazily."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from smolship.export.checkpoints.matching import match
from smolship.export.quantize import QuantTensor
from smolship.export.transforms import Fused, Interleaved, Plus, Transposed, theirs
from smolship.runtime.errors import InputError
from smolship.runtime.tensors import GGUF, KINDS, Name, parse
from tests.export.test_features import MADE, PLAIN
from tests.gguf_maker import permute

NAMES = {kind: f"{name}.weight" for kind, name in GGUF.items()}


@dataclass
class Array:
    """A stored tensor that counts the rows read of it at once."""

    values: np.ndarray
    grid: tuple[int, int] | None = None
    most: list[int] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        piece = self.values[start:stop]
        self.most.append(len(piece))
        return piece

    def lift(self, start: int = 0, stop: int | None = None) -> QuantTensor:
        piece = self.values[start:stop]
        return QuantTensor(piece.astype(np.int8), piece[:, ::32].astype(np.float32), 4, 32, "lifted")


def stored_of(config, names) -> dict[str, Array]:
    draw = np.random.default_rng(3)
    return {theirs(names, ours): Array(draw.integers(-8, 8, shape)) for ours, shape in config.shapes().items()}


def test_names_are_taken_apart_and_put_together():
    for name in ("embed", "norm", "head", "layers.0.q", "layers.511.down.bias", "layers.3.k_norm"):
        assert str(parse(name)) == name
    assert parse("layers.7.q.bias") == Name(7, "q", True)
    for name in ("q", "layers.0.embed", "layers.x.q", "layers.0.z", "layers.0.q.bias.bias", "embed ", "layers.-1.q"):
        with pytest.raises(ValueError, match="no tensor"):
            parse(name)
    assert set(GGUF) == set(KINDS)


def test_matrices_that_are_stored_as_one():
    config = MADE["bias"]
    fused = {
        "q": Fused("blk.{}.qkv.weight", ("q", "k", "v")),
        "k": Fused("blk.{}.qkv.weight", ("q", "k", "v")),
        "v": Fused("blk.{}.qkv.weight", ("q", "k", "v")),
        "gate": Fused("blk.{}.both.weight", ("gate", "up")),
        "up": Fused("blk.{}.both.weight", ("gate", "up")),
    }
    stored = stored_of(config, NAMES)
    expected = {name: array.values for name, array in stored.items()}
    for layer in range(2):
        for whole, parts in (("qkv", ("attn_q", "attn_k", "attn_v")), ("both", ("ffn_gate", "ffn_up"))):
            for end in ("weight", "bias"):
                pieces = [stored.pop(f"blk.{layer}.{part}.{end}", None) for part in parts]
                if None not in pieces:
                    name = f"blk.{layer}.{whole}.{end}"
                    stored[name] = Array(np.concatenate([p.values for p in pieces]), grid=(4, 32))
    matched = match(config, stored, NAMES | fused, "somewhere")
    for ours, slot in matched.slots.items():
        wanted = expected[theirs(NAMES, ours)]
        assert slot.shape == wanted.shape
        assert np.array_equal(slot.read(), wanted)
        assert np.array_equal(slot.read(3, 9), wanted[3:9])
        assert np.array_equal(slot.read(5, 10**9), wanted[5:])
    up = matched.slots["layers.1.up"]
    assert up.grid == (4, 32) and np.array_equal(up.lift(2, 7).codes, expected["blk.1.ffn_up.weight"][2:7])
    assert max(stored["blk.1.both.weight"].most) == config.layers[0].mlp.width  # never more than what was asked for
    stored["blk.0.qkv.weight"] = Array(stored["blk.0.qkv.weight"].values[:-1])
    with pytest.raises(InputError, match=r"(?s)blk.0.qkv.weight has the wrong shape.*\[255, 128\].*\[256, 128\]"):
        match(config, stored, NAMES | fused, "somewhere")


def test_a_gain_that_is_stored_as_its_distance_from_one():
    names = NAMES | {"norm": Plus(NAMES["norm"]), "attn_norm": Plus(NAMES["attn_norm"])}
    stored = stored_of(PLAIN, NAMES)
    slots = match(PLAIN, stored, names, "x").slots
    for ours, stored_name in (("norm", "output_norm.weight"), ("layers.1.attn_norm", "blk.1.attn_norm.weight")):
        assert slots[ours].read().dtype == np.float32
        assert np.array_equal(slots[ours].read(4, 20), stored[stored_name].values[4:20] + 1)
        assert slots[ours].grid is None
    assert np.array_equal(slots["layers.1.mlp_norm"].read(), stored["blk.1.ffn_norm.weight"].values)


def test_a_matrix_that_is_stored_in_by_out(monkeypatch):
    names = NAMES | {"down": Transposed(NAMES["down"])}
    stored = stored_of(PLAIN, NAMES)
    whole = stored["blk.0.ffn_down.weight"].values
    for layer in range(2):
        stored[f"blk.{layer}.ffn_down.weight"].values = stored[f"blk.{layer}.ffn_down.weight"].values.T
    monkeypatch.setattr(
        "smolship.export.transforms.row_chunks", lambda rows, width: [(i, i + 7) for i in range(0, rows, 7)]
    )
    slot = match(PLAIN, stored, names, "x").slots["layers.0.down"]
    assert slot.shape == (128, 192) and np.array_equal(slot.read(), whole)
    assert np.array_equal(slot.read(11, 20), whole[11:20])
    assert max(stored["blk.0.ffn_down.weight"].most) == 7


def test_rows_that_llama_cpp_wove():
    names = NAMES | {kind: Interleaved(NAMES[kind]) for kind in ("q", "k")}
    config = replace(MADE["heads"], layers=MADE["heads"].layers)  # heads of 32 and of 16
    stored = stored_of(config, NAMES)
    expected = {name: array.values for name, array in stored.items()}
    for name, array in stored.items():
        if name.startswith("blk.") and name.split(".")[2] in ("attn_q", "attn_k"):
            size = config.layers[int(name.split(".")[1])].mixer.head_dim
            stored[name] = Array(permute(array.values, len(array.values) // size), grid=(4, 32))
    slots = match(config, stored, names, "x").slots
    for ours, slot in slots.items():
        wanted = expected[theirs(NAMES, ours)]
        for rows in ((0, None), (0, 1), (15, 33), (5, 47), (31, 32)):
            assert np.array_equal(slot.read(*rows), wanted[slice(*rows)])
    assert np.array_equal(slots["layers.1.k"].lift(7, 30).codes, expected["blk.1.attn_k.weight"][7:30])
