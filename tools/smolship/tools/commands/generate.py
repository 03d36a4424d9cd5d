"""`smolship generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from smolship.runtime.bundle import Bundle, open_bundle
from smolship.runtime.errors import InputError
from smolship.runtime.generate import Generation
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
    as_json: options.Json = False,
) -> None:
    """Answer one prompt, streaming; then say why the answer ended.

    Examples:

    smolship generate smollm2 "What is the capital of France?" --target onnx
    smolship generate smollm2 "def fibonacci(n):" --raw --temperature 0.7 --seed 1
    """
    from smolship.tools.display import generation_line

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
    with bundle.session(name, threads) as session:
        generation = generate_ids(session, ids, max_tokens, bundle.stop_ids, sampling)
        try:
            answer = _stream(bundle, generation, show=not as_json)
        finally:  # after Ctrl-C, too
            if not as_json and (generation.ids or generation.end == "stop"):
                print(flush=True)
                options.err.print(generation_line(generation, bundle), style="dim", highlight=False, soft_wrap=True)
    if as_json:
        options.print_json({"text": answer, **_facts(generation), "sampling": asdict(sampling)})


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


def _stream(bundle: Bundle, generation: Generation, show: bool) -> str:
    """The answer, shown piece by piece as it comes."""
    stream, pieces = bundle.tokenizer.stream(), []
    for token in generation:
        pieces.append(stream.push(token))
        if show:
            print(pieces[-1], end="", flush=True)
    pieces.append(stream.finish())
    if show:
        print(pieces[-1], end="", flush=True)
    return "".join(pieces)


def _facts(generation: Generation) -> dict[str, Any]:
    """Why it ended and how fast it was, for JSON."""
    return {
        "prompt_tokens": generation.prompt_tokens,
        "ids": generation.ids,
        "end": generation.end,
        "stop_id": generation.stop_id,
        "ttft_s": generation.ttft_s,
        "decode_tokens_per_s": generation.decode_tokens_per_s,
    }
