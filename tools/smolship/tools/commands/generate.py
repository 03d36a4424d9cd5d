"""`smolship generate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer

from smolship.runtime.bundle import Bundle, open_bundle
from smolship.runtime.errors import InputError
from smolship.runtime.generate import Generated
from smolship.runtime.generate import generate as generate_ids
from smolship.tools.commands import options
from smolship.tools.console import argument_text, read_stdin


def generate(
    folder: options.BundleDir,
    prompt: Annotated[str, typer.Argument(help="What to say; `-` reads it from standard input.")],
    target: options.Target = None,
    system: options.System = None,
    no_think: options.NoThink = False,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text as it is, without the chat template.")] = False,
    max_tokens: options.MaxTokens = 256,
    threads: options.Threads = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
    device: options.Device = "local",
    limit: options.Limit = None,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Answer one prompt, streaming; then say why the answer ended.

    Examples:

    smolship generate smollm2 "What is the capital of France?" --target onnx
    smolship generate smollm2 "def fibonacci(n):" --raw --temperature 0.7 --seed 1
    smolship generate smollm2 "Hello" --target onnx --device ssh://pi@raspberrypi.local
    """
    limit_s = options.limit_of(device, limit, force)
    bundle = open_bundle(folder)
    name = options.target_of(bundle, target)
    options.say_interpreted(bundle, [name])
    sampling = options.sampling_of(
        bundle,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    text = read_stdin("the prompt") if prompt == "-" else argument_text(prompt, "the prompt")
    ids = _raw_ids(bundle, text, system, no_think) if raw else _asked_ids(bundle, text, system, no_think)
    answer = _Answer(bundle, show=not as_json)
    found: Generated
    if device == "local":
        with bundle.session(name, threads) as session:
            found = generation = generate_ids(session, ids, max_tokens, bundle.stop_ids, sampling)
            with answer.ending(found):
                for token in generation:
                    answer.push(token)
    else:
        from smolship.tools.devices.answering import Question, asking
        from smolship.tools.display import Steps

        with ExitStack() as stack:
            with Steps(options.err) as steps:  # of what is sent
                question = Question(name, ids, max_tokens, sampling, threads)
                asked = stack.enter_context(
                    asking(device, bundle, question, answer.push, steps.update, limit_s=limit_s, force=force)
                )
            found = asked.found
            with answer.ending(found):
                asked.run()
    if as_json:
        options.print_json({"text": answer.text, **_facts(found), "sampling": asdict(sampling)})


def _raw_ids(bundle: Bundle, text: str, system: str | None, no_think: bool) -> Sequence[int]:
    for name, given in (("--system", system is not None), ("--no-think", no_think)):
        if given:
            raise InputError(
                f"{name} is for the chat template, which --raw leaves out",
                got=f"{name} with --raw",
                todo="leave out one of the two",
            )
    if not (ids := bundle.tokenizer.encode(text)):
        raise InputError("there is no text to continue", got=text, todo="give a prompt, or leave out --raw")
    return ids


def _asked_ids(bundle: Bundle, text: str, system: str | None, no_think: bool) -> Sequence[int]:
    from smolship.tools.commands.conversation import opening

    first, variables = opening(bundle, system, no_think)
    rendered = bundle.template.render([*first, {"role": "user", "content": text}], **variables)
    return bundle.tokenizer.encode(rendered, special=False)


class _Answer:
    """Makes a text of tokens, and shows it piece by piece as they come."""

    def __init__(self, bundle: Bundle, show: bool):
        self.text = ""
        self._bundle, self._show, self._stream = bundle, show, bundle.tokenizer.stream()

    def push(self, token: int) -> None:
        self._add(self._stream.push(token))

    def _add(self, piece: str) -> None:
        self.text += piece
        if self._show:
            print(piece, end="", flush=True)

    @contextmanager
    def ending(self, generation: Generated) -> Iterator[None]:
        """Say why it ended, after Ctrl-C, too."""
        from smolship.tools.display import generation_line

        try:
            yield
            self._add(self._stream.finish())
        finally:
            if self._show and (generation.ids or generation.end == "stop"):
                print(flush=True)
                line = generation_line(generation, self._bundle)
                options.err.print(line, style="dim", highlight=False, soft_wrap=True)


def _facts(generation: Generated) -> dict[str, Any]:
    """Why it ended and how fast it was, for JSON."""
    return {
        "prompt_tokens": generation.prompt_tokens,
        "ids": generation.ids,
        "end": generation.end,
        "stop_id": generation.stop_id,
        "ttft_s": generation.ttft_s,
        "decode_tokens_per_s": generation.decode_tokens_per_s,
    }
