"""Tokenizers recovered from GGUF files give llama.cpp's ids: every split that we know by name, and SentencePiece."""

from __future__ import annotations

import json

import gguf
import pytest
from tokenizers import Tokenizer as Raw
from tokenizers import models, pre_tokenizers, trainers

from smolship.export.checkpoints.gguf_file import read_gguf
from smolship.export.checkpoints.gguf_splits import SPLITS, WHOLE_WORDS_FIRST
from smolship.export.checkpoints.gguf_tokenizer import tokenizer_files
from smolship.runtime.engines.gguf import GgufTokenizer
from smolship.runtime.errors import InputError
from smolship.runtime.hard_strings import CODE, CONTRACTIONS, DIGITS, PLAIN, SPACES, UNICODE, hard_strings
from smolship.runtime.tokenizer import Tokenizer
from smolship.tools.tokenizers import compare

SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>"]
# One name for each split that is unlike the others.
DIFFERENT = {json.dumps([steps, name in WHOLE_WORDS_FIRST]): name for name, steps in reversed(SPLITS.items())}.values()
RUNS = [c * n for c in " \t\n-=a" for n in (*range(2, 40), 64, 65, 200)]


def byte_level(name: str) -> dict:
    """The metadata of a vocabulary that is trained on the hard strings, cut as `name` says."""
    tokenizer = Raw(models.BPE())
    raw = json.loads(tokenizer.to_str()) | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": SPLITS[name]}}
    tokenizer = Raw.from_str(json.dumps(raw))
    tokenizer.train_from_iterator(
        [*PLAIN, *SPACES, *DIGITS, *CONTRACTIONS, *UNICODE, *CODE] * 3,
        trainers.BpeTrainer(
            vocab_size=900,
            special_tokens=SPECIAL,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return {
        "model": "gpt2",
        "pre": name,
        "tokens": tokens,
        "merges": [" ".join(pair) for pair in model["merges"]],
        "token_type": [3 if token in SPECIAL else 1 for token in tokens],
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def sentencepiece(**extra) -> dict:
    """A vocabulary with scores in which no token's halves stand in the order of its score."""
    whole = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "\n\n", "<think>"]
    words = [*("▁" + w for w in ("the", "quick", "brown", "fox", "return", "camel", "ing")), "lazy", "--", "---", "a a"]
    parts = dict.fromkeys(w[i:j] for w in words for j in range(len(w) + 1) for i in range(j) if j - i > 1)
    runs = ["▁" * n for n in range(2, 17)] + ["aa", "aaa", "aaaa"]
    letters = dict.fromkeys("▁etaoinshrdlucmfwypvbgkqjxz.,'12é中-=\t")
    tokens = list(dict.fromkeys([*whole, *parts, *runs, *letters]))
    kinds = [2, 3, 3, *[6] * 256, 4, 4, *[1] * (len(tokens) - len(whole))]
    scores = [-float((i * 37) % 101) - (i / 1000) if kind == 1 else 0.0 for i, kind in enumerate(kinds)]
    return {
        "model": "llama",
        "pre": "default",
        "tokens": tokens,
        "scores": scores,
        "token_type": kinds,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    } | extra


def made(path, metadata: dict) -> tuple[GgufTokenizer, Tokenizer]:
    """llama.cpp's tokenizer and ours of a file that holds nothing but a vocabulary."""
    write(path, metadata)
    return GgufTokenizer(path), recovered(path)


def recovered(path) -> Tokenizer:
    return Tokenizer(tokenizer_files(read_gguf(path)[0], path)["tokenizer.json"])


def write(path, metadata: dict) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    needed = {
        "context_length": 64,
        "embedding_length": 32,
        "block_count": 1,
        "attention.head_count": 1,
        "feed_forward_length": 32,
        "rope.dimension_count": 32,
    }
    for key, number in needed.items():
        writer.add_uint32(f"llama.{key}", number)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    for key, value in metadata.items():
        add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, list: writer.add_array}
        add[type(value)](f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def agree(llama: GgufTokenizer, ours: Tokenizer) -> None:
    strings = [*hard_strings(ours, None), *RUNS]
    for special in (True, False):
        row = compare(
            "llama.cpp",
            lambda text, s=special: ours.encode(text, s),
            lambda text, s=special: llama.encode(text, s),
            strings,
            judged=True,
        )
        assert row.passed, row.examples


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", DIFFERENT)
def test_every_split_gives_llama_cpps_ids(tmp_path, name):
    agree(*made(tmp_path / "m.gguf", byte_level(name)))


@pytest.mark.parametrize(
    "extra",
    [{}, {"add_space_prefix": False}, {"add_bos_token": False, "add_eos_token": True}],
    ids=["", "no space in front", "EOS behind"],
)
def test_sentencepiece_scores_give_llama_cpps_ids(tmp_path, extra):
    llama, ours = made(tmp_path / "m.gguf", sentencepiece(**extra))
    agree(llama, ours)
    text = "the quick  brown\nfox — 中é 𝟙 returning"
    assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("name", SPLITS)
def test_names_that_mean_the_same_are_llama_cpps_too(tmp_path, name):
    """llama.cpp knows each name; what it adds in front, and whether whole words come first, is as here."""
    metadata = byte_level("smollm") | {"pre": name}
    llama, ours = made(tmp_path / "m.gguf", metadata)
    for text in ("", "I'LL pay 12345 €\n\n ok", "naïve 'ſ"):
        assert ours.encode(text) == llama.encode(text)


BROKEN = {
    "no scores": ({"scores": []}, "scores cannot be used"),
    "NaN": ({"scores": [float("nan")] * len(sentencepiece()["tokens"])}, "finite"),
    "no bytes": ({"tokens": ["x" + t if t == "<0x7F>" else t for t in sentencepiece()["tokens"]]}, "lacks bytes"),
    "a long token": ({"tokens": [*sentencepiece()["tokens"][:-1], "y" * 300]}, "too long"),
    "another model": ({"model": "bert"}, "gpt2, llama"),
}


@pytest.mark.parametrize(("extra", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_vocabularies_are_refused(tmp_path, extra, message):
    write(tmp_path / "m.gguf", {k: v for k, v in sentencepiece(**extra).items() if v != []})
    with pytest.raises(InputError, match=f"(?s){message}"):
        recovered(tmp_path / "m.gguf")
