"""The system prompt and the thinking switch: what `generate` and `chat` feed the model, and what they refuse."""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path

import pytest

from smolship.runtime.bundle import open_bundle
from smolship.runtime.template import ChatTemplate
from smolship.tools.cli import run
from tests.tools.test_chat_endings import typed

VECTORS = Path(__file__).parents[1] / "vectors" / "templates.json.xz"
SYSTEM = "{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}"
# As Gemma 2's, Mistral's first, and Qwen3's.
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + SYSTEM
LEAVES_OUT = "{% for m in messages if m.role != 'system' %}[{{ m.content }}]{% endfor %}"
SWITCH = SYSTEM + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n{% endif %}"
BREAKS_SECOND = "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}" + SYSTEM
GENERATE, CHAT = ["generate", "b", "Who?", "-t", "onnx", "--max-tokens", "2"], ["chat", "b", "-t", "onnx"]


@pytest.fixture(scope="module")
def smollm3() -> str:
    every = json.loads(lzma.decompress(VECTORS.read_bytes()))
    return next(one["template"] for one in every if one["name"].startswith("model/smollm3/"))


@pytest.fixture
def bundle(tiny_bundle, tmp_path, monkeypatch):
    """bundle(template) -> the bundle "b" in the working folder, with that template, or none."""
    monkeypatch.chdir(tmp_path)

    def make(template):
        folder = shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "b", dirs_exist_ok=True)
        if template is None:
            raw = json.loads((folder / "manifest.json").read_text())
            raw["generation"]["template"] = None
            (folder / "manifest.json").write_text(json.dumps(raw))
        else:
            (folder / "chat_template.jinja").write_text(template)
        return open_bundle(folder)

    return make


@pytest.fixture
def rendered(monkeypatch):
    """What the template made of each conversation."""
    found: list[str] = []
    real = ChatTemplate.render

    def render(self, *args, **kwargs):
        found.append(real(self, *args, **kwargs))
        return found[-1]

    monkeypatch.setattr(ChatTemplate, "render", render)
    return found


def refused(capsys, *line):
    assert run(list(line)) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "Traceback" not in printed.err
    return printed.err


def test_the_system_prompt_comes_first(bundle, rendered, capsys):
    tokenizer = bundle(SYSTEM).tokenizer
    assert run([*GENERATE, "--system", "Rhyme.", "--json"]) == 0
    assert rendered[-1] == "[system: Rhyme.][user: Who?]"
    said = json.loads(capsys.readouterr().out)
    assert said["prompt_tokens"] == len(tokenizer.encode(rendered[-1], special=False))
    assert run(GENERATE) == 0 and rendered[-1] == "[user: Who?]"
    assert run([*GENERATE, "--system", ""]) == 0 and rendered[-1].startswith("[system: ]")


def test_chat_says_it_each_turn(bundle, rendered, monkeypatch):
    bundle(SWITCH)
    typed(monkeypatch, "one", "two")
    assert run([*CHAT, "--system", "Rhyme.", "--no-think", "--max-tokens", "2"]) == 0
    assert rendered[-2] == "[system: Rhyme.][user: one]<think>\n\n</think>\n"
    assert rendered[-1].startswith("[system: Rhyme.][user: one][assistant: ") and rendered[-1].endswith("</think>\n")


@pytest.mark.parametrize("start", [GENERATE, CHAT], ids=["generate", "chat"])
def test_a_template_that_takes_no_system_prompt(bundle, start, capsys):
    bundle(REFUSES)
    said = refused(capsys, *start, "--system", "Rhyme.")
    assert "refuses a system prompt" in said and "System role not supported" in said and "leave out --system" in said
    bundle(LEAVES_OUT)
    assert "leaves out the system prompt" in refused(capsys, *start, "--system", "Rhyme.")


@pytest.mark.parametrize("start", [GENERATE, CHAT], ids=["generate", "chat"])
def test_a_model_without_a_template(bundle, start, capsys):
    bundle(None)
    for options in (["--system", "x"], ["--no-think"], ["--system", "x", "--no-think"]):
        said = refused(capsys, *start, *options)
        assert "no chat template" in said and all(o in said for o in options if o.startswith("--")) and "--raw" in said
    assert "no chat template" in refused(capsys, *start)
    if start is GENERATE:
        assert run([*start, "--raw"]) == 0


def test_raw_text_has_neither(bundle, capsys):
    bundle(SWITCH)
    for options in (["--system", ""], ["--no-think"]):
        said = refused(capsys, *GENERATE, "--raw", *options)
        assert options[0] in said and "leave out one of the two" in said


@pytest.mark.parametrize("start", [GENERATE, CHAT], ids=["generate", "chat"])
def test_a_template_without_the_switch(bundle, start, capsys):
    bundle(SYSTEM)
    said = refused(capsys, *start, "--no-think")
    assert "no thinking switch" in said and "enable_thinking" in said and "leave out --no-think" in said
    bundle(SYSTEM + "{# enable_thinking #}{% set enable_thinking = true %}")  # it is named, and changes nothing
    assert "no thinking switch" in refused(capsys, *start, "--no-think")


def test_the_switch_of_smollm3(bundle, smollm3, rendered, capsys):
    bundle(smollm3)
    assert run([*GENERATE, "--no-think"]) == 0
    assert "/no_think" in rendered[-1] and rendered[-1].endswith("<|im_start|>assistant\n<think>\n\n</think>\n")
    assert run([*GENERATE, "--no-think", "--system", "Rhyme."]) == 0
    assert "/no_think" in rendered[-1] and "Rhyme." in rendered[-1]
    assert run(GENERATE) == 0 and "Mode: /think" in rendered[-1] and not rendered[-1].endswith("</think>\n")
    capsys.readouterr()
    assert "the system prompt decides" in refused(capsys, *GENERATE, "--no-think", "--system", "Rhyme. /think")
    assert run([*GENERATE, "--system", "Rhyme. /no_think"]) == 0 and "Mode: /no_think" in rendered[-1]


def test_nothing_is_tried_where_nothing_is_asked(bundle, rendered):
    bundle(BREAKS_SECOND)
    assert run(GENERATE) == 0 and len(rendered) == 1


def test_it_is_refused_before_the_model_is_opened(bundle, monkeypatch, capsys):
    bundle(SYSTEM)
    monkeypatch.setattr("smolship.runtime.bundle.Bundle.session", lambda *a, **k: pytest.fail("the model was opened"))
    for start in (GENERATE, CHAT):
        for options in (["--no-think"], ["--top-p", "0"], ["--temperature", "-1"]):
            refused(capsys, *start, *options)


def test_no_text_at_all(bundle, capsys):
    bundle(SYSTEM)
    assert "no text to continue" in refused(capsys, "generate", "b", "", "--raw", "-t", "onnx")
    assert run(["generate", "b", "", "-t", "onnx", "--max-tokens", "1"]) == 0  # a question may be empty
