"""Which chat template a checkpoint has, as transformers finds it, and what it does with a plain conversation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smolship.runtime.errors import InputError, clip, show
from smolship.runtime.files import read_bytes
from smolship.runtime.template import TEMPLATE, ChatTemplate

FOLDER = "additional_chat_templates"  # of named templates, FOLDER/NAME.jinja
DATE = "2026-01-01"  # templates that print today's date see this one
QUESTION = "What is smolship?"
ANSWER = "smolshipanswers"  # one word, which no template has a reason to change
NEVER_COMPILED = ("TemplateSyntaxError", "TemplateAssertionError")  # the kinds of jinja's that mean so


@dataclass(frozen=True)
class Found:
    """A checkpoint's chat template: its source and where it comes from, or None; what is said of it."""

    source: str | None = None
    origin: str | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_template(files: dict[str, bytes], config: dict[str, Any], folder: Path | None = None) -> Found:
    """The template among a model's `files`, its tokenizer_config.json being `config`; named ones may lie in `folder`.

    In transformers' order: files of their own take the place of what tokenizer_config.json holds, and of several
    templates the one named "default" is taken. Without one, which to take would be a guess: the model has none.
    """
    try:
        texts = {}
        if TEMPLATE in files:
            texts["default"] = (_text(files[TEMPLATE], TEMPLATE), TEMPLATE)
        for path in sorted((folder / FOLDER).glob("*.jinja")) if folder else ():
            name = f"{FOLDER}/{path.name}"
            texts[path.stem] = (_text(read_bytes(path, name), name), name)
        texts = texts or _inside(config.get("chat_template"))
    except InputError as error:
        return Found(problems=[one_line(error)])
    if not texts:
        return Found()
    if "default" not in texts:
        names = clip(", ".join(sorted(texts)), 200)
        return Found(
            notes=[
                f"no chat template: of those named {names} none is the default, and which to take would be "
                f"a guess; save the right one as {TEMPLATE}"
            ]
        )
    source, origin = texts["default"]
    if not source.strip():
        return Found(notes=[f"no chat template: {origin} is empty"])
    return Found(source, origin)


def one_line(error: InputError) -> str:
    """What, got and expected of a refusal, for a list of several."""
    return clip("; ".join(" ".join(part.split()) for part in str(error).splitlines()))


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8", got=error, expected="UTF-8 text") from None


def _inside(value: Any) -> dict[str, tuple[str, str]]:
    """tokenizer_config.json's own templates: one, or several by name, as a list or an object."""
    where = "tokenizer_config.json"
    if value is None:
        return {}
    if isinstance(value, str):
        value = {"default": value}
    try:
        named = value if isinstance(value, dict) else {entry["name"]: entry["template"] for entry in value}
    except (TypeError, KeyError):
        named = {"": None}
    if not all(isinstance(name, str) and isinstance(text, str) for name, text in named.items()):
        raise InputError(
            f"chat_template of {where} cannot be used",
            got=show(value),
            expected='a template, or several as {"name": …, "template": …}',
        )
    sources = {name: _text(text.encode("utf-8", "surrogatepass"), "chat_template") for name, text in named.items()}
    return {name: (source, where) for name, source in sources.items()}


def try_template(found: Found, special: dict[str, str], added: list[str]) -> tuple[Found, str | None]:
    """`found` after a trial, and the added token that ends an assistant's turn, where there is one.

    A template that cannot be compiled is a problem. One that renders nothing is none. One that refuses a plain question
    (it wants tools, or a system prompt) stays, with a note.
    """
    if found.source is None:
        return found, None
    template = ChatTemplate(found.source, special, DATE)
    question = {"role": "user", "content": QUESTION}
    try:
        prompt = template.render([question])
        if not prompt.strip():
            return Found(notes=[f"no chat template: {found.origin} renders nothing"]), None
        try:
            whole = template.render([question, {"role": "assistant", "content": ANSWER}], add_generation_prompt=False)
        except InputError:
            return found, None
    except InputError as error:
        why = str(error).partition("got:")[2].strip()
        if why.startswith(NEVER_COMPILED):
            return Found(
                problems=[
                    f"the chat template in {found.origin} is not valid: {why}; correct it, or delete it "
                    "and use the model without a template"
                ]
            ), None
        note = f"the chat template ({found.origin}) cannot be rendered for a plain question: {why}"
        return Found(found.source, found.origin, [note]), None
    finally:
        template.close()
    _, answer, rest = whole.rpartition(ANSWER)
    ends = [token for token in added if answer and rest.lstrip().startswith(token)]
    return found, max(ends, key=len, default=None)
