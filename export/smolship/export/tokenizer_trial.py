"""A trial of a tokenizer before the work: can it encode and decode the texts that the export needs, and does it survive
others? In a process of its own with limits, since a pattern in its file can hang its library, break it, or make it fill
the memory.

The process reads a JSON object and, after the first line break, tokenizer.json; its answer is a JSON list of problems.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from smolship.export.windows import make_windows, texts
from smolship.runtime.errors import InputError
from smolship.runtime.process import environment, python
from smolship.runtime.tokenizer import Tokenizer

CPU_S = 30  # ordinary tokenizers take less than a second
CHARS_PER_S = 50_000  # and more time for a long text of the user's own; they do 20 times as many
CLOCK_FACTOR = 10  # for systems without the other limit, and for busy ones
MEMORY_BYTES = 4 << 30  # of address space; the largest take 1 GiB
ALONE = {"OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}  # each thread would reserve some of that
RUN = 2000
# Long runs, of which patterns that nest a repetition in a repetition try every division; and characters of all kinds.
STRINGS = [
    "",
    *(character * RUN for character in " a1-\n\té漢👍\0"),
    "ab" * RUN,
    "a " * RUN,
    "a" * RUN + "!",
    " " * RUN + "x",
    "1" * RUN + "x",
    "\r\n" * RUN,
    "a'b\"c\\d" * 50,
    "".join(map(chr, range(1, 0x3000, 7))),
    "e\u0301\u202e\U0010ffff\ufffd",
]


def tokenizer_problems(
    tokenizer_json: bytes, vocab: int, *, context: int = 2, tokens: int = 0, text: str | None = None
) -> list[str]:
    """Why a model of `vocab` tokens cannot be exported with this tokenizer; nothing where it can be.

    `tokens` positions of `text` are what the probes are going to take, as `make_windows` has them.
    """
    seconds = CPU_S + len(text or "") // CHARS_PER_S
    request = {"vocab": vocab, "context": context, "tokens": tokens, "text": text}
    try:
        done = subprocess.run(
            python("smolship.export.tokenizer_trial", str(seconds), str(MEMORY_BYTES)),
            input=json.dumps(request).encode() + b"\n" + tokenizer_json,
            capture_output=True,
            timeout=seconds * CLOCK_FACTOR,
            env=environment() | ALONE,
        )
    except subprocess.TimeoutExpired:
        return [f"the tokenizer takes longer than {seconds * CLOCK_FACTOR} s to encode a few texts"]
    if done.returncode == -signal.SIGXCPU:
        return [f"the tokenizer takes longer than {seconds} s to encode a few texts"]
    try:
        found: list[str] = json.loads(done.stdout)
    except ValueError:
        return [
            f"the tokenizer breaks its library, or takes more than {MEMORY_BYTES >> 30} GiB of memory "
            f"(exit status {done.returncode})"
        ]
    return found


def trial(tokenizer_json: bytes, vocab: int, context: int, tokens: int, text: str | None) -> Iterator[str]:
    """The problems, as they are found; those of the texts that are needed first."""
    try:
        tokenizer = Tokenizer(tokenizer_json)
        for kind, source in texts(text):
            ids = tokenizer.encode(source)
            tokenizer.decode(ids)
            if ids and max(ids) >= vocab:
                yield f"the tokenizer gives token {max(ids):,} for {kind}, where the model has {vocab:,} of them"
                return
        make_windows(tokenizer, context, tokens, text)
    except InputError as error:
        yield _line(error)
        return
    for string in STRINGS:
        try:
            tokenizer.decode(tokenizer.encode(string))
        except InputError as error:
            # What it refuses (a character that it has no token for), it refuses for transformers too, and that prompt
            # alone. What breaks the library is no Exception.
            if not isinstance(error.__context__, Exception):
                yield _line(error)
                return


def _line(error: InputError) -> str:
    """What, got and to do of an error, for a list of them."""
    what, *rest = str(error).splitlines()
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in rest)}
    return f"{what}: {said['got']}" + (f" (to do: {said['to do']})" if "to do" in said else "")


def _limit(kind: int, value: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS does not limit the address space: there the clock must do
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def main() -> None:
    _limit(resource.RLIMIT_CPU, int(sys.argv[1]))
    _limit(resource.RLIMIT_AS, int(sys.argv[2]))
    _limit(resource.RLIMIT_CORE, 0)
    head, _, tokenizer_json = sys.stdin.buffer.read().partition(b"\n")
    request: dict[str, Any] = json.loads(head)
    print(json.dumps(list(trial(tokenizer_json, **request))))


if __name__ == "__main__":
    main()
