"""Sessions and templates that need no model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from smolship.runtime.session import Session


class FakeSession(Session):
    """Logits that depend on every token in the cache, so that a wrong cache gives another answer.

    content  what the cache holds; beyond `position` stale, as in an engine
    fed      how many tokens were run
    """

    def __init__(
        self,
        vocab: int = 300,
        capacity: int = 512,
        stop: int | None = None,
        chunk: int | None = None,
        on_run: Callable[[int, int], None] = lambda tokens, position: None,
    ):
        super().__init__(vocab, capacity)
        self.content, self.fed, self.stop, self.chunk, self.on_run = [0] * capacity, 0, stop, chunk, on_run

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        self.on_run(len(ids), position)
        self.content[position : position + len(ids)] = ids.tolist()
        self.fed += len(ids)
        return self._logits(self.content[: position + len(ids)])

    def _logits(self, content: list[int]) -> np.ndarray:
        logits = np.random.default_rng(content).standard_normal(self.vocab, np.float32)
        if self.stop is not None:
            logits[self.stop] += 1.5  # some ten tokens an answer
        return logits

    def close(self) -> None:
        pass

    @property
    def held(self) -> list[int]:
        return self.content[: self.position]


class ScriptedSession(FakeSession):
    """Answers the n-th prompt with the n-th script."""

    def __init__(self, scripts: list[list[int]], **sizes: int):
        super().__init__(**sizes)
        self.scripts, self.turn, self.at = scripts, -1, 0

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        self.turn, self.at = (self.turn + 1, 0) if len(ids) > 1 else (self.turn, self.at + 1)
        super()._run(ids, position)
        logits = np.zeros(self.vocab, np.float32)
        logits[self.scripts[self.turn][self.at]] = 1.0
        return logits


SMOLLM2 = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

# What SmolLM3's template does, in its own words: modes, flags in the system prompt, the date, earlier thinking dropped.
THINKING = """{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}
{%- set ns = namespace(mode="/think" if enable_thinking else "/no_think", last=-1) -%}
{%- set system = messages[0].content if messages[0].role == "system" else "" -%}
{%- if "/no_think" in system -%}{%- set ns.mode = "/no_think" -%}
{%- elif "/think" in system -%}{%- set ns.mode = "/think" -%}{%- endif -%}
{%- set system = system.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- for m in messages -%}{%- if m.role == "user" -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
<|im_start|>system
{% if "/system_override" in system %}{{ system.replace("/system_override", "").rstrip() }}
{%- else %}Today Date: {{ strftime_now("%d %B %Y") }}
Reasoning Mode: {{ ns.mode }}
{% if tools %}Tools:
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}
{{ system or "You are a helpful assistant." }}
{%- endif %}<|im_end|>
{% for m in messages -%}
    {%- if loop.first and m.role == "system" %}{% continue %}{% endif -%}
    {%- set content = m.content if m.content is string else "" -%}
    {%- if m.role == "user" -%}
<|im_start|>user
{{ content }}<|im_end|>
{% elif m.role == "assistant" -%}
    {%- generation -%}
        {%- if loop.index0 < ns.last and "</think>" in content -%}
            {%- set content = content.split("</think>")[-1].lstrip("\\n") -%}
        {%- endif -%}
<|im_start|>assistant
{{ content }}<|im_end|>
{% endgeneration -%}
    {%- else -%}{{ raise_exception("unknown role " + m.role) }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% if ns.mode == "/no_think" %}<think>

</think>
{% endif %}{% endif %}"""
