"""GGUF files at the edge of the format: what ggml's own reader refuses is refused before the work."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from smolship.export.checkpoints.gguf_file import read_gguf
from smolship.runtime.errors import InputError
from tests.gguf_maker import blob, entry, make_gguf, pair, text

# Prints a line for each file named in the JSON list on standard input: whether ggml opens it.
GGML = """
import ctypes, json, sys
from pathlib import Path
import llama_cpp
folder = Path(llama_cpp.__file__).parent / "lib"
ggml = ctypes.CDLL(str(next(p for p in sorted(folder.iterdir()) if p.name.startswith("libggml-base"))))
class Parameters(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]
ggml.gguf_init_from_file.restype = ctypes.c_void_p
ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, Parameters]
quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, data: None)
ggml.ggml_log_set(quiet, None)
for path in json.load(sys.stdin):
    print(int(ggml.gguf_init_from_file(path.encode(), Parameters(True, None)) is not None), flush=True)
"""


def theirs(paths: list[Path]) -> list[bool]:
    """Whether ggml opens each file; one that ends its process counts as refused."""
    verdicts: list[bool] = []
    while len(verdicts) < len(paths):
        rest = json.dumps([str(path) for path in paths[len(verdicts) :]])
        done = subprocess.run([sys.executable, "-c", GGML], input=rest, capture_output=True, text=True)
        verdicts += [line == "1" for line in done.stdout.split()]
        if done.returncode:
            assert done.returncode < 0, done.stderr  # an assertion of its own ended it
            verdicts.append(False)
    return verdicts


def ours(path: Path) -> bool:
    try:
        read_gguf(path)
    except InputError as error:
        assert "to do:" in str(error)
        return False
    return True


U32 = struct.pack("<I", 64)
FIRST = entry("a", (8,))  # 32 bytes
REFUSED = {
    "a hole": (blob(tensors=[FIRST, entry("b", (8,), offset=64)]), "'b' from byte 64 on, where 32 comes next"),
    "an overlap": (blob(tensors=[FIRST, entry("b", (8,), offset=0)]), "'b' from byte 0 on, where 32"),
    "another order": (blob(tensors=[entry("a", (8,), offset=32), entry("b", (8,))]), "'a' from byte 32 on, where 0"),
    "padding forgotten": (blob(tensors=[entry("a", (3,)), entry("b", (8,), offset=12)]), "from byte 12 on, where 32"),
    "alignment of 8 bits": (blob([pair("general.alignment", 0, b"\x20")]), "general.alignment of type 0"),
    "alignment of 64 bits": (blob([pair("general.alignment", 10, U32 + bytes(4))]), "general.alignment of type 10"),
    "alignment of 0": (blob([pair("general.alignment", 4, bytes(4))]), "power of two"),
    "a key without a name": (blob([pair("", 4, U32)]), "a key without a name"),
    "a long name": (blob(tensors=[entry("n" * 64, (8,))]), "name of 64 bytes"),
    "a long name in UTF-8": (blob(tensors=[entry("ü" * 32, (8,))]), "name of 64 bytes"),
    "five dimensions": (blob(tensors=[entry("a", (2, 2, 2, 1, 1))]), "5 dimensions"),
    "version 1": (blob(version=1), "version 1"),
    "version 4": (blob(version=4), "version 4"),
    "version 0": (blob(version=0), "version 0"),
    "big-endian": (blob(version=3 << 24), "a big-endian file"),
}
ACCEPTED = {
    "no tensors": blob(),
    "padding kept": blob(tensors=[entry("a", (3,)), entry("b", (8,), offset=32)]),
    "alignment of 64": blob([pair("general.alignment", 4, U32)], [FIRST, entry("b", (8,), offset=64)], data=512),
    "bytes behind": blob(tensors=[FIRST], data=999),
    "a name of 63 bytes": blob(tensors=[entry("n" * 63, (8,))]),
    "version 2": blob(tensors=[FIRST], version=2),
    "a strange key": blob([pair("wonder", 8, text("x"))], [FIRST]),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_has_its_cause(tmp_path, data, message):
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_gguf(tmp_path / "m.gguf")


def test_ggml_says_the_same_of_all_of_these(tmp_path):
    paths = [tmp_path / f"{i}.gguf" for i in range(len(REFUSED) + len(ACCEPTED))]
    for path, data in zip(paths, [*(data for data, _ in REFUSED.values()), *ACCEPTED.values()], strict=True):
        path.write_bytes(data)
    expected = [False] * len(REFUSED) + [True] * len(ACCEPTED)
    assert theirs(paths) == expected
    assert [ours(path) for path in paths] == expected


def test_what_ggml_refuses_of_damaged_files_is_refused(tiny, tmp_path):
    """Bytes of a real header changed: nothing passes that ggml does not open. (We refuse more: values that lie beyond
    the end, names that are no text.)"""
    make_gguf(tiny("llama"), tmp_path / "m.gguf", "Q4_0 Q8_0")
    whole = (tmp_path / "m.gguf").read_bytes()
    names = whole.index(b"token_embd.weight")
    rng, paths = random.Random(23), []
    for case in range(200):
        data = bytearray(whole[: names + 9000])  # headers alone: ggml does not look at the data
        for _ in range(rng.choice([1, 2])):
            at = rng.randrange(names, names + 900) if case % 2 else rng.randrange(400)
            data[at] = rng.choice([0, 1, 3, 32, 64, 255, rng.randrange(256)])
        paths.append(tmp_path / f"{case}.gguf")
        paths[-1].write_bytes(data + bytes(len(whole) - len(data)))
    verdicts = theirs(paths)
    passed = [path.name for path, theirs_too in zip(paths, verdicts, strict=True) if ours(path) and not theirs_too]
    assert passed == []
    assert 20 < sum(verdicts) < 180
