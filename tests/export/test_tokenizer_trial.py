"""A tokenizer is tried before the work: what would end the probes, or the process, is a problem in a line."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolship.export import export, pipeline, tokenizer_trial
from smolship.export.tokenizer_trial import tokenizer_problems
from smolship.export.windows import make_windows
from smolship.runtime.errors import InputError
from smolship.runtime.parity import parity
from smolship.runtime.tokenizer import Tokenizer
from tests.conftest import make_tokenizer, with_bos
from tests.runtime.test_tokenizer_limits import BPE, split, tokenizer

LETTERS = tokenizer(model=BPE | {"vocab": {chr(c): c - 32 for c in range(32, 127)} | {"\n": 95}})  # no others: ASCII
OWN = "x y. " * 100


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder, 300)
    return (folder / "tokenizer.json").read_bytes()


def test_an_ordinary_tokenizer_has_no_problems(good: bytes) -> None:
    assert tokenizer_problems(good, 300, context=128, tokens=512) == []
    assert tokenizer_problems(good, 300) == []


def test_a_tokenizer_that_lacks_characters_has_none_either() -> None:
    """What it cannot say is left out, or refused for that prompt alone, in transformers too."""
    assert tokenizer_problems(LETTERS, 96, tokens=64, context=64) == []


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (tokenizer(pre_tokenizer=split(r"([a-z]+\s?)+;;")), "cannot encode the text: Onig.*retry-limit"),
        (tokenizer(pre_tokenizer=split(r"(1+1*)+$")), "cannot encode the text: Onig.*retry-limit"),
        (tokenizer(model={"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "?"}), "Missing .UNK. token"),
        (tokenizer(model=BPE | {"vocab": {"e": 7, "t": 4_000_000_000}}), "gives token 4,000,000,000 for english"),
        (b"\xef\xbb\xbf" + tokenizer(), "cannot be read: "),
    ],
    ids=["ordinary text", "a long run", "no token for a word", "an id beyond the model", "a byte order mark"],
)
def test_a_problem_is_one_line(raw: bytes, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    (found,) = tokenizer_problems(raw, 300)
    assert "\n" not in found
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found)
    assert capfd.readouterr().err == ""


def test_a_text_that_grows_beyond_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_trial, "MEMORY_BYTES", 1 << 30)
    grows = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 200}
    bomb = tokenizer(normalizer={"type": "Sequence", "normalizers": [grows] * 4})
    (found,) = tokenizer_problems(bomb, 300, text="eel")
    assert "more than 1 GiB of memory" in found


def test_a_tokenizer_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_trial, "CPU_S", 1)
    start = time.monotonic()
    slow = tokenizer(pre_tokenizer=split(r"[xy .]+$"))  # each start looks at all the rest
    assert tokenizer_problems(slow, 300, text=OWN * 80 + "!") == [
        "the tokenizer takes longer than 1 s to encode a few texts"
    ]
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("text", ["", "   ", "x y"])
def test_a_text_that_is_too_short_is_found_before_the_work(good: bytes, text: str) -> None:
    (found,) = tokenizer_problems(good, 300, context=64, tokens=64, text=text)
    assert "too short to probe with" in found
    assert "a longer --probe-text" in found


def test_an_empty_text_is_not_the_default(good: bytes) -> None:
    with pytest.raises(InputError, match="0 tokens of text"):
        make_windows(Tokenizer(good), 64, 8, "")


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 7, 1025])
def test_every_window_can_be_divided(good: bytes, tokens: int) -> None:
    windows = make_windows(Tokenizer(good), 512, tokens)
    assert sum(len(window.ids) for window in windows) >= tokens
    assert min(len(window.ids) for window in windows) >= 2


def test_the_smallest_context(good: bytes, tmp_path: Path) -> None:
    assert [len(window.ids) for window in make_windows(Tokenizer(good), 2, 3)] == [2, 2]


def test_every_window_begins_as_texts_do(good: bytes) -> None:
    bare, begun = (make_windows(t, 64, 256) for t in (Tokenizer(good), with_bos(good)))
    assert [window.ids[0] for window in begun] == [1] * 4 and 1 not in [window.ids[0] for window in bare]
    assert [len(window.ids) for window in begun] == [64] * 4
    for i in range(2):  # of each text a second window goes on where the first ended
        text = np.concatenate([bare[i].ids, bare[i + 2].ids])
        assert np.concatenate([begun[i].ids[1:], begun[i + 2].ids[1:]]).tolist() == text[:126].tolist()


@pytest.fixture
def nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the check may run."""
    inner = pipeline.run_step

    def step(name: str, *rest: Any) -> Any:
        assert name == "check", f"{name} was begun"
        return inner(name, *rest)

    monkeypatch.setattr(pipeline, "run_step", step)


@pytest.mark.parametrize("probes", [0, 64])
def test_an_export_asks_before_the_work(tiny: Any, tmp_path: Path, nothing_begins: None, probes: int) -> None:
    model = shutil.copytree(tiny("llama"), tmp_path / "model")
    raw = json.loads((model / "tokenizer.json").read_text())
    raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split(r"(\w+\s*)+=="), raw["pre_tokenizer"]]}
    (model / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="cannot encode the text: Onig"):
        export(model, tmp_path / "out", to=["gguf"], context=64, probe_tokens=probes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "too short"])
def test_an_export_with_too_little_text_ends_before_the_work(
    tiny: Any, tmp_path: Path, nothing_begins: None, text: str
) -> None:
    with pytest.raises(InputError, match="too short to probe with"):
        export(tiny("llama"), tmp_path / "out", to=["gguf"], context=64, probe_tokens=64, probe_text=text)


def test_a_text_for_no_probes_is_refused(tiny: Any, tmp_path: Path, nothing_begins: None) -> None:
    with pytest.raises(InputError, match="no probes"):
        export(tiny("llama"), tmp_path / "out", to=["gguf"], probe_tokens=0, probe_text="a b c")


@pytest.mark.parametrize("tokens", [1, *(pytest.param(n, marks=pytest.mark.real) for n in (2, 3))])
def test_few_probe_tokens_work_to_the_end(tiny: Any, tmp_path: Path, tokens: int) -> None:
    bundle = export(tiny("llama"), tmp_path / "out", to=["onnx"], context=16, probe_tokens=tokens)
    assert parity(bundle, "onnx", threads=1).passed
