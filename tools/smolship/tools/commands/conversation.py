"""How `generate` and `chat` begin: the system prompt and the thinking switch, each tried on the template first."""

from __future__ import annotations

from typing import Any

from smolship.runtime.bundle import Bundle
from smolship.runtime.errors import InputError
from smolship.runtime.template import ChatTemplate, Message
from smolship.tools.console import argument_text

SWITCH = "enable_thinking"  # as SmolLM3's template and Qwen3's name it
QUESTION: Message = {"role": "user", "content": "Hello"}


def opening(bundle: Bundle, system: str | None, no_think: bool) -> tuple[list[Message], dict[str, Any]]:
    """The messages that come first, and the template's variables. Raises InputError where the template would not heed
    an option."""
    asked = [name for name, given in (("--system", system is not None), ("--no-think", no_think)) if given]
    if asked and bundle.manifest.generation.template is None:
        raise InputError(
            f"{' and '.join(asked)} cannot be heeded: the model has no chat template",
            got=bundle.path,
            todo=f"leave out {' and '.join(asked)}, and use `smolship generate --raw`",
        )
    messages: list[Message] = []
    if system is not None:
        messages = [{"role": "system", "content": argument_text(system, "the system prompt")}]
        _try_system(bundle.template, messages)
    if no_think:
        _try_switch(bundle.template, messages)
    return messages, {SWITCH: False} if no_think else {}


def _try_system(template: ChatTemplate, messages: list[Message]) -> None:
    without = template.render([QUESTION])
    try:
        rendered = template.render([{"role": "system", "content": "Be brief."}, QUESTION])
    except InputError as error:
        raise InputError(
            "the chat template refuses a system prompt",
            got=error.parts()["got"],
            todo="leave out --system, and say it in the prompt",
        ) from None
    if rendered == without:
        raise InputError(
            "the chat template leaves out the system prompt",
            got=messages[0]["content"],
            todo="leave out --system, and say it in the prompt",
        )


def _try_switch(template: ChatTemplate, messages: list[Message]) -> None:
    def heeded(start: list[Message]) -> bool:
        on, off = (template.render([*start, QUESTION], **{SWITCH: value}) for value in (True, False))
        return on != off

    if not heeded([]):
        raise InputError(
            "the model's chat template has no thinking switch",
            got="--no-think",
            expected=f"a template that reads {SWITCH}, as SmolLM3's does",
            todo="leave out --no-think",
        )
    if not heeded(messages):
        raise InputError(
            "the system prompt decides about thinking, and --no-think changes nothing",
            got=messages[0]["content"],
            todo="leave out --no-think, or /think and /no_think in the system prompt",
        )
