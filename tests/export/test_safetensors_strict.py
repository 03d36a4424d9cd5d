"""safetensors files at the edge of the format: what its library refuses is refused at once, in our words, and what it
accepts is read as the library reads it."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from smolship.export.tensorfile import NUMPY, read_header
from smolship.runtime.errors import InputError

A = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
B = {"dtype": "F16", "shape": [2, 2], "data_offsets": [12, 20]}
REST = '"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}'
TEXT_A, TEXT_B = json.dumps(A), json.dumps(B)
TWO = f'{{"a": {TEXT_A}, "b": {TEXT_B}}}'


def write(path: Path, header: str | bytes | dict, data: int = 20, length: int | None = None) -> Path:
    """A file with that header and `data` bytes, as the values 1, 2, … of bytes."""
    text = json.dumps(header) if isinstance(header, dict) else header
    raw = text.encode() if isinstance(text, str) else text
    body = bytes(i % 120 for i in range(data))
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + body)
    return path


def theirs(path: Path) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    """name -> (type, shape) as the library reads the file; None where it refuses."""
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            return {name: (entry.get_dtype(), tuple(entry.get_shape())) for name, entry in slices.items()}
    except SafetensorError:
        return None


def ours(path: Path) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    try:
        return {name: (slot.dtype, slot.shape) for name, slot in read_header(path).items()}
    except InputError as error:
        assert "not a" in str(error) and "safetensors file" in str(error) and "to do:" in str(error)
        return None


ACCEPTED = {
    "plain": (TWO, 20),
    "in another order": (f'{{"b": {TEXT_B}, "a": {TEXT_A}}}', 20),
    "space around": (f" \n{TWO}\t  ", 20),
    "metadata": (f'{{"__metadata__": {{"format": "pt", "": ""}}, "a": {TEXT_A}}}', 12),
    "metadata of null": (f'{{"__metadata__": null, "a": {TEXT_A}}}', 12),
    "no tensors": ("{}", 0),
    "listed twice alike": (f'{{"a": {TEXT_A}, "a": {TEXT_A}}}', 12),
    "a field that nobody knows": ('{"a": {"note": [1, {}], ' + REST, 12),
    "an empty tensor before": ({"z": {**A, "shape": [0, 9], "data_offsets": [0, 0]}, "a": A}, 12),
    "an empty tensor behind": ({"a": A, "z": {**A, "shape": [0], "data_offsets": [12, 12]}}, 12),
    "a scalar": ({"a": {**A, "shape": [], "data_offsets": [0, 4]}}, 4),
    "many dimensions": ({"a": {**A, "shape": [1] * 17 + [3]}}, 12),
    "half bytes": (
        {"a": {"dtype": "F4", "shape": [3, 2], "data_offsets": [0, 3]}, "b": {**B, "data_offsets": [3, 11]}},
        11,
    ),
    "six bits": ({"a": {"dtype": "F6_E3M2", "shape": [4], "data_offsets": [0, 3]}}, 3),
    "entry as a list": ('{"a": ["F32", [3], [0, 12]]}', 12),
    **{
        dtype: (
            {
                "a": {"dtype": dtype, "shape": [2], "data_offsets": [0, size]},
                "b": {**A, "data_offsets": [size, size + 12]},
            },
            size + 12,
        )
        for dtype, size in {
            "BOOL": 2,
            "U8": 2,
            "I8": 2,
            "F8_E4M3": 2,
            "F8_E5M2": 2,
            "F8_E8M0": 2,
            "F8_E4M3FNUZ": 2,
            "U16": 4,
            "I16": 4,
            "BF16": 4,
            "U32": 8,
            "I32": 8,
            "U64": 16,
            "I64": 16,
            "F64": 16,
            "C64": 16,
        }.items()
    },
}


@pytest.mark.parametrize(("header", "data"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_the_library_accepts_is_read_as_it_reads_it(tmp_path, header, data):
    path = write(tmp_path / "x.safetensors", header, data)
    assert theirs(path) is not None and ours(path) == theirs(path)
    with safe_open(path, framework="np") as file:
        for name, slot in read_header(path).items():
            if slot.dtype in NUMPY and slot.dtype != "BF16":
                np.testing.assert_array_equal(slot.read(), file.get_tensor(name))


REFUSED = {
    "bytes after the last tensor": (TWO, 23, "bytes, where the last tensor ends"),
    "cut": (TWO, 17, r"of 1\d\d bytes.*broken off"),
    "listed twice": (f'{{"a": {TEXT_A}, "a": {json.dumps({**A, "data_offsets": [12, 24]})}}}', 24, "'a' twice"),
    "a hole": ({"a": A, "b": {**B, "data_offsets": [16, 24]}}, 24, "tensor 'b' from byte 16 on, where 12 comes next"),
    "an overlap": ({"a": A, "b": {**B, "data_offsets": [8, 16]}}, 16, "tensor 'b' from byte 8 on"),
    "a late start": ({"a": {**A, "data_offsets": [8, 20]}}, 20, "'a' from byte 8 on, where 0"),
    "an empty tensor amid another": ({"a": A, "z": {**A, "shape": [0], "data_offsets": [4, 4]}}, 12, "'z' from byte 4"),
    "too few bytes": ({"a": {**A, "shape": [4]}}, 12, "12 bytes for tensor 'a', which needs 16"),
    "numbers in metadata": (f'{{"__metadata__": {{"step": 7}}, "a": {TEXT_A}}}', 12, "__metadata__ with other values"),
    "null in metadata": (f'{{"__metadata__": {{"step": null}}, "a": {TEXT_A}}}', 12, "__metadata__ with other values"),
    "a list as metadata": (f'{{"__metadata__": ["pt"], "a": {TEXT_A}}}', 12, "__metadata__ with other values"),
    "metadata twice": (f'{{"__metadata__": {{}}, "__metadata__": {{}}, "a": {TEXT_A}}}', 12, "'__metadata__' twice"),
    "type twice": ('{"a": {"dtype": "I32", ' + REST, 12, "'dtype' twice"),
    "byte order mark": ("\ufeff" + TWO, 20, "invalid JSON"),
    "UTF-16": (TWO.encode("utf-16"), 20, "UTF-8"),
    "not UTF-8": (TWO.encode().replace(b'"b"', b'"\xfe"'), 20, "UTF-8"),
    "half a surrogate pair": ('{"\\udc00": ' + TEXT_A + "}", 12, "invalid JSON"),
    "a NUL behind": (TWO + "\0", 20, "trailing characters"),
    "NaN": ('{"a": {"x": NaN, ' + REST, 12, "invalid JSON"),
    "a comma too much": ('{"a": ' + TEXT_A + ",}", 12, "invalid JSON"),
    "nested too deep": ('{"a": {"x": ' + "[" * 150 + "]" * 150 + ", " + REST, 12, "recursion limit"),
    "a fraction": ('{"a": {"dtype": "F32", "shape": [3.0], "data_offsets": [0, 12]}}', 12, "floating point"),
    "minus zero": ('{"a": {"dtype": "F32", "shape": [-0], "data_offsets": [0, 0]}}', 0, "floating point"),
    "small letters": ({"a": {**A, "dtype": "f32"}}, 12, "unknown variant"),
    "a type of tomorrow": ({"a": {**A, "dtype": "F3_E1M1"}}, 12, "unknown variant"),
    "half a byte": ({"a": {"dtype": "F4", "shape": [5], "data_offsets": [0, 2]}}, 2, "byte boundary"),
}


@pytest.mark.parametrize(("header", "data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_the_library_refuses_is_refused_with_its_cause(tmp_path, header, data, message):
    path = write(tmp_path / "x.safetensors", header, data)
    assert theirs(path) is None
    with pytest.raises(InputError, match=f"(?s){message}"):
        read_header(path)


def test_a_header_longer_than_the_library_takes_is_refused(tmp_path):
    path = write(tmp_path / "x.safetensors", "{}", length=100_000_001)
    with path.open("r+b") as file:
        file.truncate(120_000_000)  # sparse
    assert theirs(path) is None
    with pytest.raises(InputError, match="a header of 100,000,001 bytes"):
        read_header(path)


def test_ours_and_the_library_agree_on_a_thousand_damaged_files(tmp_path):
    """Bytes of the header changed, tokens swapped, the file cut or made longer: the same verdict and tensors."""
    values = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(4, dtype=np.int8),
        "c": np.arange(2, dtype=np.float16),
        "ü": np.zeros((0, 4), np.float32),
    }
    whole = save(values, {"format": "pt"})
    size = int.from_bytes(whole[:8], "little")
    swaps = [
        ("F32", "I32"),
        ("I8", "U8"),
        ("[2,3]", "[3,2]"),
        ("[2,3]", "[6]"),
        ("24", "25"),
        ("28", "24"),
        ('"a"', '"b"'),
        ('"pt"', "3"),
        ("0", "-0"),
        ("[4]", "[2,2]"),
        ("[4]", "[4.0]"),
        ("}", "} "),
        (":", ": "),
        ('"shape"', '"Shape"'),
    ]
    rng, verdicts = random.Random(11), [0, 0]
    path = tmp_path / "x.safetensors"
    for case in range(1000):
        data = bytearray(whole)
        if case % 4 == 0:
            for _ in range(rng.choice([1, 2])):
                data[8 + rng.randrange(size)] = rng.choice(b'0123456789{}[]",: FIx\x00\xff')
        elif case % 4 == 1:
            text = whole[8 : 8 + size].decode()
            for old, new in rng.sample(swaps, rng.choice([1, 2])):
                text = text.replace(old, new, rng.choice([1, -1]))
            data = bytearray(struct.pack("<Q", len(text.encode())) + text.encode() + whole[8 + size :])
        elif case % 4 == 2:
            data[rng.randrange(8)] = rng.choice([0, 1, size & 255, 255])
        else:
            data = data[: rng.randrange(len(data) + 1)] if case % 8 == 3 else data + bytes(rng.randrange(3))
        path.write_bytes(data)
        expected = theirs(path)
        assert ours(path) == expected, (case, bytes(data[: 8 + size]))
        verdicts[expected is None] += 1
        if expected:
            with safe_open(path, framework="np") as file:
                for name, slot in read_header(path).items():
                    if slot.dtype in NUMPY and slot.dtype != "BF16":
                        np.testing.assert_array_equal(slot.read(), file.get_tensor(name))
    assert min(verdicts) > 50
