"""Text that the model writes itself: no data set is needed, and what is fitted is what the model says.

Half of the windows begin with BOS alone, half with a question in the chat template, in languages by turns. Tokens are
drawn from the model's whole distribution; a window goes on after an end token, so that all are of one length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from smolship.export.calibrate.cost import texts_at_once
from smolship.export.calibrate.held import Held
from smolship.export.calibrate.ops import Batched, Ops
from smolship.export.calibrate.pool import Pool
from smolship.export.config import DecoderConfig
from smolship.export.decoder import Decoder

PROMPTS = (
    "Explain in simple words how a rainbow forms.",
    "Write a Python function that merges two sorted lists.",
    "¿Qué consejos darías a alguien que quiere aprender a cocinar?",
    "A train leaves at 14:35 and travels 180 km at 90 km/h. When does it arrive?",
    "Erzähle eine kurze Geschichte über einen Leuchtturmwärter.",
    "List five differences between cats and dogs as a table.",
    "Quels sont les avantages du vélo en ville ?",
    "请解释一下什么是光合作用。",
    "Translate into French: The weather was so fine that we stayed outside all day.",
    "日本の四季について教えてください。",
    "Summarize the plot of Romeo and Juliet in three sentences.",
    "ما هي فوائد القراءة اليومية؟",
    "Write a polite e-mail asking for a meeting next week.",
    "Расскажи, как работает холодильник.",
    "Return a JSON object that describes a book: title, author, year.",
    "भारत के बारे में कुछ रोचक तथ्य बताइए।",
)
DRAWN = 16  # rows of logits of a piece


def write_texts(
    config: DecoderConfig,
    held: Held,
    starts: Sequence[Sequence[int]],
    length: int,
    seed: int,
    pool: Pool,
    progress: Callable[[int], None],
    keep: bool = True,
) -> np.ndarray:
    """int64 [texts, length]: each begins with its start and goes on as the model would.

    keep      the weights of all layers stay in memory; else each is read again for every token
    progress  is called with the tokens that were written since
    """
    at_once, found = texts_at_once(config, length, len(starts), keep), []
    for first in range(0, len(starts), at_once):
        part = starts[first : first + at_once]
        each_its_own = [np.random.default_rng([seed, first + i]) for i in range(len(part))]
        draws = np.stack([random.random(length, np.float32) for random in each_its_own])
        found.append(_write(config, held, part, length, draws, pool, progress, keep))
    return np.concatenate(found)


def _write(
    config: DecoderConfig,
    held: Held,
    starts: Sequence[Sequence[int]],
    length: int,
    draws: np.ndarray,
    pool: Pool,
    progress: Callable[[int], None],
    keep: bool,
) -> np.ndarray:
    count, device = len(starts), pool.device
    ids, fixed = np.zeros((count, length), np.int64), np.zeros((count, length), bool)
    for row, start in enumerate(starts):
        ids[row, : len(start)], fixed[row, : len(start)] = start, True
    ops = Batched(Ops(config, held, length), pool)
    states = [spec.shapes for spec in config.cache(length)]
    ops.caches = [[torch.zeros((count, *shape), device=device) for shape in shapes] for shapes in states]
    decoder, chance = Decoder(config, ops), torch.from_numpy(draws).to(device)
    for t in range(length - 1):
        token = torch.from_numpy(ids[:, t : t + 1]).to(device)
        hidden, position = decoder.begin(token), torch.tensor([t])
        x: Tensor | None = None
        for i in range(len(config.layers)):
            hidden, x = decoder.layer(i, hidden, x, position)
            if not keep:
                held.forget(f"layers.{i}.")
        logits = decoder.end(hidden, x)[:, 0]  # [texts, V]
        pairs = zip(logits.split(DRAWN), chance[:, t].split(DRAWN), strict=True)
        drawn = torch.cat(list(pool.map(lambda pair: draw(*pair), pairs))).cpu().numpy()
        ids[:, t + 1] = np.where(fixed[:, t + 1], ids[:, t + 1], drawn)
        progress(count)
    return ids


def draw(logits: Tensor, chance: Tensor) -> Tensor:
    """A token of each row of logits, by its number between 0 and 1."""
    sums = torch.softmax(logits, -1).cumsum(-1)
    return torch.searchsorted(sums, (chance * sums[:, -1])[:, None])[:, 0].clamp(max=logits.shape[1] - 1)
