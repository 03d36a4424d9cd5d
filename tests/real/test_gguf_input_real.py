"""GGUF as input, on real files: SmolLM2 quantized by llama.cpp goes in and comes out the same, and the tokenizers of
SmolLM2 and Gemma 3 give llama.cpp's ids."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from pydoc_data.topics import topics

import gguf
import numpy as np
import pytest

from smolship.export.checkpoints import open_checkpoint
from smolship.export.checkpoints.gguf_file import read_gguf
from smolship.export.checkpoints.gguf_tokenizer import tokenizer_files
from smolship.export.rerounding import make_weights_for
from smolship.export.targets import load_target
from smolship.export.weights import SCHEMES, Scheme, write_weights
from smolship.runtime.engines.gguf import GgufTokenizer
from smolship.runtime.hard_strings import hard_strings
from smolship.runtime.tokenizer import Tokenizer
from smolship.tools.tokenizers import compare
from tests.bundles import job_of

pytestmark = pytest.mark.real

Q4_0, Q8_0 = gguf.LlamaFileType.MOSTLY_Q4_0, gguf.LlamaFileType.MOSTLY_Q8_0


def artifact(source: Path, scheme: Scheme, folder: Path):
    """The GGUF target's file of a checkpoint, and the weights in it."""
    folder.mkdir()
    checkpoint = open_checkpoint(str(source))
    weights = write_weights(checkpoint, checkpoint.config, scheme, folder)
    load_target("gguf").lower(job_of(checkpoint, weights, 2048), folder)
    return folder / "model.gguf", weights


@pytest.fixture(scope="module")
def by_llama_cpp(demo_model, tmp_path_factory):
    """by_llama_cpp(Q4_0, pure=True) -> SmolLM2 in fp16, quantized by llama.cpp; its embedding is Q8_0 if not pure."""
    import llama_cpp

    folder = tmp_path_factory.mktemp("llama.cpp")
    half, _ = artifact(demo_model, SCHEMES["none"], folder / "half")

    def get(kind: int, pure: bool) -> Path:
        out = folder / f"{int(kind)}-{pure}.gguf"
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.pure, options.nthread = int(kind), pure, 2
        assert llama_cpp.llama_model_quantize(str(half).encode(), str(out).encode(), options) == 0
        return out

    return get


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    """By gguf-py's own reader: the type and the bytes of every matrix."""
    found = gguf.GGUFReader(path).tensors
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in found if len(t.shape) > 1}


CASES = {"Q4_0": (Q4_0, True, "int4"), "Q4_0, embedding Q8_0": (Q4_0, False, "int4"), "Q8_0": (Q8_0, True, "int8")}


@pytest.mark.parametrize(("kind", "pure", "scheme"), CASES.values(), ids=CASES)
def test_what_llama_cpp_quantized_comes_out_bit_for_bit(by_llama_cpp, tmp_path, kind, pure, scheme):
    path = by_llama_cpp(kind, pure)
    made, weights = artifact(path, SCHEMES[scheme], tmp_path / "out")
    before, after = tensors(path), tensors(made)
    assert set(before) == set(after)
    same = {name for name in before if before[name] == after[name]}
    assert {name for name, (kind, _) in before.items() if kind in ("Q4_0", "Q8_0")} == same
    assert len(same) == 211 == sum(entry.origin == "lifted" for entry in weights.entries.values())
    if kind == Q4_0:
        assert (weights.scales("layers.3.up") < 0).any()
        own, said = make_weights_for(
            load_target("executorch"), open_checkpoint(str(path)).config, weights, tmp_path / "own", lambda *_: None
        )
        assert sum(said.rerounded.values()) == len(same)
        error = own.read("layers.3.up") - weights.read("layers.3.up")
        relative = np.sqrt((error**2).mean() / (weights.read("layers.3.up") ** 2).mean())
        print(f"rounded again for XNNPACK: {relative:.4f} of the weights")
        assert relative < 0.05


def texts(tokenizer: Tokenizer) -> list[str]:
    """Hard strings, runs of one character, and real text."""
    runs = [c * n for c in " \t\n=-a_#*" for n in (*range(2, 70), 100, 333)]
    return [*hard_strings(tokenizer, None), *runs, *list(topics.values())[:30], inspect.getsource(textwrap)]


@pytest.mark.parametrize("model", ["smollm2_gguf", "gemma"])
def test_token_ids_are_llama_cpps(model, request):
    path = request.getfixturevalue(model)
    ours = Tokenizer(tokenizer_files(read_gguf(path)[0], path)["tokenizer.json"])
    llama = GgufTokenizer(path)
    strings = texts(ours)
    for special in (True, False):
        row = compare(
            model,
            lambda text, s=special: ours.encode(text, s),
            lambda text, s=special: llama.encode(text, s),
            strings,
            judged=True,
        )
        print(f"{model}: {row.mismatches} mismatches in {row.strings:,} strings")
        assert row.passed, row.examples
    for text in strings[-31:]:
        assert ours.decode(ours.encode(text)) == text


def test_gemmas_tensors_are_llama_cpps(gemma):
    """Q4_K, Q5_0, Q6_K and Q8_0 in row pieces, against the dequantizer inside llama.cpp's library."""
    import ctypes

    import llama_cpp

    ggml = ctypes.CDLL(next((Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.so*")))
    names = {12: "q4_K", 6: "q5_0", 14: "q6_K", 8: "q8_0"}
    seen = set()
    for name, slot in read_gguf(gemma)[1].items():
        if slot.kind not in names:
            continue
        seen.add(slot.kind)
        rows = min(slot.shape[0], 400)
        raw = slot._rows(0, rows)
        expected = np.empty((rows, slot.shape[1]), np.float32)
        function = getattr(ggml, f"dequantize_row_{names[slot.kind]}")
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        function.restype = None
        function(raw.ctypes.data, expected.ctypes.data, expected.size)
        got = np.concatenate([slot.read(start, min(start + 130, rows)) for start in range(0, rows, 130)])
        np.testing.assert_array_equal(got, expected, err_msg=name)
    assert seen == set(names)
