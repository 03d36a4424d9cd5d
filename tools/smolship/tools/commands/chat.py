"""`smolship chat`."""

from __future__ import annotations

import contextlib

from smolship.runtime.bundle import Bundle, open_bundle
from smolship.runtime.chat import Chat
from smolship.runtime.errors import InputError
from smolship.tools.commands import options


def chat(
    folder: options.BundleDir,
    target: options.Target = None,
    system: options.System = None,
    no_think: options.NoThink = False,
    max_tokens: options.MaxTokens = 1024,
    threads: options.Threads = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    seed: options.Seed = None,
) -> None:
    """Talk to the model; the cache is kept from turn to turn. Ctrl-C stops an answer, Ctrl-D ends.

    Below each answer stands why it ended.

    Example:  smolship chat smollm3 --system "Answer in one sentence." --no-think
    """
    from smolship.tools.commands.conversation import opening

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
    first, variables = opening(bundle, system, no_think)
    said = first[0]["content"] if first else None
    with bundle.session(name, threads) as session:
        talk(
            bundle,
            Chat(session, bundle.tokenizer, bundle.template, bundle.stop_ids, sampling, system=said, **variables),
            max_tokens,
        )


def talk(bundle: Bundle, chat: Chat, max_tokens: int) -> None:
    """Read a line, answer it, until Ctrl-D. Ctrl-C ends the answer and keeps what was said."""
    options.err.print("Ctrl-C stops an answer, Ctrl-D ends the chat.", style="dim")
    while True:
        try:
            text = input("> ")
        except EOFError:
            print()
            return
        except UnicodeDecodeError as error:
            raise InputError("what was typed is no text", got=error, expected=f"{error.encoding} text") from None
        if not text.strip():
            continue
        try:
            _answer(bundle, chat, text, max_tokens)
        except InputError as error:
            options.err.print(str(error), style="red", markup=False)


def _answer(bundle: Bundle, chat: Chat, text: str, max_tokens: int) -> None:
    """Ask, show what comes, and say why it ended."""
    from smolship.tools.display import generation_line

    answer = None
    with contextlib.suppress(KeyboardInterrupt):
        answer = chat.ask(text, max_tokens)
        for piece in answer:
            print(piece, end="", flush=True)
    print()
    if answer:
        answer.close()
    if answer and answer.generation:
        options.err.print(generation_line(answer.generation, bundle), style="dim", highlight=False, soft_wrap=True)
    options.err.print(
        f"[{chat.session.position:,} of {chat.session.capacity:,} tokens, {chat.reused:,} reused]",
        style="dim",
        markup=False,
    )
