"""Parity, bench, revealed weights and answers of targets of a bundle, with progress: what commands share."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from smolship.runtime.bench import BenchReport, bench
from smolship.runtime.bundle import Bundle
from smolship.runtime.errors import missing_engine
from smolship.runtime.execute import Execute
from smolship.runtime.generate import Sampling, generate
from smolship.runtime.parity import ParityReport, parity

if TYPE_CHECKING:  # it needs what an export needs
    from smolship.tools.onehot import Verdict

Update = Callable[[str, str, int, int], None]  # (step, what, done, total)
Elsewhere = Callable[[str], Execute]  # by target


def parity_of(
    bundle: Bundle,
    targets: Sequence[str],
    update: Update,
    *,
    quick: bool,
    threads: int,
    max_kl: float | None = None,
    elsewhere: Elsewhere | None = None,
) -> list[ParityReport]:
    """A parity report for each target, executed `elsewhere` than in this process where that is given."""

    def one(name: str) -> ParityReport:
        return parity(
            bundle,
            name,
            quick=quick,
            threads=threads,
            max_kl=max_kl,
            progress=lambda what, done, total: update(f"parity {name}", what, done, total),
            elsewhere=elsewhere and elsewhere(name),
        )

    return [one(name) for name in targets]


def bench_of(
    bundle: Bundle,
    targets: Sequence[str],
    update: Update,
    *,
    threads: int,
    repeats: int,
    elsewhere: Elsewhere | None = None,
) -> list[BenchReport]:
    """A bench report for each target, executed `elsewhere` than on this machine where that is given."""

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
            elsewhere=elsewhere and elsewhere(name),
        )

    return [one(name) for name in targets]


def revealed(bundle: Bundle, targets: Sequence[str], update: Update) -> list[Verdict]:
    """One-hot probes of each target's engine. Raises SetupError where what exports is not installed."""
    os.environ["TQDM_DISABLE"] = "1"  # compilers would draw a bar for each probe, and warn of their own affairs
    for name in ("torchao", "torch.utils._pytree", "coremltools"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from smolship.tools.onehot import reveal
    except ImportError as error:
        raise missing_engine("what lowers the probes", "export", error) from None
    return [verdict for target in targets for verdict in reveal(bundle, target, partial(update, f"probe {target}"))]


@dataclass(frozen=True)
class Answer:
    """What an engine said to a prompt."""

    prompt: str
    text: str


def answer(bundle: Bundle, target: str, prompt: str, threads: int, max_tokens: int = 64) -> Answer:
    """A greedy answer through the chat template."""
    ids = bundle.tokenizer.encode(bundle.template.render([{"role": "user", "content": prompt}]), special=False)
    with bundle.session(target, threads) as session:
        stream = bundle.tokenizer.stream()
        generation = generate(session, ids, max_tokens, bundle.stop_ids, Sampling())
        return Answer(prompt, "".join([stream.push(token) for token in generation]) + stream.finish())
