"""The step `calibrate`: a quantized set in, one that is nearer to the original out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smolship.export.calibrate.asked import JUDGED, Calibration, is_whole, window
from smolship.export.calibrate.cost import Work, work_of
from smolship.export.calibrate.distil import Trained, answers_loss, draw_order, train
from smolship.export.calibrate.documents import Document, cut_windows
from smolship.export.calibrate.held import Held
from smolship.export.calibrate.layers import Layers
from smolship.export.calibrate.pool import Pool, open_pool
from smolship.export.calibrate.sampled import PROMPTS, write_texts
from smolship.export.calibrate.state import State
from smolship.export.checkpoints import Checkpoint
from smolship.export.facts import Resolved
from smolship.export.templates import DATE
from smolship.export.weights import Weights, replace_tensors
from smolship.runtime.errors import InputError
from smolship.runtime.manifest import CalibrationFacts
from smolship.runtime.tokenizer import Tokenizer

Progress = Callable[[str, int, int], None]
PARTS = 1000  # of the progress


class Told:
    """Progress in shares of the work."""

    def __init__(self, work: Work, progress: Progress):
        self.work, self.progress, self.done = work, progress, 0.0

    def __call__(self, what: str, phase: str, share: float) -> None:
        """So much of a phase was done since."""
        self.done += share * vars(self.work)[phase] / self.work.total
        self.progress(what, min(round(self.done * PARTS), PARTS - 1), PARTS)


def calibrate(
    checkpoint: Checkpoint,
    resolved: Resolved,
    base: Weights,
    asked: Calibration,
    documents: Sequence[Document] | None,
    folder: Path,
    state: State,
    progress: Progress,
    threads: int | None = None,
    device: str | None = None,
) -> tuple[Weights, CalibrationFacts]:
    """Write to the new `folder` what differs from the set `base`, or nothing where nothing came nearer; the set, and
    what is said of it."""
    config, effort = checkpoint.config, asked.amount
    length, whole = window(config), is_whole(config)
    told = Told(work_of(config, effort, length, documents is None, whole), progress)
    with open_pool(threads, device) as pool, tempfile.TemporaryDirectory() as temporary:
        texts = window_texts(
            checkpoint,
            resolved,
            documents,
            effort.windows,
            length,
            asked.seed,
            pool,
            state,
            lambda what, share: told(what, "write", share),
            whole,
        )
        ids = torch.from_numpy(texts).to(pool.device)
        judges = max(1, round(len(ids) * JUDGED))
        fitted = len(ids) - judges
        spilled = None if whole else Path(temporary)
        layers = Layers(config, checkpoint, base, ids, fitted, effort, asked.seed, pool, state, spilled)
        streams = layers.run(lambda what, share: told(what, "layers", share))
        judged = streams.original[fitted:].clone()
        before = layers.divergence(judged, streams.before, layers.before)
        layers.before.forget("")
        if whole:
            wanted = layers.normed(layers.original, streams.original[:fitted])
            layers.round_head(streams.ours[:fitted], judged)
            del streams
            after = _train_whole(layers, wanted, judged, told)
        else:
            after = layers.divergence(judged, streams.ours[fitted:], layers.ours)
        facts = _facts(layers, asked, before, after, whole)
        progress("writing", PARTS - 1, PARTS)
        if after < before:
            folder.mkdir()
            found = layers.found
            weights = replace_tensors(base, found, [*found.matrices, *found.vectors], folder, asdict(facts))
        else:
            kept = "the set without calibration was kept, as the calibrated one is no nearer to the original"
            weights, facts = base, replace(facts, kl_after=facts.kl_before, notes=[*facts.notes, kept])
    state.clear()
    progress("done", PARTS, PARTS)
    return weights, facts


def _facts(layers: Layers, asked: Calibration, before: float, after: float, whole: bool) -> CalibrationFacts:
    effort, entries, plain = layers.effort, layers.base.entries, layers.plain
    windows, notes = len(layers.ids), []
    if windows < effort.windows:
        notes.append(f"the text is {windows} of the {effort.windows} windows that the effort {asked.effort} looks at")
    if plain:
        notes.append(f"{plain} matrices without error compensation: their inputs are not finite")
    return CalibrationFacts(
        text=asked.text,
        sha256=asked.sha256,
        method=f"GPTQ, scales and gains distilled {'whole' if whole else 'layer by layer'}",
        effort=asked.effort,
        seed=asked.seed,
        tokens=layers.ids.numel(),
        steps=effort.steps if whole else effort.layer_steps,
        lifted=sum(entries[name].origin == "lifted" for name in layers.config.linears()),
        kl_before=round(before, 5) if math.isfinite(before) else None,
        kl_after=round(after, 5) if math.isfinite(after) else None,
        notes=notes,
    )


def window_texts(
    checkpoint: Checkpoint,
    resolved: Resolved,
    documents: Sequence[Document] | None,
    count: int,
    length: int,
    seed: int,
    pool: Pool,
    state: State,
    told: Callable[[str, float], None],
    whole: bool,
) -> np.ndarray:
    """Windows of tokens int64 [at most `count`, length]. `told` takes what is done and the share that was since."""
    config = checkpoint.config
    tokenizer, template = Tokenizer(checkpoint.files["tokenizer.json"]), resolved.chat_template(DATE)
    try:
        if documents is not None:
            return cut_windows(documents, tokenizer, template, config.vocab, count, length, seed)
        if saved := state.load("texts"):
            told("texts that the model wrote", 1)
            return saved["ids"]
        first = next((i for i in (resolved.facts.bos, config.bos, *resolved.facts.end_ids) if i is not None), 0)
        prompts = []
        for prompt in PROMPTS if template else ():
            try:
                rendered = template.render([{"role": "user", "content": prompt}])  # type: ignore[union-attr]
            except InputError:  # a note says so already (templates.py)
                break
            start = tokenizer.encode(rendered, special=False)
            prompts += [start] if 0 < len(start) <= length // 2 and max(start) < config.vocab else []
    finally:
        if template:
            template.close()
    starts = [prompts[i // 2 % len(prompts)] if i % 2 and prompts else [first] for i in range(count)]
    held = Held(checkpoint, config.shapes(), pool.device)
    share = 1 / (count * (length - 1))
    ids = write_texts(config, held, starts, length, seed, pool, lambda n: told("the model writes", n * share), whole)
    state.save("texts", ids=ids)
    return ids


def _train_whole(layers: Layers, wanted: Tensor, judged: Tensor, told: Told) -> float:
    """Train all scales and gains on the original's answers; the divergence that is left. `wanted` are what its head
    makes them of, and `judged` its states behind the last layer in the windows that judge."""
    config, effort, pool, fitted = layers.config, layers.effort, layers.pool, layers.fitted
    trained = Trained(layers.found, *layers.trainable(), layers.ours, pool)
    loss = answers_loss(config, layers.ids, wanted, layers.original(config.head))
    order = draw_order(fitted, effort.steps, effort.batch, layers.seed)
    share = 1 / effort.steps

    def progress(steps: int) -> None:
        told("scales and gains", "train", steps * share)

    train(config, trained, loss, layers.ids.shape[1], order, layers.state, "training", progress)
    trained.store(layers.found)
    del trained, loss
    layers.ours.forget("")
    return layers.divergence(judged, layers.hidden(layers.ours, layers.ids[fitted:]), layers.ours)
