"""An engine's own tokenizer against the model's: what differs fails parity, and what has none is said to have none."""

from __future__ import annotations

import json
import shutil
import struct
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolship.runtime import open_bundle
from smolship.runtime.case import case_of
from smolship.runtime.engines.gguf import GgufTokenizer
from smolship.runtime.errors import InputError
from smolship.runtime.execute import in_child
from smolship.runtime.judge import Check
from smolship.runtime.parity import judge_result, parity
from smolship.runtime.plan import ALL_STRINGS, LONGEST_STRING, MOST_STRINGS, Plan
from smolship.runtime.records import read_record, to_json
from smolship.runtime.result import Result, Tokens
from smolship.runtime.session import Traits
from smolship.runtime.tokenizer import Tokenizer
from smolship.runtime.tokenizing import CUTS, LEAVES, STAGE, compared, strings_of
from smolship.tools.cli import run
from smolship.tools.report.page import render
from smolship.tools.report.results import Results
from tests.bundles import sign
from tests.edit import replace_bytes

Ids = list[int] | None


def told(bare: Ids, around: Ids, text: str | None) -> Tokens:
    return Tokens(*(None if ids is None else np.array(ids, np.int32) for ids in (bare, around)), text)


@pytest.fixture
def ours(tiny: Any) -> Tokenizer:
    return Tokenizer(tiny("llama") / "tokenizer.json")


def judged(ours: Tokenizer, text: str, tokens: Tokens, lenient: bool = False) -> Check:
    return compared("theirs", ours, ["a", text], [right(ours, "a"), tokens], lenient)


def right(ours: Tokenizer, text: str) -> Tokens:
    ids = ours.encode(text, special=False)
    return told(ids, ours.encode(text), ours.decode(ids))


def test_each_difference_is_placed(ours: Tokenizer) -> None:
    ids = ours.encode("quick é", special=False)
    sound = right(ours, "quick é")
    check = judged(ours, "quick é", sound)
    assert check.passed and check.exact and (check.positions, check.top1, check.at, check.note) == (2, 1.0, "", "")
    other = [*ids[:1], 7, *ids[2:]]
    cases: list[tuple[Tokens, str]] = [
        (told(other, None, "quick é"), f"token 2 is 7, not {ids[1]}"),
        (told(ids, other, "quick é"), f"token 2 is 7, not {ids[1]}"),
        (told(None, ids[:-1], "quick "), f"token {len(ids)} is missing, not {ids[-1]}"),
        (told([*ids, 9], None, None), f"token {len(ids) + 1} is 9, not missing"),
        (told([-5, *ids[1:]], None, None), f"token 1 is -5, not {ids[0]}"),
        (told(None, None, None), "'quick \\xe9' is refused, not tokenized"),
        (told(ids, ids, "quick e"), "as text again is 'quick e', not 'quick \\xe9'"),
        (told(ids, ids, None), "as text again is no text"),
        (told(ids, ids, "quick \ud83d\x1b[31m"), "as text again is 'quick \\ud83d\\x1b[31m'"),
    ]
    for tokens, words in cases:
        check = judged(ours, "quick é", tokens)
        assert not check.passed and check.top1 == 0.5 and words in check.note, check.note
        assert check.note.startswith("theirs: 1 of 2 texts differ: 'quick \\xe9'") and "'quick" in check.at
    assert judged(ours, "quick é", told(None, ids, "quick é")).passed  # of one that can do but one of them


def test_text_beyond_ascii_is_told_where_the_export_said_so(ours: Tokenizer) -> None:
    check = judged(ours, "é", told([1], None, "x"), lenient=True)
    assert check.passed and check.top1 == 0.5 and "beyond ASCII 1 of 2 texts have other ids" in check.note
    assert not judged(ours, "e", told([1], None, "x"), lenient=True).passed


def test_added_tokens_are_shown_as_each_program_likes(ours: Tokenizer) -> None:
    ids = ours.encode("<|im_start|>a", special=False)
    assert judged(ours, "<|im_start|>a", told(ids, None, "a")).passed
    assert judged(ours, "<|im_start|>a", told(ids, None, "<|im_start|>a")).passed
    assert not judged(ours, "<|im_start|>a", told(ids[1:], None, "a")).passed


@pytest.fixture
def bundle(tiny_bundle: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "bundle"))


def row(report: Any) -> Check:
    (found,) = (check for check in report.checks if check.stage == STAGE)
    assert isinstance(found, Check)
    return found


def put_string(path: Path, old: str, new: str) -> None:
    """Another text of as many bytes in place of a string of a GGUF file."""
    size = struct.pack("<Q", len(old.encode()))
    replace_bytes(path, size + old.encode(), size + new.encode())


def test_llama_cpp_passes_and_others_are_said_to_have_none(bundle: Path) -> None:
    opened = open_bundle(bundle)
    texts = strings_of(opened.tokenizer, opened.probes())
    check = row(parity(opened, "gguf", quick=True, threads=1))
    assert check.passed and check.top1 == 1 and check.positions == len(texts) > 600
    assert any("<|im_start|>user" in text for text in texts)  # the probes' prompts
    assert not any("\0" in text for text in texts)
    for target in ("onnx", "executorch"):
        check = row(parity(opened, target, quick=True, threads=1))
        assert check.passed and not check.positions and "no tokenizer that can be asked" in check.note


def altered_merge(file: Path, model: Path) -> None:
    """The first merge of two letters makes nothing any more."""
    merges = json.loads((model / "tokenizer.json").read_text())["model"]["merges"]
    first = next(" ".join(pair) if isinstance(pair, list) else pair for pair in merges)
    put_string(file, first, first.split()[0] + " " + "~" * len(first.split()[1].encode()))


def altered_token(file: Path, model: Path) -> None:
    put_string(file, "<|im_start|>", "<|im_stxrt|>")


@pytest.mark.parametrize("alter", [altered_merge, altered_token])
def test_an_altered_tokenizer_fails_everywhere(
    bundle: Path, tiny: Any, tmp_path: Path, capsys: Any, alter: Any
) -> None:
    alter(bundle / "gguf/model.gguf", tiny("llama"))
    sign(bundle)
    options = ["-t", "gguf", "--quick", "--keep", str(tmp_path / "kept"), "--junit", str(tmp_path / "junit.xml")]
    assert run(["parity", str(bundle), *options, "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    (failed,) = (check for check in report["checks"] if not check["passed"])
    assert (failed["stage"], failed["exact"], failed["kl"]) == ("tokenizer", True, None) and failed["top1"] < 1
    assert ", token " in failed["at"] and failed["note"].startswith("llama.cpp: ")
    assert run(["judge", str(bundle), str(tmp_path / "kept/gguf.json")]) == 1  # from the file, later
    said = capsys.readouterr()
    assert f"tokenizer ({failed['at']})" in " ".join(said.out.split()) and "NaN" not in said.out
    assert failed["note"] in " ".join(said.err.split())
    (failure,) = ET.parse(tmp_path / "junit.xml").getroot().iter("failure")
    assert failure.get("type") == "tokenizer" and "texts are equal" in failure.get("message", "")
    opened = open_bundle(bundle)
    page = render(Results(opened.manifest, [parity(opened, "gguf", quick=True, threads=1)]))
    assert "FAIL" in page and f"{len(case_of(opened, 'gguf').strings):,} texts; " in page
    assert "NaN" not in page.replace("unavailable, NaN", "")  # which the legend explains


@pytest.mark.parametrize("note", [f"gguf: {CUTS}: some text", f"gguf: {LEAVES} behind a special token"])
def test_what_the_export_said_is_not_judged(bundle: Path, note: str) -> None:
    """A token that all strings with an é have: the note is of this target alone."""
    put_string(bundle / "gguf/model.gguf", "é", "ȁ")
    sign(bundle)
    assert not row(parity(open_bundle(bundle), "gguf", quick=True, threads=1)).passed
    for written, passes in ((note, True), (note.replace("gguf: ", "onnx: "), False)):
        opened = open_bundle(bundle)
        opened.manifest.quantization.notes[:] = [written]
        check = row(parity(opened, "gguf", quick=True, threads=1))
        assert check.passed == passes and check.top1 < 1
        assert not passes or "as the export said" in check.note


def test_a_runner_that_does_not_know_strings_is_not_asked(bundle: Path) -> None:
    """One of an older version: its traits have no such key, and what it is sent has none either."""
    opened = open_bundle(bundle)
    case = case_of(opened, "gguf")
    plan = case.plan("", 1, True)
    traits = in_child(plan, bundle / "gguf").traits
    assert traits.tokenizer == "llama.cpp"
    raw = json.loads(to_json(traits))
    del raw["tokenizer"]
    old = read_record(Traits, raw, "result")
    assert old.tokenizer is None and b"tokenizer" not in to_json(old)
    asked = case.asked(plan, old).plan
    assert asked.strings is None and b"strings" not in to_json(asked)
    result = in_child(asked, bundle / "gguf")
    assert result.strings is None and b'"strings"' not in to_json(result)
    result.traits = old
    report = judge_result(opened, [result])
    assert report.passed and "no tokenizer" in row(report).note


def test_answers_are_held_against_the_plan(bundle: Path) -> None:
    case = case_of(open_bundle(bundle), "gguf")
    plan = case.plan("", 1, True)
    plan = case.asked(plan, in_child(plan, bundle / "gguf").traits).plan
    result = in_child(plan, bundle / "gguf")
    assert read_record(Result, json.loads(to_json(result)), "result").strings
    assert result.strings
    for strings in (None, [], result.strings[1:]):
        with pytest.raises(InputError, match="the strings"):
            replace(result, strings=strings).answers(plan)
    with pytest.raises(InputError, match="the strings"):
        unasked = replace(plan, strings=None)
        replace(result, plan=unasked.digest).answers(unasked)
    for text in ('{"bare": [1.5]}', '{"bare": [4294967296]}', '{"text": 5}', '{"ids": []}', "[]"):
        with pytest.raises(InputError):
            read_record(Tokens, json.loads(text), "result")


def test_an_engine_without_a_tokenizer_refuses_strings(bundle: Path) -> None:
    with pytest.raises(InputError, match="this engine has no tokenizer"):
        in_child(
            Plan("parity", "onnx", "onnx", open_bundle(bundle).entry("onnx").info, 1, strings=("a",)), bundle / "onnx"
        )


@pytest.mark.parametrize(
    "strings",
    [(), ("a" * (LONGEST_STRING + 1),), ("",) * (MOST_STRINGS + 1), ("a" * LONGEST_STRING,) * 129, ("\ud83d",)],
)
def test_strings_have_limits(strings: tuple[str, ...]) -> None:
    assert LONGEST_STRING * 128 == ALL_STRINGS
    with pytest.raises(InputError, match="its strings"):
        Plan("parity", "t", "gguf", {}, 1, strings=strings)


def test_llama_cpp_s_texts_are_whole(bundle: Path) -> None:
    """Pieces of any length, and a space before punctuation, which llama_detokenize would leave out for some models."""
    tokenizer = GgufTokenizer(bundle / "gguf/model.gguf")
    for text in ("a , b . c 's n't", "é" * 500, "👍🏽 \r\n\t", "\0", ""):
        assert tokenizer.decode(tokenizer.encode(text, special=False)) == text
    assert tokenizer.decode(tokenizer.encode("<|im_start|>a<|im_end|>")) == "a"
