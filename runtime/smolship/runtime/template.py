"""Chat templates: from messages to the text that the model was trained on.

A template is a program out of an untrusted file. jinja's sandbox keeps it from reaching into Python, but stops
neither long loops nor gigabyte strings, so it runs in a process of its own (template_worker.py) with limits on memory,
time and output. The process stays for the next turn; one that fails is ended and the next rendering starts another.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import marshal
import os
import selectors
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from datetime import date as Date
from pathlib import Path
from typing import IO, Any

from smolship.runtime.errors import InputError, SetupError, show
from smolship.runtime.process import environment

Message = dict[str, Any]

TEMPLATE = "chat_template.jinja"  # in a bundle, and in a checkpoint
PROGRAM = "template.json"  # the same compiled for apps, in a bundle (export/portable.py)
WORKER = Path(__file__).with_name("template_worker.py")
MEMORY_BYTES = 512 << 20  # of address space; Python and jinja2 take some 50 MB of it
CPU_S = 2  # a rendering takes about a millisecond
CLOCK_S = 5.0  # for a process that waits for something, or for systems without the other limits
START_S = 30.0  # to start Python and import jinja2, on a busy board
OUTPUT_CHARS = 4 << 20  # more than any context holds
REASONING = ("reasoning_content", "thinking", "reasoning")  # keys that a message's reasoning may have; the first wins


class ChatTemplate:
    """A chat template with its special tokens (bos_token and so on). `date` (YYYY-MM-DD) pins what the template sees
    as today."""

    def __init__(self, source: str, special_tokens: dict[str, str] | None = None, date: str | None = None):
        if date is not None:
            try:
                Date.fromisoformat(date)
            except ValueError:
                raise InputError("not a date", got=date, expected="YYYY-MM-DD") from None
        self._start = {
            "source": source,
            "special_tokens": special_tokens or {},
            "date": date,
            "memory_bytes": MEMORY_BYTES,
            "cpu_s": CPU_S,
            "output_chars": OUTPUT_CHARS,
        }
        self._worker: _Worker | None = None

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True, **variables: Any) -> str:
        """The text of a conversation, as transformers' apply_chat_template gives it. `variables` are the template's
        own, such as enable_thinking=False.

        Raises InputError where the template fails, or takes too much memory or time.
        """
        given = {
            "messages": messages,
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        } | variables
        for name in ("messages", "tools", "documents"):
            _check_dicts(name, given[name])
        given["messages"] = [_message(message) for message in given["messages"] or ()]
        given["tools"] = None if given["tools"] is None else list(given["tools"])
        try:
            request = marshal.dumps(_plain(given))
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                "the conversation cannot be given to the template",
                got=error,
                expected="strings, numbers, lists and dicts",
            ) from None
        if self._worker is None:
            self._worker = _Worker(self._start)
        try:
            answer = self._worker.ask(request)
        except BaseException:  # Ctrl-C too: an answer that nobody read would be taken for the next one's
            self.close()
            raise
        if "error" in answer:
            self.close()
            raise InputError("the chat template cannot be rendered", got=answer["error"])
        return answer["text"]

    def close(self) -> None:
        """End the process. The template can still be used: it starts another."""
        if self._worker:
            self._worker.stop()
            self._worker = None


class _Worker:
    """One running template_worker.py."""

    def __init__(self, start: dict[str, Any]):
        # -I: nothing from the current folder or the environment. A session of its own: Ctrl-C is for us, not for it.
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(WORKER), *_folders("jinja2", "markupsafe")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,
                env=environment(),
            )
        except OSError as error:
            raise SetupError(
                "no process can be started to render the chat template",
                got=error,
                todo="end other programs, or raise the limit on processes",
            ) from None
        self.stop = weakref.finalize(self, _end, self._process)
        self._first = _line(marshal.dumps(start))
        self._buffer = bytearray()

    def ask(self, request: bytes) -> dict[str, str]:
        """Send one line, read one. A worker that ends or overstays is an answer with an "error"."""
        first, self._first = self._first, b""
        pipe: IO[bytes] | None = self._process.stdin
        assert pipe
        try:
            for data in (memoryview(first), memoryview(_line(request))):
                while data:  # an unbuffered pipe may take less than all
                    data = data[pipe.write(data) :]
        except BrokenPipeError:
            return self._ended()
        return self._answer(CLOCK_S + (START_S if first else 0))

    def _answer(self, seconds: float) -> dict[str, str]:
        pipe = self._process.stdout
        assert pipe
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, end - time.monotonic())):
                    return {"error": f"it takes longer than {seconds:.0f} s"}
                data = os.read(pipe.fileno(), 1 << 16)
                if not data:
                    return self._ended()
                self._buffer += data
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        answer: dict[str, str] = json.loads(line)
        return answer

    def _ended(self) -> dict[str, str]:
        status = self._process.wait()
        if status == -signal.SIGXCPU:
            return {"error": f"it takes longer than {CPU_S} s"}
        return {"error": f"it takes more than {MEMORY_BYTES >> 20} MiB of memory, or breaks Python (status {status})"}


def _line(marshalled: bytes) -> bytes:
    return base64.b64encode(marshalled) + b"\n"


def _folders(*packages: str) -> list[str]:
    """Where packages are imported from, without importing them here."""
    found = []
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise SetupError(f"{package} cannot be imported", todo=f"pip install {package}")
        found.append(str(Path(spec.origin).parent.parent))
    return list(dict.fromkeys(found))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def _check_dicts(name: str, items: Any) -> None:
    if items is not None and not (isinstance(items, Sequence) and all(isinstance(item, Mapping) for item in items)):
        raise InputError(f"{name} cannot be given to the template", got=show(items), expected="a list of dicts")


def _message(message: Message) -> Message:
    """As transformers hands it to a template: without keys whose value is None (templates would write "None"), and with
    the reasoning under both names that templates read."""
    said = {key: value for key, value in message.items() if value is not None}
    reasoning = next((said[key] for key in REASONING if key in said), None)
    return said if reasoning is None else {"thinking": reasoning, **said, "reasoning_content": reasoning}


def _plain(value: Any) -> Any:
    """`value` in plain types, as a template may see it: what derives from one becomes one."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return getattr(kind, f"__{kind.__name__}__")(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(_plain(item) for item in value)
    raise TypeError(f"a {type(value).__name__} is no plain data")
