"""What a model's files say about generating with it: end tokens, BOS, sampling, and the files that say it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from smolship.export.checkpoints import open_checkpoint
from smolship.export.facts import Resolved, resolve
from smolship.export.preflight import check
from smolship.export.weights import SCHEMES
from smolship.runtime.errors import InputError
from smolship.runtime.facts import Recommended
from smolship.runtime.records import read_record
from tests.gguf_maker import make_gguf

GENERATION, TOKENIZER, OLD = "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"  # names no end token
VOCAB = 300


@pytest.fixture
def read(tiny, tmp_path) -> Callable[..., Resolved]:
    """read(config=…, generation=…, tokenizer=…, template=…) -> what such a checkpoint's files say. Of the tiny one's
    own end tokens none is left."""

    def get(generation: Any = None, template: str | bytes | None = PLAIN, config: Any = None, **more: Any) -> Resolved:
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tiny("llama"), folder)
        raw = json.loads((folder / "config.json").read_text())
        raw |= {"eos_token_id": None, "bos_token_id": None, "pad_token_id": None} | (config or {})
        (folder / "config.json").write_text(json.dumps(raw))
        (folder / GENERATION).unlink()
        (folder / "chat_template.jinja").unlink()
        named = {GENERATION: generation, TOKENIZER: more.pop("tokenizer", {}), OLD: more.pop("old", None)}
        for name, value in named.items():
            if value is not None:
                (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
        if template is not None:
            (folder / "chat_template.jinja").write_bytes(template if isinstance(template, bytes) else template.encode())
        assert not more
        return resolve(open_checkpoint(str(folder)))

    return get


def ends(resolved: Resolved) -> dict[int, tuple[str, ...]]:
    assert resolved.problems == []
    return {end.id: end.origins for end in resolved.facts.ends}


def test_every_file_may_name_an_end_token(read):
    turn = PLAIN.replace("\n", "<|im_start|>\n")
    found = read({"eos_token_id": [7, 9]}, turn, {"eos_token_id": [9, 11]}, tokenizer={"eos_token": "<|im_end|>"})
    assert ends(found) == {
        7: (GENERATION,),
        9: (GENERATION, "config.json"),
        11: ("config.json",),
        2: (TOKENIZER,),
        1: ("chat template",),
    }
    assert [end.text for end in found.facts.ends][-2:] == ["<|im_end|>", "<|im_start|>"]
    assert any("ends a turn with '<|im_start|>'" in note for note in found.notes)


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ({"generation": {"eos_token_id": [4, 8]}}, GENERATION),
        ({"generation": {"eos_token_id": 4.0}}, GENERATION),
        ({"config": {"eos_token_id": 4}}, "config.json"),
        ({"tokenizer": {"eos_token": "<|im_end|>"}}, TOKENIZER),
        ({"tokenizer": {"eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True}}}, TOKENIZER),
        ({"old": {"eos_token": {"content": "<|im_end|>", "lstrip": False}}}, TOKENIZER),
        ({"template": PLAIN.replace("\n", " <|im_end|>\n")}, "chat template"),
    ],
)
def test_one_file_alone(read, given, origin):
    found = ends(read(**given))
    assert set(found.values()) == {(origin,)} and set(found) <= {2, 4, 8}


def test_the_old_map_counts_only_beside_a_config_of_the_old_kind(read):
    """As transformers has it: a list of added tokens marks the new kind."""
    new = {"eos_token": "<pad>", "added_tokens_decoder": {}}
    assert list(ends(read(tokenizer=new, old={"eos_token": "<|im_end|>"}))) == [0]
    assert list(ends(read(tokenizer={"eos_token": "<pad>"}, old={"eos_token": "<|im_end|>"}))) == [2]


def test_a_token_put_behind_a_text_ends_one(read, tiny, tmp_path):
    raw = json.loads((tiny("llama") / "tokenizer.json").read_text())
    raw["post_processor"] = {
        "type": "TemplateProcessing",
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<pad>", "type_id": 0}},
        ],
        "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for i, t in ((1, "<|im_start|>"), (0, "<pad>"))},
    }
    read()
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(raw))
    found = resolve(open_checkpoint(str(tmp_path / "model")))
    assert list(ends(found)) == [0] and found.facts.adds_bos


def test_no_end_token_anywhere_is_said(read):
    found = read()
    assert ends(found) == {} and any("--max-tokens" in note for note in found.notes)
    assert not found.facts.adds_bos


@pytest.mark.parametrize(
    "value", [VOCAB, -1, "2", 2.5, True, [3, "4"], [3, VOCAB + 9], [[3]], {"id": 3}, [1] * 65, 1e999]
)
def test_an_end_token_that_is_none(read, value):
    """Refused in generation_config.json; the family's translation refuses it in config.json."""
    found = read({"eos_token_id": value})
    assert len(found.problems) == 1 and "'eos_token_id'" in found.problems[0] and GENERATION in found.problems[0]


def test_all_problems_come_at_once(read, tmp_path):
    found = read({"eos_token_id": "x", "do_sample": "yes", "repetition_penalty": -2}, "{% if %}")
    assert len(found.problems) == 4
    with pytest.raises(InputError) as caught:
        check(open_checkpoint(str(tmp_path / "model")), ["onnx"], SCHEMES["int4"], 64)
    assert all(word in str(caught.value) for word in ("eos_token_id", "do_sample", "repetition_penalty", "line 1"))


@pytest.mark.parametrize("value", [VOCAB, -1, "0", 0.5])
def test_a_pad_token_that_is_none_is_a_note(read, value):
    for given in ({"generation": {"pad_token_id": value}}, {"config": {"pad_token_id": value}}):
        found = read(**given, tokenizer={"pad_token": "<pad>"})
        assert found.problems == [] and found.facts.pad == 0
        assert any("pad_token_id" in note and "nothing depends on it" in note for note in found.notes)


def test_a_token_that_the_tokenizer_does_not_know(read):
    found = read({"eos_token_id": 5}, tokenizer={"eos_token": "<|gone|>", "bos_token": 7})
    assert [end.id for end in found.facts.ends] == [5]
    assert any("'<|gone|>' is not in tokenizer.json" in note for note in found.notes)
    assert found.problems == [f"{TOKENIZER}: bos_token is 7; expected a token's text"]


def test_bos_is_agreed_on_or_the_difference_is_said(read):
    found = read({"bos_token_id": 3}, config={"bos_token_id": 4}, tokenizer={"bos_token": "<|im_start|>"})
    assert found.facts.bos == 3
    assert any(f"3 in {GENERATION}, 4 in config.json, 1 in {TOKENIZER}" in note for note in found.notes)
    assert read(tokenizer={"bos_token": "<|im_start|>"}).facts.bos == 1
    assert read().facts.bos is None


def test_sampling_in_config_json_counts_where_there_is_no_generation_config(read):
    """So transformers has it."""
    own = {"do_sample": True, "temperature": 0.3}
    assert read(config=own).facts.sampling == Recommended(do_sample=True, temperature=0.3)
    found = read({"top_p": 0.5, "temperature": 0.3}, config=own)
    assert found.facts.sampling == Recommended(top_p=0.5, temperature=0.3)
    assert any(f"config.json: do_sample: not read beside {GENERATION}" in note for note in found.notes)
    assert not any("not read by this architecture" in note for note in read(config=own).notes)


def test_a_file_that_is_no_json(read):
    with pytest.raises(InputError, match=GENERATION):
        read("{")
    with pytest.raises(InputError, match=TOKENIZER):
        read(tokenizer="[]")


def test_the_bundle_says_it_again(read, tmp_path):
    """Files for others: one template, no list of them, and a generation config with the facts."""
    named = [{"name": "default", "template": PLAIN}, {"name": "rag", "template": "x"}]
    tokens = {"eos_token": "<|im_end|>", "x": "ſ"}
    found = read(
        {"do_sample": True, "top_k": 50.0, "temperature": None, "min_p": 0.1, "num_beams": 3},
        None,
        {"eos_token_id": 6},
        tokenizer={"chat_template": named} | tokens,
    )
    files = found.side_files(open_checkpoint(str(tmp_path / "model")))
    assert files["chat_template.jinja"].decode() == PLAIN
    assert json.loads(files[TOKENIZER]) == tokens
    assert json.loads(files[GENERATION]) == {"eos_token_id": [6, 2], "do_sample": True, "min_p": 0.1, "num_beams": 3}
    assert read_record(Resolved, json.loads(json.dumps(asdict(found))), "a step") == found


def test_a_template_that_apps_cannot_render_is_said(read):
    found = read(template=PLAIN)
    assert json.loads(found.program() or b"")["schema"] == 1 and "apps" not in " ".join(found.notes)
    found = read(template=f"{PLAIN}\n{{% block end %}}{{% endblock %}}")
    assert found.program() is None and found.template is not None
    assert any("apps cannot render the chat template" in n and "line 3: {% block %}" in n for n in found.notes)
    assert read(template=None, tokenizer={}).program() is None


def test_a_template_that_is_none_is_in_no_file(read, tmp_path):
    found = read(template="   ", tokenizer={"chat_template": PLAIN})
    files = found.side_files(open_checkpoint(str(tmp_path / "model")))
    assert found.template is None and "chat_template.jinja" not in files
    assert json.loads(files[TOKENIZER]) == {}


class TestGguf:
    """A GGUF file's own words for the same."""

    def read(self, tiny: Any, path: Path, **extra: Any) -> Resolved:
        make_gguf(tiny("llama"), path, **{"drop": ()} | extra)
        return resolve(open_checkpoint(str(path)))

    def test_eos_eot_and_eom(self, tiny, tmp_path):
        keys = {f"tokenizer.ggml.{role}_token_id": i for role, i in (("eos", 9), ("eot", 7), ("eom", 5))}
        found = self.read(tiny, tmp_path / "a.gguf", **keys)
        assert ends(found) == {
            9: ("tokenizer.ggml.eos_token_id",),
            7: ("tokenizer.ggml.eot_token_id",),
            5: ("tokenizer.ggml.eom_token_id",),
            2: ("chat template",),
        }

    def test_one_token_by_two_names(self, tiny, tmp_path):
        found = self.read(tiny, tmp_path / "a.gguf", **{"tokenizer.ggml.eot_token_id": 2})
        assert ends(found) == {2: ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "chat template")}

    def test_none(self, tiny, tmp_path):
        drop = ("tokenizer.ggml.eos_token_id", "tokenizer.chat_template")
        assert ends(self.read(tiny, tmp_path / "a.gguf", drop=drop)) == {}

    def test_its_sampling(self, tiny, tmp_path):
        keys = {"temp": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.02, "penalty_repeat": 1.05, "xtc_threshold": 0.25}
        found = self.read(tiny, tmp_path / "a.gguf", **{f"general.sampling.{key}": v for key, v in keys.items()})
        assert found.facts.sampling == Recommended(True, 0.7, 20, 0.8, 0.02, 1.05) and found.problems == []
        assert any("'general.sampling.xtc_threshold' 0.25" in note for note in found.notes)

    @pytest.mark.parametrize("temperature", [0.0, -1.0])
    def test_greedy(self, tiny, tmp_path, temperature):
        found = self.read(tiny, tmp_path / "a.gguf", **{"general.sampling.temp": temperature})
        assert found.facts.sampling == Recommended() and found.problems == []

    @pytest.mark.parametrize("how", [{"drop": ("tokenizer.ggml.pre",)}, {"split": ""}])
    def test_a_split_that_is_not_named_is_a_guess_that_is_said(self, tiny, tmp_path, how):
        from smolship.runtime.engines.gguf import GgufTokenizer
        from smolship.runtime.tokenizer import Tokenizer

        path = tmp_path / "a.gguf"
        found = self.read(tiny, path, **how)
        assert (
            len([n for n in found.notes if "no tokenizer.ggml.pre" in n and "'default', as llama.cpp does" in n]) == 1
        )
        text = "It's 12345 o'clock,  and 6 7: don't!"
        ours = Tokenizer(open_checkpoint(str(path)).files["tokenizer.json"]).encode(text, special=False)
        assert GgufTokenizer(path).encode(text, special=False) == ours, "llama.cpp splits so too"
        assert not any("tokenizer.ggml.pre" in note for note in self.read(tiny, path, split="gpt-2").notes)

    def test_named_templates_without_a_default(self, tiny, tmp_path):
        found = self.read(
            tiny, tmp_path / "a.gguf", drop=("tokenizer.chat_template",), **{"tokenizer.chat_template.tool_use": PLAIN}
        )
        assert found.template is None and any("tool_use" in note for note in found.notes)

    def test_a_pad_token_that_is_none(self, tiny, tmp_path):
        found = self.read(tiny, tmp_path / "a.gguf", **{"tokenizer.ggml.padding_token_id": 4_000_000_000})
        assert found.facts.pad is None and any("nothing depends on it" in note for note in found.notes)

    @pytest.mark.parametrize("key", ["temp", "top_k", "penalty_repeat", "penalty_last_n"])
    def test_sampling_that_is_no_number(self, tiny, tmp_path, key):
        """An array compares number by number."""
        found = self.read(
            tiny, tmp_path / "a.gguf", **{f"general.sampling.{key}": [1, 2], "tokenizer.chat_template": [1, 2]}
        )
        assert any("array" in line or "list" in line for line in found.problems + found.notes)
        assert found.template is None and any("which is no text" in note for note in found.notes)
