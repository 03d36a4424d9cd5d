"""Parity, bench and answers of several targets of a bundle, with progress: what the command and the demo share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from smolship.runtime.bench import BenchReport, bench
from smolship.runtime.bundle import Bundle
from smolship.runtime.generate import Generation, Sampling, generate
from smolship.runtime.parity import ParityReport, parity

Update = Callable[[str, str, int, int], None]  # (step, what, done, total)


def parity_of(
    bundle: Bundle, targets: Sequence[str], update: Update, *, quick: bool, threads: int, max_kl: float | None = None
) -> list[ParityReport]:
    """A parity report for each target."""

    def one(name: str) -> ParityReport:
        return parity(
            bundle,
            name,
            quick=quick,
            threads=threads,
            max_kl=max_kl,
            progress=lambda what, done, total: update(f"parity {name}", what, done, total),
        )

    return [one(name) for name in targets]


def bench_of(
    bundle: Bundle, targets: Sequence[str], update: Update, *, threads: int, repeats: int
) -> list[BenchReport]:
    """A bench report for each target."""

    def one(name: str) -> BenchReport:
        entry = bundle.entry(name)
        return bench(
            entry.engine,
            bundle.path / entry.folder,
            entry.info,
            threads=threads,
            repeats=repeats,
            weight_bytes_per_token=entry.bytes_per_token,
            progress=lambda what, done, total: update(f"bench {name}", what, done, total),
        )

    return [one(name) for name in targets]


def answer(bundle: Bundle, target: str, prompt: str, threads: int, max_tokens: int = 64) -> dict[str, Any]:
    """A greedy answer through the chat template: the prompt, the text, and the facts of the generation."""
    ids = bundle.tokenizer.encode(bundle.template.render([{"role": "user", "content": prompt}]), special=False)
    with bundle.session(target, threads) as session:
        stream = bundle.tokenizer.stream()
        generation = generate(session, ids, max_tokens, bundle.stop_ids, Sampling())
        text = "".join([stream.push(token) for token in generation]) + stream.finish()
    return {"prompt": prompt, "text": text, **facts(generation)}


def facts(generation: Generation) -> dict[str, Any]:
    """Why a generation ended and how fast it was, for JSON."""
    return {
        "prompt_tokens": generation.prompt_tokens,
        "ids": generation.ids,
        "end": generation.end,
        "ttft_s": generation.ttft_s,
        "decode_tokens_per_s": generation.decode_tokens_per_s,
    }
