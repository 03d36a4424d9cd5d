"""GGUF files as checkpoints: weights, config and token ids as the HF checkpoint had them, and lies refused."""

from __future__ import annotations

import math
import os
import random
import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer

from smolship.export.checkpoints import open_checkpoint
from smolship.export.checkpoints.gguf_file import read_gguf, row_bytes
from smolship.export.config import only
from smolship.export.quantize import quantize
from smolship.export.reference import Reference, run
from smolship.export.rotary import LinearScaling, Llama3Scaling, YarnScaling
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.errors import InputError
from tests.conftest import TINY, make_tiny
from tests.gguf_maker import blob, entry, make_gguf, pair, permute, text

SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
HARD = [
    "hello 1234567 world",
    "  two  spaces\n\n\tx\r\n",
    "don't WE'LL",
    "naïve 日本語 👩‍👩‍👧‍👦",
    "²½Ⅷ ٣٤",
    "\u00a0\u2028",
    "<|im_start|>user\nhi<|im_end|>\n<pad>",
    "def f(x):\n    return x**2",
    " " * 9,
    "",
    "A1b2 $3.14",
]


def ids(checkpoint, string: str) -> list[int]:
    return Tokenizer.from_str(checkpoint.files["tokenizer.json"].decode()).encode(string).ids


@pytest.fixture
def model(tiny, tmp_path) -> Path:
    """A whole tiny GGUF file, to be broken."""
    make_gguf(tiny("llama"), tmp_path / "model.gguf")
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("kind", [kind for kind in TINY if kind not in ("llama3", "qwen2_window")])
def test_a_gguf_file_equals_the_checkpoint_that_it_was_made_from(tiny, tmp_path, kind):
    hf = make_gguf(tiny(kind), tmp_path / "model.gguf")
    ours = open_checkpoint(str(tmp_path / "model.gguf"))
    assert ours.config == hf.config
    for name in hf.config.shapes():
        np.testing.assert_array_equal(ours.read(name), hf.read(name), err_msg=name)
    logits = [run(c.config, Reference(c.config, c, 16), list(range(16))) for c in (ours, hf)]
    np.testing.assert_array_equal(*logits)


def test_llama3_rope_scaling_is_found_again(tmp_path):
    folder = make_tiny(tmp_path / "hf", "llama3", rope_parameters=SCALED, max_position_embeddings=16_384)
    hf = make_gguf(folder, tmp_path / "model.gguf")
    assert only(hf.config.rotaries.values()).scaling == Llama3Scaling(8.0, 1.0, 4.0, 8192.0)
    assert open_checkpoint(str(tmp_path / "model.gguf")).config == hf.config


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 64}


@pytest.mark.parametrize(
    ("extra", "scaling"),
    [
        ({"rope.scaling.factor": 3.0}, LinearScaling(3.0)),  # llama.cpp's kind where none is named
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 5.0}, LinearScaling(5.0)),
        ({"rope.scaling.type": "linear"}, None),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 5.0}, None),
        (YARN, YarnScaling(8.0, 64, 1 + 0.1 * math.log(8))),
        (YARN | {"rope.scaling.attn_factor": 1.5}, YarnScaling(8.0, 64, 1.5 * (1 + 0.1 * math.log(8)))),
        ({"rope.scaling.type": "yarn", "rope.scaling.finetuned": False}, YarnScaling(1.0, 512, 1.0)),
    ],
    ids=str,
)
def test_scalings_in_keys_are_read_with_llama_cpp_s_defaults(tiny, tmp_path, extra, scaling):
    make_gguf(tiny("qwen3"), tmp_path / "model.gguf", **{f"qwen3.{key}": value for key, value in extra.items()})
    (rotary,) = open_checkpoint(str(tmp_path / "model.gguf")).config.rotaries.values()
    assert rotary.scaling == scaling


@pytest.mark.parametrize(
    ("kind", "extra", "message"),
    [
        ("llama", {"rope.scaling.type": "longrope"}, "rope.scaling.type"),
        ("llama", {"rope.scaling.type": ["yarn"]}, "rope.scaling.type"),
        ("llama", {"rope.scaling.factor": [2.0, 2.0]}, "factor"),
        ("llama", {"rope.scaling.factor": -2.0}, "factor"),
        ("llama", {"rope.scaling.attn_factor": 1.2}, "attn_factor"),
        ("llama", YARN | {"rope.scaling.attn_factor": "big"}, "attention_factor"),
        ("llama", YARN | {"rope.scaling.original_context_length": 0}, "original_max_position"),
        ("llama", YARN | {"rope.scaling.yarn_beta_fast": 16.0}, "yarn_beta_fast"),
        ("llama", {"rope.scaling.alpha": 2.0}, "rope.scaling.alpha"),
        ("llama3", YARN, "scaled twice"),
        ("granite", {"rope.scaling.finetuned": False}, "rope.scaling.finetuned"),  # its layers have no rotary embedding
        ("gemma3", {"rope.scaling.type": "yarn"}, "type"),
    ],
    ids=str,
)
def test_scalings_in_keys_that_are_not_understood_are_refused(tiny, tmp_path, kind, extra, message):
    arch = {"llama3": "llama"}.get(kind, kind)
    make_gguf(tiny(kind), tmp_path / "model.gguf", **{f"{arch}.{key}": value for key, value in extra.items()})
    with pytest.raises(InputError, match=f"(?s){message}"):
        open_checkpoint(str(tmp_path / "model.gguf"))


def test_other_rope_frequencies_are_refused(tiny, tmp_path):
    make_gguf(tiny("llama3"), tmp_path / "model.gguf")  # 32 original positions, which GGUF does not say
    with pytest.raises(InputError, match="rope_freqs"):
        open_checkpoint(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantized_rows_are_what_gguf_py_makes_of_them(tiny, tmp_path, kind):
    hf = make_gguf(tiny("llama"), tmp_path / "model.gguf", kind)
    ours = open_checkpoint(str(tmp_path / "model.gguf"))
    quantized = gguf.GGMLQuantizationType[kind]
    for name, heads in {"layers.1.q": 4, "layers.1.k": 2, "layers.0.down": 0, "embed": 0}.items():
        rows = permute(hf.read(name), heads) if heads else hf.read(name)
        stored = gguf.quants.dequantize(gguf.quants.quantize(rows, quantized), quantized)
        whole = ours.read(name)
        np.testing.assert_array_equal(permute(whole, heads) if heads else whole, stored)
        for start, stop in [(0, 1), (5, 70), (31, 33), (len(rows) - 3, len(rows) + 9)]:
            np.testing.assert_array_equal(ours.read(name, start, stop), whole[start:stop])


def readable() -> list[str]:
    """Every type that gguf-py dequantizes."""
    return [kind.name for kind in gguf.GGMLQuantizationType if row_bytes(kind.value, (2, 256))]


@pytest.mark.parametrize("kind", readable())
def test_every_type_is_read_in_rows_whatever_its_bytes(tmp_path, kind):
    """Random bytes: the values are gguf-py's, whole or in rows; what is not finite is refused by name, and nothing else
    is raised."""
    value = gguf.GGMLQuantizationType[kind]
    size = row_bytes(value, (48, 512))
    raw = np.random.default_rng(3).integers(0, 256, (48, size), np.uint8)
    head = blob(tensors=[entry("t", (512, 48), kind=value)], data=0)
    (tmp_path / "m.gguf").write_bytes(head + raw.tobytes())
    slot = read_gguf(tmp_path / "m.gguf")[1]["t"]
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(raw, value)
    assert expected.shape == (48, 512)
    np.testing.assert_array_equal(slot.read(), expected)
    for start, stop in [(0, 1), (7, 40), (47, 60)]:
        np.testing.assert_array_equal(slot.read(start, stop), expected[start:stop])
    if not np.isfinite(expected).all():
        with pytest.raises(InputError, match="not finite"):
            quantize(slot.read(), 4, 32)
    (tmp_path / "m.gguf").write_bytes((head + raw.tobytes())[:-1])
    with pytest.raises(InputError, match="no more than"):
        read_gguf(tmp_path / "m.gguf")


def test_the_types_are_those_that_people_meet():
    wanted = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS "
    wanted += "IQ3_S IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4"
    assert set(wanted.split()) <= set(readable())


@pytest.mark.parametrize("string", HARD)
def test_token_ids_are_the_checkpoints(tiny, tmp_path, string):
    hf = make_gguf(tiny("llama"), tmp_path / "model.gguf")
    assert ids(open_checkpoint(str(tmp_path / "model.gguf")), string) == ids(hf, string)


def test_pre_tokenizers_split_as_llama_cpp_does(tiny, tmp_path):
    def pieces(split: str, string: str) -> list[str]:
        make_gguf(tiny("llama"), tmp_path / f"{split}.gguf", split=split)
        tokenizer = Tokenizer.from_str(
            open_checkpoint(str(tmp_path / f"{split}.gguf")).files["tokenizer.json"].decode()
        )
        return [string[start:stop] for _, (start, stop) in tokenizer.pre_tokenizer.pre_tokenize_str(string)]

    string = "We'LL pay 12345\n\n ok"
    assert pieces("gpt-2", string) == ["We", "'", "LL", " pay", " 12345", "\n\n", " ok"]
    assert pieces("smollm", string) == ["We", "'", "LL", " pay", " ", "1", "2", "3", "4", "5", "\n\n", " ok"]
    assert pieces("llama-bpe", string) == ["We", "'LL", " pay", " ", "123", "45", "\n\n", " ok"]


def test_bos_is_added_where_the_file_says_so_or_llama_cpp_would(tiny, tmp_path):
    def first(**extra) -> int:
        make_gguf(tiny("llama"), tmp_path / "m.gguf", **extra)
        return ids(open_checkpoint(str(tmp_path / "m.gguf")), "x")[0]

    assert first(**{"tokenizer.ggml.add_bos_token": True}) == 1
    assert first(**{"tokenizer.ggml.add_bos_token": False}) != 1
    assert first() != 1
    assert first(split="llama-bpe") == 1
    assert first(split="llama-bpe", **{"tokenizer.ggml.add_bos_token": False}) != 1


def test_user_defined_tokens_are_whole_but_not_special(tiny, tmp_path):
    hf = make_gguf(tiny("llama"), tmp_path / "a.gguf")
    tokens = open_checkpoint(str(tmp_path / "a.gguf")).files["tokenizer.json"].decode()
    count = Tokenizer.from_str(tokens).get_vocab_size()
    kinds = [3, 3, 3, *[1] * (count - 4), 4]
    make_gguf(tiny("llama"), tmp_path / "b.gguf", **{"tokenizer.ggml.token_type": kinds})
    tokenizer = Tokenizer.from_str(open_checkpoint(str(tmp_path / "b.gguf")).files["tokenizer.json"].decode())
    last = tokenizer.id_to_token(count - 1)
    assert tokenizer.get_added_tokens_decoder()[count - 1].special is False
    assert tokenizer.encode(f"1{last}1").ids[1] == count - 1
    assert hf.config.vocab == count


def test_side_files_name_the_special_tokens(model):
    files = {name: data.decode() for name, data in open_checkpoint(str(model)).files.items()}
    assert '"eos_token": "<|im_end|>"' in files["tokenizer_config.json"]
    assert '"eos_token_id": 2' in files["generation_config.json"]
    assert "add_generation_prompt" in files["chat_template.jinja"]


BROKEN_MODELS = {
    "unknown architecture": (
        {"general.architecture": "mamba"},
        "GGUF architecture.*granite, lfm2, llama, olmo2, openelm, phi3",
    ),
    "one part of several": ({"split.count": 3, "split.no": 0}, "one part of a model.*split.count = 3.*--merge"),
    "other rope scaling": ({"llama.rope.scaling.type": "su"}, "rope.scaling.type.*'su'"),
    "unknown key": ({"llama.logit_scale": 0.5}, "llama.logit_scale"),
    "experts": ({"llama.expert_count": 8}, "expert_count"),
    "partial rotary": ({"llama.rope.dimension_count": 16}, "rope.dimension_count"),
    "heads per layer": ({"llama.attention.head_count": [4, 4]}, "num_attention_heads"),
    "no layers": ({"llama.block_count": 0}, "num_hidden_layers"),
    "absurd size": ({"llama.embedding_length": 2**31}, "hidden_size"),
    "other layers": ({"llama.block_count": 3}, "tensor is missing"),
    "fewer layers": ({"llama.block_count": 1}, r"does not have.*blk\.1"),
    "wrong shape": ({"llama.feed_forward_length": 224}, "wrong shape"),
    "NaN": ({"llama.rope.freq_base": float("nan")}, "rope_theta"),
    "another tokenizer": ({"tokenizer.ggml.model": "bert"}, "tokenizer model.*gpt2, llama"),
    "unknown split": ({"tokenizer.ggml.pre": "superbpe"}, "pre-tokenizer.*gpt-2.*llama-bpe.*smollm"),
    "bad merge": ({"tokenizer.ggml.merges": ["q zzz"]}, "merge"),
    "bad token id": ({"tokenizer.ggml.eos_token_id": 300}, "eos_token_id"),
    "repeated token": ({"tokenizer.ggml.tokens": ["a"] * 300}, "vocabulary twice"),
    "other vocabulary": ({"tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.token_type": [1]}, "token_type"),
}


@pytest.mark.parametrize(("extra", "message"), BROKEN_MODELS.values(), ids=BROKEN_MODELS)
def test_models_that_are_not_understood_are_refused(tiny, tmp_path, extra, message):
    make_gguf(tiny("llama"), tmp_path / "model.gguf", **extra)
    with pytest.raises(InputError, match=f"(?s){message}"):
        open_checkpoint(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    "key",
    [
        "split.count",
        "llama.expert_count",
        "llama.attention.value_length",
        "llama.rope.dimension_count",
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
        "tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.add_eos_token",
        "tokenizer.ggml.eos_token_id",
    ],
)
def test_an_array_where_one_value_belongs_is_refused(tiny, tmp_path, key):
    make_gguf(tiny("llama"), tmp_path / "model.gguf", **{key: [1, 2]})
    with pytest.raises(InputError, match=key.rpartition(".")[2]):
        open_checkpoint(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    "name",
    [
        "blk.1.ffn_up.weight",
        "output_norm.weight",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
        "llama.context_length",
    ],
)
def test_what_is_missing_is_named(tiny, tmp_path, name):
    make_gguf(tiny("llama"), tmp_path / "model.gguf", drop=(name,))
    with pytest.raises(InputError, match="max_position_embeddings" if name.startswith("llama.") else name):
        open_checkpoint(str(tmp_path / "model.gguf"))


STRING, ARRAY = 8, 9
HUGE = struct.pack("<Q", 2**60)
BROKEN_FILES = {
    "empty": (b"", "GGUF"),
    "magic": (b"PK\3\4" + bytes(99), "begins with GGUF"),
    "version": (blob(version=9), "version 9"),
    "big-endian": (blob(version=3 << 24), "big-endian"),
    "tensor count": (blob(counts=(2**60, 0)), "a count of 1,152,"),
    "pair count": (blob(counts=(0, 2**60)), "a count of 1,152,"),
    "pairs that are not there": (blob(counts=(0, 9)), "a key without a name"),
    "string length": (blob([HUGE + b"x"]), "a field of 1,152,"),
    "array length": (blob([pair("a", ARRAY, struct.pack("<I", 4) + HUGE)]), "a count of 1,152,"),
    "string array length": (blob([pair("a", ARRAY, struct.pack("<I", STRING) + HUGE)]), "a count of 1,152,"),
    "nested array": (blob([pair("a", ARRAY, struct.pack("<IQ", ARRAY, 1))]), "array of them"),
    "value type": (blob([pair("a", 77, b"")]), "type 77"),
    "not UTF-8": (blob([pair(b"\xff\xfe", 4, bytes(4))]), "UTF-8"),
    "key twice": (blob([pair("a", 4, bytes(4))] * 2), "a twice"),
    "alignment": (blob([pair("general.alignment", 4, struct.pack("<I", 3))]), "power of two"),
    "alignment of text": (blob([pair("general.alignment", STRING, text("8"))]), "general.alignment of type 8"),
    "tensor twice": (blob(tensors=[entry("t", (4,))] * 2), "'t' with 1"),
    "rank": (blob(tensors=[entry("t", (4,), rank=2**31)]), "dimensions"),
    "no rank": (blob(tensors=[entry("t", (), rank=0)]), "0 dimensions"),
    "beyond the end": (blob(tensors=[entry("t", (65,))]), "no more than"),
    "offset": (blob(tensors=[entry("t", (4,), offset=2**63)]), "no more than"),
    "overflow": (blob(tensors=[entry("t", (2**32, 2**32))]), "no more than"),
    "no rows": (blob(tensors=[entry("t", (4, 0))]), "whole blocks"),
    "unknown type": (blob(tensors=[entry("t", (4,), kind=999)]), "type 999"),
    "half a block": (blob(tensors=[entry("t", (48, 1), kind=8)]), "whole blocks"),
    "a vector in blocks": (blob(tensors=[entry("t", (32,), kind=8)]), "whole blocks"),
    "half a superblock": (blob(tensors=[entry("t", (128, 2), kind=12)]), "whole blocks"),
    "overflowing blocks": (blob(tensors=[entry("t", (2**62, 2**62), kind=2)]), "no more than"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_files_that_lie_are_refused_at_once(tmp_path, data, message):
    (tmp_path / "model.gguf").write_bytes(data)
    start = time.monotonic()
    with pytest.raises(InputError, match=message):
        open_checkpoint(str(tmp_path / "model.gguf"))
    assert time.monotonic() - start < 1


def test_a_fifo_or_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(InputError, match="not a regular file"):
        open_checkpoint(str(tmp_path / "model.gguf"))
    with pytest.raises(InputError, match="no GGUF file"):
        open_checkpoint(str(tmp_path / "none.gguf"))


def test_damage_anywhere_is_an_input_error_or_harmless(model):
    """Cut short at any place, or bytes changed in the header: never another exception, never a hang."""
    whole = model.read_bytes()
    header = whole.index(b"token_embd.weight") + 2000
    rng = random.Random(5)
    for case in range(150):
        data = bytearray(whole)
        if case % 3 == 0:
            del data[rng.randrange(len(data)) :]
        else:
            for _ in range(rng.choice([1, 4])):
                data[rng.randrange(header)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        model.write_bytes(data)
        try:
            checkpoint = open_checkpoint(str(model))
        except InputError:
            continue
        assert set(checkpoint.slots) == set(checkpoint.config.shapes())


def test_damaged_weights_are_taken_or_refused(tiny, tmp_path):
    """Bytes changed anywhere in Q4_0 and Q8_0 blocks: a set of weights, or an InputError where a scale is no number."""
    make_gguf(tiny("llama"), tmp_path / "m.gguf", "Q4_0 Q8_0")
    whole, rng, refused = (tmp_path / "m.gguf").read_bytes(), np.random.default_rng(8), 0
    start = read_gguf(tmp_path / "m.gguf")[1]["token_embd.weight"].offset
    for _ in range(12):
        data = np.frombuffer(whole, np.uint8).copy()
        data[rng.integers(start, len(data), 40)] = rng.choice([0, 0x7C, 0x80, 0xFC, 0xFF], 40)
        (tmp_path / "m.gguf").write_bytes(data.tobytes())
        checkpoint = open_checkpoint(str(tmp_path / "m.gguf"))
        try:
            weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int8"], tmp_path)
        except InputError:
            refused += 1
        else:
            assert all(np.isfinite(weights.read(name)).all() for name in weights.entries)
    assert 0 < refused < 12


def test_a_file_cut_after_it_was_opened_is_noticed(model):
    checkpoint = open_checkpoint(str(model))
    model.write_bytes(model.read_bytes()[:-40])
    with pytest.raises(InputError, match="ends too early"):
        for name in checkpoint.slots:
            checkpoint.read(name)
