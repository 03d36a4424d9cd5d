"""The live stages of parity: one session against the simulation, and against itself.

Tokens reach the cache in every way that there is: one by one, many at once in many lengths, in pieces, after a rewind,
and up to the last slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from smolship.runtime.judge import Check, Rounding, judge, same, unmeasured
from smolship.runtime.probes import FILLED, Gap, Probes, Sketch
from smolship.runtime.session import INTERPRETER, Session

SHORT = 64  # positions of each text in a quick run
FOLLOW = 4  # tokens fed one by one after a prefill: they see the cache that it left
STRETCH = 16  # neighbouring positions that are judged together
REWOUND = 96  # tokens of the comparison of a session with itself
# Kernels work in blocks of powers of two, and go wrong on both sides of a multiple. An engine's own are added.
BLOCKS = (16, 32, 64, 128, 256)
LONG = 200  # prefills above are made of two texts only
# (chunk, length): prompts that come in pieces, with a last one that is whole, short, or a single token
CHUNKS = ((3, 19), (5, 61), (7, 90), (16, 48), (32, 150), (63, 200), (100, 250))


class Live:
    """The live stages of one session."""

    def __init__(
        self, session: Session, probes: Probes, target: str, limit: int | None, progress: Callable, label: str = ""
    ):
        self.session, self.probes, self.progress = session, probes, progress
        self.target, self.limit, self.label = target, limit, label
        self.simulated = probes.sketches[f"{target}.simulated"]
        self.rounding = Rounding("engine", probes.gaps[f"{target}.ulp"], probes.gaps[f"{target}.noise"].kl)
        self.windows = list(enumerate(probes.windows))

    def checks(self, max_kl: float | None) -> list[Check]:
        checks, original = self._decode()
        checks += self._prefill() + self._chunks() + self._itself() + self._end()
        for check in checks:
            check.what += self.label
        if not len(original.kl):
            return [*checks, unmeasured("total", "original → engine", "the original is not finite")]
        total = judge("total", "original → engine", original, None, max_kl)
        if not np.isfinite(total.kl) and not np.isfinite(self.simulated.lse).all():
            total.note = "the simulation is not finite either"
        return [*checks, total]

    def _decode(self) -> tuple[list[Check], Gap]:
        """Every window token by token; and the gap from the original."""
        live, original = [], []
        stretches: dict[str, list[Gap]] = {}
        for done, (i, window) in enumerate(self.windows):
            self.progress("token by token", done, len(self.windows))
            count = min(self.limit or len(window.ids), len(window.ids))
            self.session.rewind(0)
            logits, start = self.session.forward(window.ids[:count], logits="all"), self.probes.rows(i).start
            for at in range(0, count, STRETCH):
                stop = min(at + STRETCH, count)
                gap = self._gap(self.simulated, start + at, logits[at:stop], window.following[at:stop])
                stretches.setdefault(f"positions {at:,} to {at + STRETCH - 1:,}", []).append(gap)
                live.append(gap)
            original.append(self._gap(self.probes.sketches["original"], start, logits, window.following[:count]))
        what = "simulated → decode"
        checks = [self.rounding.mean(what, live), self.rounding.worst(f"{what}, worst positions", stretches)]
        return checks, Gap.join(original)

    def _gap(self, reference: Sketch, row: int, logits: np.ndarray, following: np.ndarray | None = None) -> Gap:
        """From `reference`, whose row `row` is at the position of logits[0], to `logits`, where the reference is a
        number: the engine answers for its own NaNs alone."""
        wanted = reference[slice(row, row + len(logits))]
        keep = np.isfinite(wanted.lse)
        following = np.full(len(logits), -1) if following is None else following
        return Gap.between(wanted[keep], logits[keep], following[keep])

    def _prefill(self) -> list[Check]:
        """Prompts of many lengths at once. Each answers with its last logits, and with those of a few tokens after it,
        which see the cache that it wrote."""
        last: dict[str, list[Gap]] = {}
        after: dict[str, list[Gap]] = {}
        texts = self.windows[: 2 if self.limit else 4]
        for n, (i, window) in enumerate(texts):
            self.progress("prefill", n, len(texts))
            for length in lengths(self.session, len(window.ids), bool(self.limit)):
                if n < 2 or length <= LONG:
                    self._prompt(window.ids, length, self.simulated, self.probes.rows(i).start, 0, last, after)
        for run, ids, row in self._middle():
            for length in run[:-FOLLOW] + 1:
                edge = self.probes.sketches[f"{self.target}.edge"]
                self._prompt(ids, int(length), edge, row, int(run[0]), last, after)
        what = "simulated → prefill"
        return [
            self.rounding.mean(what, [gap for gaps in last.values() for gap in gaps]),
            self.rounding.worst(f"{what}, worst length", last),
            self.rounding.worst(f"{what} → decode, worst length", after),
        ]

    def _middle(self) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Positions a little beyond the windows, for chunks as long as they: (positions, tokens, row of the first)."""
        ids, at = self.probes.arrays.get("edge.ids"), self.probes.arrays.get("edge.at")
        if ids is not None and at is not None:
            for run in _runs(at):
                if run[-1] < len(ids) - 1 and (not self.limit or run[0] < max(own(self.session), default=0)):
                    yield run, ids, int(np.searchsorted(at, run[0]))

    def _prompt(
        self,
        ids: np.ndarray,
        length: int,
        reference: Sketch,
        row: int,
        first: int,
        last: dict[str, list[Gap]],
        after: dict[str, list[Gap]],
    ) -> None:
        """Prefill ids[:length] and a few tokens more; row `row` of the reference is at position `first`."""
        self.session.rewind(0)
        row += length - 1 - first
        name, following = f"length {length:,}", np.append(ids[1:], -1)
        logits = self.session.forward(ids[:length])
        last.setdefault(name, []).append(self._gap(reference, row, logits, following[length - 1 : length]))
        stop = min(length + FOLLOW, first + len(reference.lse), len(ids))
        if stop > length:
            logits = self.session.forward(ids[length:stop], logits="all")
            after.setdefault(name, []).append(self._gap(reference, row + 1, logits, following[length:stop]))

    def _chunks(self) -> list[Check]:
        """Prompts in pieces; the last logits."""
        shapes = list(CHUNKS[:: 3 if self.limit else 1])
        if not self.limit:
            shapes += [shape for size in own(self.session) for shape in ((size - 1, 2 * size), (size, 2 * size + 1))]
        groups: dict[str, list[Gap]] = {}
        for i, window in self.windows[: 1 if self.limit else 4]:
            for chunk, whole in shapes:
                length = min(whole, len(window.ids))
                self.session.rewind(0)
                for start in range(0, length, chunk):
                    logits = self.session.forward(window.ids[start : min(start + chunk, length)])
                row, following = self.probes.rows(i).start + length - 1, window.following[length - 1 : length]
                gap = self._gap(self.simulated, row, logits, following)
                groups.setdefault(f"{length:,} in chunks of {chunk:,}", []).append(gap)
        what = "simulated → chunks"
        every = [gap for gaps in groups.values() for gap in gaps]
        return [self.rounding.mean(what, every), self.rounding.worst(f"{what}, worst size", groups)]

    def _itself(self) -> list[Check]:
        """The same tokens in the same calls, twice from the start, and once after others that were taken back. Each of
        the engines gives the same bits each time, whatever the threads (ExecuTorch 1.5, ONNX Runtime 1.32, llama.cpp,
        the interpreter: measured on tiny models and on SmolLM2), so not one may differ."""
        ids = self.probes.windows[0].ids
        count = min(len(ids), self.session.capacity, REWOUND)
        half, tail = count // 2, ids[count // 2 : count]

        def cold() -> np.ndarray:
            self.session.rewind(0)
            if half:
                self.session.forward(ids[:half])
            return self.session.forward(tail, logits="all")

        first, again = cold(), cold()
        self.session.rewind(half)
        self.session.forward(tail[::-1].copy())
        self.session.rewind(half)
        rewound = self.session.forward(tail, logits="all")
        return [
            same(
                "engine",
                "cold → cold again",
                first,
                again,
                "the engine is no function of its tokens, or keeps something when it is rewound to the start",
            ),
            same("engine", "cold → rewound", again, rewound, "something stays of the tokens that were taken back"),
        ]

    def _end(self) -> list[Check]:
        """Fill the cache to its end, and stop at some positions on the way and at each of the last few."""
        what, ids = "simulated → cache's end", self.probes.arrays.get("edge.ids")
        if ids is None:
            return [
                unmeasured(
                    "engine",
                    what,
                    f"the cache holds {self.session.capacity:,} tokens, and an export "
                    f"simulates no more than {FILLED:,}",
                )
            ]
        sketch = self.probes.sketches[f"{self.target}.edge"]
        at = self.probes.arrays.get("edge.at", np.arange(len(ids) - len(sketch.lse), len(ids)))
        self.progress("the cache's end", 0, 1)
        self.session.rewind(0)
        groups: dict[str, list[Gap]] = {}
        for run in _runs(at):
            logits = self.session.forward(ids[self.session.position : run[0] + 1])
            if len(run) > 1:
                logits = np.concatenate([logits, self.session.forward(ids[run[1:]], logits="all")])
            row = int(np.searchsorted(at, run[0]))
            if run[-1] < len(ids) - 1:
                groups[f"positions {run[0]:,} to {run[-1]:,}"] = [self._gap(sketch, row, logits)]
                continue
            end = self._gap(sketch, row, logits)
            groups |= {f"position {p:,}": [self._gap(sketch, row + i, logits[i : i + 1])] for i, p in enumerate(run)}
        return [self.rounding.mean(what, [end]), self.rounding.worst(f"{what}, worst positions", groups)]

    def greedy(self) -> list[dict[str, Any]]:
        """Greedy continuations of chat prompts: the first token that differs from the original's, and from the
        simulation's. Not judged: a near-tie may fall either way."""
        found = []
        for i in range(sum(name.startswith("greedy.prompt.") for name in self.probes.arrays)):
            prompt = self.probes.arrays[f"greedy.prompt.{i}"]
            original = self.probes.arrays[f"greedy.original.{i}"]
            self.session.rewind(0)
            logits = self.session.forward(prompt)
            ids, gap = [], None
            for wanted in original:
                best = int(logits[0].argmax())
                if gap is None and best != wanted:
                    gap = float(logits[0, best] - logits[0, wanted])
                ids.append(best)
                if self.session.position == self.session.capacity:
                    break
                logits = self.session.forward([best])
            simulated = self.probes.arrays[f"greedy.{self.target}.{i}"]
            found.append(
                {
                    "tokens": len(ids),
                    "original": _first_difference(ids, original),
                    "logit_gap": gap,
                    "simulation": _first_difference(ids, simulated),
                    "ids": ids,
                }
            )
        return found

    def drift(self) -> list[dict[str, Any]]:
        """Relative rms difference of each layer's keys and values from the simulation's, and the floor's own."""
        keys = self.probes.arrays.get(f"drift.{self.target}.keys")
        if keys is None:
            return []
        values = self.probes.arrays[f"drift.{self.target}.values"]  # [layers, n, kv_heads, head_dim]
        floor = self.probes.arrays[f"drift.{self.target}.floor"]
        self.session.rewind(0)
        self.session.forward(self.probes.windows[0].ids[: keys.shape[1]])
        rows = []
        for layer in range(len(keys)):
            cache = self.session.cache(layer)
            if cache is None:
                return []
            both = relative(np.stack([keys[layer], values[layer]]), np.stack(cache))
            rows.append({"layer": layer, "difference": both, "floor": float(floor[layer])})
        return rows


def own(session: Session) -> list[int]:
    """Lengths at which the engine computes otherwise, by its own account."""
    return sorted({size for size in (session.chunk or 0, *session.blocks) if size > 1})


def lengths(session: Session, longest: int, quick: bool) -> list[int]:
    """Prompt lengths that are prefilled: short ones, and both sides of each block."""
    found = {1, 2, 3, 7, 100, longest - 1, longest}
    blocks = [*BLOCKS, *own(session), *(2 * size for size in own(session))]
    if quick:  # an interpreter takes a tenth of a second for each token
        found = {1, 2, 16, 31, 32, 33, 64, 128} | (set() if session.runtime == INTERPRETER else {100, 255, 256})
        blocks = own(session)
        found |= {2 * size + 1 for size in blocks}
    found |= {size + side for size in blocks for side in (-1, 0, 1)}
    return sorted(n for n in found if 1 <= n <= longest)


def _runs(at: np.ndarray) -> list[np.ndarray]:
    """Ascending positions, cut where they do not follow one another."""
    return [run for run in np.split(at, np.flatnonzero(np.diff(at) != 1) + 1) if len(run)]


def relative(reference: np.ndarray, other: np.ndarray) -> float:
    """Root mean square of the difference over that of the reference."""
    scale = float(np.sqrt(np.square(reference, dtype=np.float64).mean()))
    return float(np.sqrt(np.square(other - reference, dtype=np.float64).mean())) / max(scale, 1e-30)


def _first_difference(a: list[int], b: np.ndarray) -> int | None:
    """Index of the first element that differs, None where the shorter is a prefix of the longer."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
