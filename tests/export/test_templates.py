"""Which chat template a checkpoint has, as transformers finds it, and what is said of one that does not work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from smolship.export.checkpoints import open_checkpoint
from smolship.export.facts import Resolved, resolve

GOOD = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
OTHER = "{% for m in messages %}({{ m.content }}){% endfor %}"
FILE, FOLDER = "chat_template.jinja", "additional_chat_templates"


@pytest.fixture
def model(tiny, tmp_path) -> Path:
    folder = Path(shutil.copytree(tiny("llama"), tmp_path / "model"))
    (folder / FILE).unlink()
    return folder


def write(model: Path, files: dict[str, Any]) -> None:
    """Files by name; `config` is the chat_template of tokenizer_config.json."""
    for name, content in files.items():
        if name == "config":
            raw = json.loads((model / "tokenizer_config.json").read_text()) | {"chat_template": content}
            (model / "tokenizer_config.json").write_text(json.dumps(raw))
        else:
            (model / name).parent.mkdir(exist_ok=True)
            (model / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def read(model: Path, files: dict[str, Any]) -> Resolved:
    write(model, files)
    return resolve(open_checkpoint(str(model)))


def named(**templates: str) -> list[dict[str, str]]:
    return [{"name": name, "template": template} for name, template in templates.items()]


PLACES: list[tuple[dict[str, Any], str | None]] = [
    ({"config": OTHER}, "tokenizer_config.json"),
    ({FILE: OTHER, "config": GOOD}, FILE),
    ({"config": named(tool_use=GOOD, default=OTHER)}, "tokenizer_config.json"),
    ({"config": named(default=GOOD) + named(default=OTHER)}, "tokenizer_config.json"),
    ({"config": {"default": OTHER, "rag": GOOD}}, "tokenizer_config.json"),
    ({"config": named(tool_use=GOOD)}, None),
    ({"config": named(a=GOOD, b=OTHER)}, None),
    ({"config": []}, None),
    ({f"{FOLDER}/rag.jinja": GOOD, "config": OTHER}, None),  # files take the place of the config's
    ({f"{FOLDER}/rag.jinja": GOOD, FILE: OTHER}, FILE),
    ({f"{FOLDER}/default.jinja": OTHER, FILE: GOOD}, f"{FOLDER}/default.jinja"),
    ({"chat_template.json": json.dumps({"chat_template": OTHER})}, None),  # for processors, not tokenizers
    ({}, None),
]


@pytest.mark.parametrize(("files", "origin"), PLACES, ids=lambda value: None)
def test_transformers_finds_the_same(model, files, origin):
    from transformers import AutoTokenizer

    found = read(model, files)
    talk = [{"role": "user", "content": "hi"}]
    try:
        theirs = AutoTokenizer.from_pretrained(model).apply_chat_template(talk, tokenize=False)
    except (ValueError, IndexError):  # no template, or none that is the default
        theirs = None
    template = found.chat_template()
    assert (template and template.render(talk)) == theirs == (None if origin is None else "(hi)")
    assert found.facts.template == origin and found.problems == []


def test_names_without_a_default_are_listed(model):
    (note,) = read(model, {"config": named(tool_use=GOOD, rag=OTHER)}).notes
    assert "rag, tool_use" in note and "guess" in note and FILE in note


@pytest.mark.parametrize("source", ["", " \n\t\n", "{# nothing #}", "{% if tools %}{{ tools }}{% endif %}\n"])
def test_a_template_that_renders_nothing_is_none(model, source):
    found = read(model, {FILE: source})
    assert found.template is None and found.facts.template is None and found.problems == []
    assert [note for note in found.notes if note.startswith(f"no chat template: {FILE}")]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("{% for m in messages %}\n{{ m.content }", 2),
        ("{{ 1 +", 1),
        ("a\nb\n{{ messages | shout }}", 3),
        ("{% endfor %}", 1),
        ("{% frobnicate %}", 1),
    ],
)
def test_a_template_that_cannot_be_compiled_is_refused(model, source, line):
    (problem,) = read(model, {FILE: source}).problems
    assert FILE in problem and f"line {line} of the template" in problem and "delete" in problem


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('tools, please') }}",
        "{% if messages[0].role != 'system' %}{{ raise_exception('a system prompt first') }}{% endif %}" + GOOD,
        "{{ tools[0].name }}",
        "{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}",
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_a_template_that_refuses_a_plain_question_stays_with_a_note(model, source):
    found = read(model, {FILE: source})
    assert found.template == source and found.problems == []
    assert [note for note in found.notes if f"({FILE}) cannot be rendered for a plain question: " in note]


@pytest.mark.parametrize(
    "files",
    [
        {FILE: b"caf\xe9 {{ messages }}"},
        {f"{FOLDER}/x.jinja": b"\xff"},
        {"config": 5},
        {"config": ["a"]},
        {"config": [{"name": "default"}]},
        {"config": {"default": 3}},
        {"config": "\ud800"},
        {"config": [{"name": [], "template": ""}]},
    ],
)
def test_what_is_no_template_is_refused(model, files):
    found = read(model, files)
    assert len(found.problems) == 1 and "template" in found.problems[0] and found.template is None


IM = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"


@pytest.mark.parametrize(
    ("source", "end"),
    [
        (IM + "<|im_end|>\n{% endfor %}", 2),
        (IM + " {{ eos_token }}{% endfor %}", 2),
        (IM + "</s>{% endfor %}", None),  # text, not a token of this model
        (IM + "{% endfor %}{% if not add_generation_prompt %}\n<pad>{% endif %}", 0),
        (IM + " and <|im_end|>{% endfor %}", None),
        (IM + "{% endfor %}", None),
        ("{{ messages[0].content }}", None),  # no assistant's words
        (IM.replace("m.content", "m.content | upper") + "<|im_end|>{% endfor %}", None),
        ("{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}" + IM + "{% endfor %}", None),
    ],
)
def test_the_token_that_ends_a_turn(model, source, end):
    found = read(model, {FILE: source})
    assert found.problems == []
    assert [e.id for e in found.facts.ends if "chat template" in e.origins] == ([] if end is None else [end])
