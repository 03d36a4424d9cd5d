"""Tiny tokenizers of every kind that the GGUF target knows, through llama.cpp, on the hard strings."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from tokenizers import AddedToken, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Raw

from smolship.export import export
from smolship.export.checkpoints import open_checkpoint
from smolship.export.checkpoints.gguf_splits import GPT4O, SPLITS, WHOLE_WORDS_FIRST
from smolship.export.targets import gguf as target
from smolship.export.targets.gguf.vocab import SPACE, WRITTEN, differences, vocabulary
from smolship.export.weights import SCHEMES, write_weights
from smolship.runtime.engines.gguf import GgufTokenizer
from smolship.runtime.errors import InputError
from smolship.runtime.facts import GenerationFacts
from smolship.runtime.hard_strings import CODE, CONTRACTIONS, DIGITS, PLAIN, SPACES, UNICODE, hard_strings
from smolship.runtime.template import ChatTemplate
from smolship.runtime.tokenizer import Tokenizer
from smolship.tools.tokenizers import compare, compare_all, main, shortest
from tests.bundles import job_of
from tests.conftest import make_tiny

VOCAB = 900
SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>"]
# As SmolLM3's: thinking unless it is told otherwise, by a variable or in the system prompt.
THINKING = """{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}
{%- set ns = namespace(mode='/think' if enable_thinking else '/no_think') %}
{%- if messages[0].role == 'system' and '/no_think' in messages[0].content %}{% set ns.mode = '/no_think' %}{% endif %}
{{- '<|im_start|>system\n## Metadata\n\nReasoning Mode: ' + ns.mode + '<|im_end|>\n' }}
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if ns.mode == '/no_think' %}{{ '<think>\n\n</think>\n' }}{% endif %}{% endif %}"""


def byte_level(name: str) -> dict:
    """A tokenizer.json with the split that llama.cpp calls `name`, trained on the hard strings."""
    tokenizer = Raw(models.BPE(ignore_merges=name in WHOLE_WORDS_FIRST))
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    raw = json.loads(tokenizer.to_str())
    raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": SPLITS[name]}
    tokenizer = Raw.from_str(json.dumps(raw))
    tokenizer.train_from_iterator([*PLAIN, *SPACES, *DIGITS, *CONTRACTIONS, *UNICODE, *CODE] * 3, trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ("<think>", "</think>")])
    raw = json.loads(tokenizer.to_str())
    raw["decoder"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    first, text = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    special = {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}}
    if name == "llama-bpe":
        raw["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [first, text],
            "pair": [first, text, text],
            "special_tokens": special,
        }
    return raw


def sentencepiece() -> dict:
    """A tokenizer.json as transformers makes it of a SentencePiece model: every split of a token into two is a merge,
    in the order of the scores."""
    whole = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    letters = list(dict.fromkeys(SPACE + "etaoinshrdlucmfwypvbgkqjxz.,'12é中"))
    words = [SPACE + w for w in ("the", "quick", "brown", "fox", "lazy", "dog", "and", "return", "camel")]
    parts = dict.fromkeys(w[i:j] for w in words for j in range(len(w) + 1) for i in range(j) if j - i > 1)
    pieces = [*sorted(parts, key=len), SPACE * 2, SPACE * 3]
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*whole, *pieces, *letters]))}
    merges = [[t[:k], t[k:]] for t in pieces for k in range(1, len(t)) if t[:k] in vocab and t[k:] in vocab]
    added = [
        {
            "id": i,
            "content": t,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, t in enumerate(whole[:3])
    ]
    first, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": None,
        "decoder": None,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, text],
            "pair": [first, text, text],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": merges,
        },
    }


def lowered(folder, raw, vocab=VOCAB + 20):
    """llama.cpp's tokenizer and the model's own, of a model with that tokenizer.json."""
    model = make_tiny(folder / "model", "llama", vocab_size=vocab)
    (model / "tokenizer.json").write_text(json.dumps(raw))
    checkpoint = open_checkpoint(str(model))
    weights = write_weights(checkpoint, checkpoint.config, SCHEMES["int4"], folder)
    target.lower(job_of(checkpoint, weights, 64), folder)
    return GgufTokenizer(folder / "model.gguf"), Tokenizer(checkpoint.files["tokenizer.json"])


@pytest.mark.parametrize("name", WRITTEN)
def test_llama_cpp_gives_the_same_ids(tmp_path, name):
    llama, ours = lowered(tmp_path, byte_level(name))
    template = ChatTemplate(THINKING)
    strings = hard_strings(ours, template)
    assert sum("Reasoning Mode: /no_think" in text for text in strings) >= 2
    assert sum("Reasoning Mode: /think" in text for text in strings) >= 2
    assert len(strings) > 600
    row = compare(name, ours.encode, llama.encode, strings, judged=True)
    assert row.passed, row.examples
    assert (llama.encode("a")[0] == 1) == (name == "llama-bpe")  # BOS


def test_sentencepiece_gives_the_same_ids(tmp_path):
    llama, ours = lowered(tmp_path, sentencepiece())
    row = compare("llama", ours.encode, llama.encode, hard_strings(ours, None), judged=True)
    assert row.passed, row.examples
    assert llama.encode("the dog")[0] == 1


@pytest.mark.parametrize("behavior", ["Isolated", "Removed"])
def test_gpt_4o_s_own_expression_is_cut_nearly_so(tmp_path, behavior):
    """What differs is said: text in which llama.cpp knows no categories of letters. Phi-4-mini has this tokenizer."""
    raw = byte_level("gpt-4o")
    raw["pre_tokenizer"]["pretokenizers"] = [
        step | ({"behavior": behavior, "invert": behavior == "Removed"} if step["type"] == "Split" else {})
        for step in GPT4O
    ]
    assert "combine" in differences({"tokenizer.json": json.dumps(raw).encode()})[0]
    assert differences({"tokenizer.json": json.dumps(byte_level("gpt-4o")).encode()}) == []
    llama, ours = lowered(tmp_path, raw)
    strings = hard_strings(ours, None)
    plain = [text for text in strings if text.isascii()]
    assert len(plain) > 250
    assert compare("gpt-4o", ours.encode, llama.encode, plain, judged=True).passed
    rest = compare("gpt-4o", ours.encode, llama.encode, strings)
    assert 0 < rest.mismatches < len(strings) / 10, rest.mismatches


def phi3() -> dict:
    """SentencePiece, with tokens that take the white space behind them, as Phi-3 has them."""
    raw = sentencepiece()
    end = next(token for token in raw["added_tokens"] if token["content"] == "</s>")
    end |= {"rstrip": True, "special": False}
    count = len(raw["model"]["vocab"])
    for i, text in enumerate(("<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>")):
        token = dict.fromkeys(("single_word", "lstrip", "normalized"), False)
        raw["added_tokens"].append(
            token | {"id": count + i, "content": text, "special": True, "rstrip": text != "<|endoftext|>"}
        )
    return raw


def test_white_space_behind_phi_3_s_tokens(tmp_path):
    llama, ours = lowered(tmp_path, phi3())
    turns = [
        "<|user|>\n the dog<|end|>\n<|assistant|>\n",
        "<|user|>   <|end|> \t\r\n the </s>  fox <s>  <|endoftext|>  a",
    ]
    strings = [*hard_strings(ours, None), *turns]
    row = compare("phi-3", ours.encode, llama.encode, strings, judged=True)
    assert row.passed, row.examples
    assert ours.encode("<|user|>\n the") == ours.encode("<|user|>the") != ours.encode("<s>\n the")
    assert not compare("phi-3", ours.encode, llama.encode, ["<|end|>\u00a0the"], judged=True).passed  # which is said:
    assert "beyond ASCII" in differences({"tokenizer.json": json.dumps(phi3()).encode()})[0]
    again = Tokenizer(open_checkpoint(str(tmp_path / "model.gguf")).files["tokenizer.json"])
    assert compare("phi-3", again.encode, llama.encode, strings, judged=True).passed


def test_white_space_behind_other_tokens_is_refused(tiny):
    config = replace(open_checkpoint(str(tiny("llama"))).config, vocab=VOCAB)
    for change in ("<|endoftext|>", "<|user|>"):
        raw = phi3()
        token = next(token for token in raw["added_tokens"] if token["content"] == change)
        token["rstrip"] = not token["rstrip"]
        with pytest.raises(InputError, match="added token"):
            vocabulary({"tokenizer.json": json.dumps(raw).encode()}, config, GenerationFacts())


def test_a_wrong_name_is_seen(tmp_path, monkeypatch):
    """Digits split one by one and digits kept together: the strings tell them apart."""
    raw = byte_level("gpt-2")
    monkeypatch.setattr("smolship.export.targets.gguf.vocab._split_name", lambda raw: "smollm")
    llama, ours = lowered(tmp_path, raw)
    row = compare("wrong", ours.encode, llama.encode, hard_strings(ours, None), judged=True)
    assert not row.passed
    assert any(text.isdecimal() for text, _, _ in row.examples)


CHANGES = {
    "another model": ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}, "model"),
    "another split": ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer"),
    "a normalizer": ({"normalizer": {"type": "NFC"}}, "normalizer"),
    "a token that strips": (
        {
            "added_tokens": [
                {
                    "id": 0,
                    "content": "<pad>",
                    "single_word": False,
                    "lstrip": True,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
            ]
        },
        "added token",
    ),
    "two tokens in front": (
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                "single": [{"SpecialToken": {"id": "<pad>", "type_id": 0}}] * 2
                + [{"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<pad>": {"id": "<pad>", "ids": [0], "tokens": ["<pad>"]}},
            }
        },
        "post_processor",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_llama_cpp_does_otherwise_is_refused(tmp_path, change):
    new, part = CHANGES[change]
    with pytest.raises(InputError, match=f"llama.cpp does not tokenize so: .*{part}"):
        lowered(tmp_path, byte_level("gpt-2") | new)


def test_llama_merges_without_ignore_merges_are_another_split(tmp_path):
    raw = byte_level("smaug-bpe")
    config = open_checkpoint(str(make_tiny(tmp_path, "llama", vocab_size=VOCAB + 20))).config
    for whole, name in ((False, "smaug-bpe"), (True, "llama-bpe")):
        raw["model"]["ignore_merges"] = whole
        found = vocabulary({"tokenizer.json": json.dumps(raw).encode()}, config, GenerationFacts())
        assert found["tokenizer.ggml.pre"] == name


def test_sentencepiece_merges_that_are_not_whole(tmp_path):
    raw = sentencepiece()
    del raw["model"]["merges"][-1]
    with pytest.raises(InputError, match="merges"):
        lowered(tmp_path, raw)


def test_more_tokens_than_rows(tmp_path):
    with pytest.raises(InputError, match="more tokens than the model"):
        lowered(tmp_path, byte_level("gpt-2"), vocab=VOCAB - 20)


def test_the_shortest_part():
    fails = lambda text: "ab" in text and len(text) > 2  # noqa: E731
    assert len(shortest("x" * 40 + "ab" + "y" * 40, fails)) == 3
    assert len(shortest("ab", lambda text: True)) == 1


def test_refusals_count_as_mismatches():
    def refuse(text):
        raise RuntimeError("no")

    row = compare("theirs", lambda text: [1], refuse, ["a", "bc"])
    assert (row.mismatches, row.passed) == (2, True)
    assert all(len(text) == 1 and theirs is None for text, _, theirs in row.examples)


def test_hard_strings_are_always_the_same(tiny):
    tokenizer = Tokenizer(tiny("llama") / "tokenizer.json")
    assert hard_strings(tokenizer, None) == hard_strings(tokenizer, None)
    assert all(a != b for a, b in pairwise(hard_strings(tokenizer, None)))


def test_the_command_judges_ascii_where_the_rest_is_said(tmp_path):
    model = make_tiny(tmp_path / "model", "llama", vocab_size=VOCAB + 20)
    raw = byte_level("gpt-4o")
    raw["pre_tokenizer"]["pretokenizers"] = GPT4O
    (model / "tokenizer.json").write_text(json.dumps(raw))
    bundle = export(model, tmp_path / "b", to=["gguf"], quant="int8", context=64, probe_tokens=0)
    assert any("cuts otherwise" in note for note in bundle.manifest.quantization.notes)
    rows = {row.tokenizer: row for row in compare_all(bundle)}
    assert rows["llama.cpp"].judged and rows["llama.cpp"].mismatches == 0
    assert not rows["llama.cpp, beyond ASCII"].judged and rows["llama.cpp, beyond ASCII"].mismatches
    assert sum(row.strings for row in rows.values()) > 1200


def test_the_command(tiny, tmp_path, capsys):
    export(tiny("llama"), tmp_path / "b", to=["gguf"], quant="int8", context=64, probe_tokens=0)
    assert main([str(tmp_path / "b")]) == 0
    said = capsys.readouterr().out
    assert "llama.cpp" in said and "ok" in said
    assert main([str(tmp_path)]) == 2
    assert main([]) == 2
