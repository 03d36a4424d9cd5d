"""The decoder a layer at a time: many texts, in many arithmetics, pass through one layer together, so that of the
weights one layer is in memory, and that once.

What is kept between layers is each text's hidden state. It may be saved to a file and taken up there again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smolship.export import arrays
from smolship.export.decoder import Decoder
from smolship.export.freed import trim
from smolship.export.nonfinite import Watched
from smolship.export.reference import Cache, Reference
from smolship.export.slots import row_chunks

STEP = 512  # positions computed at once
PIECE = 128  # positions whose logits exist at once, several times over where noise is added

Progress = Callable[[float], None]  # takes how many positions more have passed through the whole model


class Flow:
    """One text on its way through the layers, in the arithmetic of `ops`.

    ids   the tokens that pass, the first of them at position `start`
    keep  positions, from the first, whose state is kept, in `kept`: of a layer keys and values [keep, G, K], or what a
          convolution was given, [keep, 1, D]
    room  positions that the cache holds after these: with room there is a next token
    part  which noise of `ops` it takes
    bad   the operator that made the first infinity or NaN; empty while there is none
    """

    def __init__(self, ops: Reference, ids: Sequence[int] | np.ndarray, *, keep: int = 0, room: int = 0, part: int = 0):
        self.ops, self.keep, self.room, self.part = ops, keep, room, part
        self.decoder = Decoder(ops.config, ops)
        self.cache = Cache(ops.config.cache(len(ids) + room))
        self.kept: list[tuple[np.ndarray, ...]] = []
        self.bad = ""
        self.feed(ids)

    def feed(self, ids: Sequence[int] | np.ndarray, start: int = 0) -> None:
        """The tokens that pass next."""
        self.ids, self.start = torch.tensor(np.array(ids, np.int64))[None], start
        self.delta, self.x = torch.empty(0), torch.empty(0)

    @property
    def length(self) -> int:
        return self.ids.shape[1]

    def enter(self) -> None:
        """Through the embedding, from the beginning, whatever was restored."""
        self.kept, self.bad = [], ""
        self.ops.seed(self.part)
        self.delta = self._look(self.decoder.begin(self.ids), Decoder.begin, self.ids)
        self.x = torch.zeros_like(self.delta)

    def layer(self, i: int) -> None:
        """Through one layer."""
        self.ops.seed(self.part + 1000 * (i + 1))
        self.ops.cache = self.cache
        for start in range(0, self.length, STEP):
            part = slice(start, start + STEP)
            before = self.delta[:, part], (self.x[:, part] if i else None)
            position = torch.tensor([self.start + start])
            after = self.decoder.layer(i, *before, position)
            self._look(after[0], Decoder.layer, i, *before, position)
            self.delta[:, part], self.x[:, part] = after
        if self.keep:
            self.kept.append(tuple(t[0, : self.keep].numpy().copy() for t in self.cache[i]))
        if not self.room:
            del self.cache.layers[i]

    @staticmethod
    def together(flows: Sequence[Flow], i: int) -> None:
        """Short texts of the same `ops` through one layer at once: its weights pass through the processor once."""
        ops = flows[0].ops
        ops.texts = [(flow.cache, flow.start, flow.length) for flow in flows]
        try:
            delta = torch.cat([flow.delta for flow in flows], 1)
            x = torch.cat([flow.x for flow in flows], 1) if i else None
            after = flows[0].decoder.layer(i, delta, x, torch.tensor([0]))
        finally:
            ops.texts = []
        lengths = [flow.length for flow in flows]
        for flow, *state in zip(flows, *(one.split(lengths, 1) for one in after), strict=True):
            flow.delta, flow.x = state

    def logits(self, positions: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Logits float32 [n, V] at some positions, in pieces, each with where in `positions` it lies."""
        self.ops.seed(self.part + 999)
        for piece in row_chunks(len(positions), 1, PIECE):
            at = torch.from_numpy(positions[slice(*piece)].astype(np.int64))
            state = self.delta[:, at], self.x[:, at]
            found = self._look(self.decoder.end(*state), Decoder.end, *state)
            yield slice(*piece), found[0].float().numpy()
            size = found.numel()
            del found
            trim(size)

    def _look(self, x: Tensor, step: Callable[..., object], *given: object) -> Tensor:
        """x, which that step of the decoder made; the operator that made it infinite or NaN, if it is the first, is
        found by computing it again."""
        if not self.bad and not bool(x.isfinite().all()):
            watched = Watched(self.ops)
            step(Decoder(self.ops.config, watched), *given)
            self.bad = watched.first
        return x

    def state(self) -> dict[str, np.ndarray]:
        """What `restore` takes up again."""
        kept = {f"kept.{i}.{j}": part for i, parts in enumerate(self.kept) for j, part in enumerate(parts)}
        return kept | {"delta": self.delta.numpy(), "x": self.x.numpy(), "bad": np.array(self.bad)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.delta, self.x = torch.from_numpy(state["delta"]), torch.from_numpy(state["x"])
        kept: dict[int, dict[int, np.ndarray]] = {}
        for name, part in state.items():
            if name.startswith("kept."):
                _, layer, index = name.split(".")
                kept.setdefault(int(layer), {})[int(index)] = part
        self.kept = [tuple(kept[i][j] for j in range(len(kept[i]))) for i in range(len(kept))]
        self.bad = str(state["bad"])


class Saved:
    """Where the state of flows is saved between layers: nowhere."""

    def load(self, flows: Sequence[Flow]) -> int:
        """Take up what was saved; the number of layers that are done."""
        return 0

    def save(self, flows: Sequence[Flow], layers: int) -> None:
        """Called after each layer."""


class InFile(Saved):
    """The state in a file, now and then."""

    SECONDS = 20  # at least between two

    def __init__(self, path: Path):
        self.path, self.last = path, time.monotonic()

    def load(self, flows: Sequence[Flow]) -> int:
        state = arrays.load(self.path)
        if state is None:
            return 0
        try:
            for i, flow in enumerate(flows):
                flow.restore(
                    {name.partition("/")[2]: value for name, value in state.items() if name.startswith(f"{i}/")}
                )
            return int(state["layers"])
        except (ValueError, LookupError):  # of other flows
            return 0

    def save(self, flows: Sequence[Flow], layers: int) -> None:
        if time.monotonic() - self.last < self.SECONDS:
            return
        state = {f"{i}/{name}": value for i, flow in enumerate(flows) for name, value in flow.state().items()}
        with contextlib.suppress(OSError):  # a full disk: what is interrupted begins again
            arrays.save(self.path, state | {"layers": np.array(layers)})
        self.last = time.monotonic()


def through(flows: Sequence[Flow], progress: Progress, saved: Saved = Saved(), at_once: bool = False) -> None:
    """All flows through all layers. Those of the same `ops` follow one another, or pass `at_once` where they are short
    texts without noise. After it they give logits."""
    layers = len(flows[0].ops.config.layers)
    first = saved.load(flows)
    progress(first / layers * sum(flow.length for flow in flows))
    if not first:
        for ops, group in groupby(flows, lambda flow: flow.ops):
            for flow in group:
                flow.enter()
            ops.tensors.clear()
        forget(flows)
    for i in range(first, layers):
        for ops, group in groupby(flows, lambda flow: flow.ops):
            if at_once:
                Flow.together(list(group), i)
                continue
            for flow in group:
                flow.layer(i)
                progress(flow.length / layers)
            ops.tensors.clear()
        forget(flows)
        saved.save(flows, i + 1)


def forget(flows: Sequence[Flow]) -> None:
    """Let go of the weights."""
    for flow in flows:
        flow.ops.forget()


def continuations(
    ops: Sequence[Reference],
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[np.ndarray],
    progress: Callable[[], None],
) -> list[np.ndarray]:
    """What each of `ops` says after each prompt, always the likeliest token: as many as the prompt's draft has, int32.

    Several tokens of a draft pass at once, for much of the time goes into reading weights: up to the first that
    differs they are right, that one is put right, and what was said after it is the next draft. Where few were right,
    few pass the next time; where all were, twice as many.
    """
    found = [np.array(draft) for _ in ops for draft in drafts]
    lengths = [len(prompt) for _ in ops for prompt in prompts]
    flows = [Flow(one, prompt, room=len(draft)) for one in ops for prompt, draft in zip(prompts, drafts, strict=True)]
    right = [0] * len(flows)  # tokens of each that are certain
    counts = [len(draft) for draft in found]  # of the draft, how many are looked at next
    while going := [i for i, ids in enumerate(found) if right[i] < len(ids)]:
        for i in going:
            counts[i] = min(counts[i], len(found[i]) - right[i])
            known = [*prompts[i % len(prompts)], *found[i]]
            start = lengths[i] + right[i] - 1 if right[i] else 0
            flows[i].feed(known[start : lengths[i] + right[i] + counts[i] - 1], start)
        through([flows[i] for i in going], lambda positions: None, at_once=True)
        for half in (False, True):  # the head as engines in fp16 hold it is another array
            for i in (i for i in going if flows[i].ops.half == half):
                flow, first = flows[i], lengths[i] + right[i] - 1  # the position that gives the first uncertain token
                at = np.arange(first - flow.start, flow.length)
                said = np.concatenate([logits.argmax(1) for _, logits in flow.logits(at)]).astype(np.int32)
                looked = slice(right[i], right[i] + len(said))
                other = np.flatnonzero(found[i][looked] != said)
                agreed = int(other[0]) + 1 if len(other) else len(said)
                found[i][looked] = said
                right[i] += agreed
                counts[i] = 2 * agreed
            forget(flows)
        progress()
    return found
