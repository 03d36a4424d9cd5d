"""What parity asks of one session: a plan, and what each of its looks is for.

Tokens reach the cache in every way that there is: one by one, many at once in many lengths, in pieces, after a rewind,
and up to the last slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from smolship.runtime.digits import AT, IDS, has_digits, sketch_name
from smolship.runtime.engines import simulation
from smolship.runtime.plan import QUICK, Call, Plan, Text
from smolship.runtime.probes import LEAD, Probes
from smolship.runtime.session import INTERPRETER, Traits

SHORT = 32  # positions of each text in a quick run
FOLLOW = 4  # tokens fed one by one after a prefill: they see the cache that it left
STRETCH = 16  # neighbouring positions that are judged together
DEEP = 2048  # tokens in the cache, from which on devices are seen to go wrong that were right before
REWOUND = 96  # tokens of the comparison of a session with itself
# Kernels work in blocks of powers of two, and go wrong on both sides of a multiple. An engine's own are added.
BLOCKS = (16, 32, 64, 128, 256)
LONG = 200  # prefills above are made of two texts only
# (chunk, length): prompts that come in pieces, with a last one that is whole, short, or a single token
CHUNKS = ((3, 19), (5, 61), (7, 90), (16, 48), (32, 150), (63, 200), (100, 250))


@dataclass(frozen=True)
class Look:
    """What some of the positions that were looked at are for.

    stage, group  a stage is judged as a whole, and each of its groups by itself
    calls, rows   those rows of what the calls saw, one call after the other
    reference     the sketch that they are compared with, from its row `row` on
    column        where its ids begin among those wanted
    """

    stage: str
    group: str
    calls: tuple[int, ...]
    rows: slice
    reference: str
    row: int
    column: int = 0


@dataclass
class Asked:
    """The plan of one session. `name` is that of the target, or TARGET.ARITHMETIC, as in the probes."""

    head: Plan  # what is opened
    traits: Traits
    quick: bool
    texts: list[Text] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    layers: int = 0
    cache: tuple[np.ndarray, ...] = ()
    looks: list[Look] = field(default_factory=list)
    strings: tuple[str, ...] | None = None
    by_processor: str = ""  # the simulation of what the engine computes there, where the probes hold it

    @property
    def name(self) -> str:
        arithmetic = self.head.arithmetic or self.by_processor
        return ".".join(filter(None, (self.head.target, arithmetic)))

    @property
    def plan(self) -> Plan:
        return replace(
            self.head,
            texts=tuple(self.texts),
            calls=tuple(self.calls),
            layers=self.layers,
            cache=self.cache,
            strings=self.strings,
        )

    def text(self, ids: np.ndarray, at: np.ndarray, *wanted: np.ndarray) -> int:
        """Add a text, with the ids [P, K…] that are wanted at its positions `at`."""
        both = np.concatenate(wanted, axis=1)
        self.texts.append(Text(ids.astype(np.int32), at.astype(np.int32), both.astype(np.int32)))
        return len(self.texts) - 1

    def call(self, call: Call) -> int:
        self.calls.append(call)
        return len(self.calls) - 1


def ask(probes: Probes, head: Plan, traits: Traits, strings: tuple[str, ...] | None = None) -> Asked:
    """Everything that parity asks of the session that `head` opens, `strings` of its tokenizer among it."""
    asked = Asked(head, traits, head.purpose == QUICK, strings=strings)
    chosen = simulation(head.engine, traits.computes)
    if chosen in probes.arithmetics(head.target):
        asked.by_processor = chosen
    simulated, original = probes.sketches[f"{asked.name}.simulated"], probes.sketches["original"]
    for i, window in enumerate(probes.windows):
        rows, count = probes.rows(i), len(window.ids)
        following = np.maximum(window.following, 0)[:, None]
        asked.text(window.ids, np.arange(count), simulated.ids[rows], original.ids[rows], following)
    _decode(asked, probes)
    edge = _edge(asked, probes)
    _prefill(asked, probes, edge)
    _chunks(asked, probes)
    _itself(asked)
    if edge is not None:
        _end(asked, probes, edge)
    _digits(asked, probes)
    if not head.arithmetic:
        _greedy(asked, probes)
    _drift(asked, probes)
    return asked


def _decode(asked: Asked, probes: Probes) -> None:
    """Every window token by token."""
    simulated = f"{asked.name}.simulated"
    for i, window in enumerate(probes.windows):
        count = min(SHORT, len(window.ids)) if asked.quick else len(window.ids)
        calls = (asked.call(Call("token by token", i, 0, count, "all", rewind=0)),)
        row = probes.rows(i).start
        for at in range(0, count, STRETCH):
            group = f"positions {at:,} to {at + STRETCH - 1:,}"
            rows = slice(at, min(at + STRETCH, count))
            asked.looks.append(Look("decode", group, calls, rows, simulated, row + at))
        asked.looks.append(Look("windows", "", calls, slice(0, count), simulated, row))
        column = probes.sketches[simulated].ids.shape[1]
        asked.looks.append(Look("original", "", calls, slice(0, count), "original", row, column))


def _edge(asked: Asked, probes: Probes) -> int | None:
    """The text that fills the cache to its end, where there is one; or of which a few stretches are fed behind keys and
    values that are not its own, where filling the cache would take too long."""
    ids = probes.arrays.get("edge.ids")
    if ids is None:
        return None
    if LEAD in probes.arrays:
        states = probes.states(asked.name)
        if not asked.traits.presets or not states:
            return None
        asked.cache = tuple(states)
    return asked.text(ids, edge_positions(probes, asked.name), probes.sketches[f"{asked.name}.edge"].ids)


def _prefill(asked: Asked, probes: Probes, edge: int | None) -> None:
    """Prompts of many lengths at once. Each answers with its last logits, and with those of a few tokens after it,
    which see the cache that it wrote."""
    simulated = f"{asked.name}.simulated"
    for i, window in enumerate(probes.windows[: 2 if asked.quick else 4]):
        for length in lengths(asked.traits, len(window.ids), asked.quick):
            if i < 2 or length <= LONG:
                _prompt(asked, i, length, min(length + FOLLOW, len(window.ids)), simulated, probes.rows(i).start)
    # Positions a little beyond the windows, for chunks as long as they.
    if edge is not None and not asked.cache:
        text = asked.texts[edge]
        for run, row in _runs(text.at):
            if run[-1] < len(text.ids) - 1 and (not asked.quick or run[0] < max(own(asked.traits), default=0)):
                for length in (run[:-FOLLOW] + 1).tolist():
                    _prompt(asked, edge, length, length + FOLLOW, f"{asked.name}.edge", row - int(run[0]))
        if not asked.quick:
            _deep(asked, edge, f"{asked.name}.edge")


def _deep(asked: Asked, edge: int, reference: str) -> None:
    """The shortest prompt of at least DEEP tokens whose answer was simulated, all at once."""
    for run, row in _runs(asked.texts[edge].at):
        for length in (run[run >= DEEP - 1] + 1).tolist()[:1]:
            return _prompt(asked, edge, length, min(length + FOLLOW, int(run[-1]) + 1), reference, row - int(run[0]))


def _prompt(asked: Asked, text: int, length: int, stop: int, reference: str, row: int) -> None:
    """Prefill ids[:length] and feed a few tokens more; the row of position 0 would be `row`."""
    group, everything = f"length {length:,}", slice(0, stop)
    call = asked.call(Call("prefill", text, 0, length, rewind=0))
    asked.looks.append(Look("prefill", group, (call,), everything, reference, row + length - 1))
    if stop > length:
        call = asked.call(Call("prefill", text, length, stop, "all"))
        asked.looks.append(Look("after", group, (call,), everything, reference, row + length))


def _chunks(asked: Asked, probes: Probes) -> None:
    """Prompts in pieces; the last logits."""
    shapes = list(CHUNKS[:: 3 if asked.quick else 1])
    if not asked.quick:
        shapes += [shape for size in own(asked.traits) for shape in ((size - 1, 2 * size), (size, 2 * size + 1))]
    for i, window in enumerate(probes.windows[: 1 if asked.quick else 4]):
        for chunk, whole in shapes:
            length = min(whole, len(window.ids))
            for start in range(0, length, chunk):
                stop, last = min(start + chunk, length), start + chunk >= length
                call = Call("chunks", i, start, stop, "last" if last else "none", None if start else 0)
                asked.call(call)
            group, row = f"{length:,} in chunks of {chunk:,}", probes.rows(i).start + length - 1
            calls = (len(asked.calls) - 1,)
            asked.looks.append(Look("chunks", group, calls, slice(0, 1), f"{asked.name}.simulated", row))


def _itself(asked: Asked) -> None:
    """The same tokens in the same calls, twice from the start, and once after others that were taken back."""
    ids = asked.texts[0].ids
    count = min(len(ids), asked.traits.capacity, REWOUND)
    half = count // 2
    stray = len(asked.texts)
    asked.texts.append(Text.plain(ids[half:count][::-1]))
    for stage in ("cold", "again", "rewound"):
        if stage == "rewound":
            asked.call(Call(stage, stray, 0, count - half, "none", rewind=half))
        elif half:
            asked.call(Call(stage, 0, 0, half, "none", rewind=0))
        back = half if stage == "rewound" or not half else None
        call = asked.call(Call(stage, 0, half, count, "all", rewind=back, exact=True))
        asked.looks.append(Look(stage, "", (call,), slice(0, count), f"{asked.name}.simulated", half))


def _end(asked: Asked, probes: Probes, edge: int) -> None:
    """Fill the cache to its end, and stop at some positions on the way and at each of the last few. Where the cache is
    preset, only some tokens before each stop are fed."""
    text, done, reference = asked.texts[edge], 0, f"{asked.name}.edge"
    for run, row in _runs(text.at):
        first, stop = int(run[0]), int(run[-1]) + 1
        if asked.cache:
            done = max(first - int(probes.arrays[LEAD][0]), 0)
            call = Call("the cache's end", edge, done, first + 1, preset=done)
        else:
            call = Call("the cache's end", edge, done, first + 1, rewind=None if done else 0)
        calls = [asked.call(call)]
        if stop > first + 1:
            calls.append(asked.call(Call("the cache's end", edge, first + 1, stop, "all")))
        done, last = stop, stop == len(text.ids)
        if not last:
            group = f"positions {first:,} to {stop - 1:,}"
            asked.looks.append(Look("end", group, tuple(calls), slice(0, stop - first), reference, row))
            continue
        asked.looks.append(Look("last", "", tuple(calls), slice(0, stop - first), reference, row))
        for i in range(stop - first):
            look = Look("end", f"position {first + i:,}", tuple(calls), slice(i, i + 1), reference, row + i)
            asked.looks.append(look)


def _digits(asked: Asked, probes: Probes) -> None:
    """Numbers that are said again: what is before the first digit of the repeat at once, the rest token by token."""
    if not has_digits(probes, asked.name):
        return
    ids, first, last = probes.arrays[IDS], int(probes.arrays[AT][0]), int(probes.arrays[AT][-1])
    if len(ids) > asked.traits.capacity:
        return
    at, reference = np.arange(first, last + 1), sketch_name(asked.name)
    text = asked.text(ids, at, probes.sketches[reference].ids, ids[at + 1, None])
    calls = [asked.call(Call("digits", text, 0, first + 1, rewind=0))]
    if last > first:
        calls.append(asked.call(Call("digits", text, first + 1, last + 1, "all")))
    asked.looks.append(Look("digits", "", tuple(calls), slice(0, len(at)), reference, 0))


def _greedy(asked: Asked, probes: Probes) -> None:
    """Greedy continuations of chat prompts."""
    for i in range(sum(name.startswith("greedy.prompt.") for name in probes.arrays)):
        prompt, original = probes.arrays[f"greedy.prompt.{i}"], probes.arrays[f"greedy.original.{i}"]
        first = len(prompt)
        more = min(len(original) - 1, asked.traits.capacity - first)
        at = np.arange(first - 1, first + more)
        text = asked.text(np.concatenate([prompt, original]), at, original[: len(at), None])
        calls = [asked.call(Call("greedy", text, 0, first, rewind=0))]
        if more:
            calls.append(asked.call(Call("greedy", text, first, first + more, "all", greedy=True)))
        asked.looks.append(Look("greedy", str(i), tuple(calls), slice(0, len(at)), "", 0))


def _drift(asked: Asked, probes: Probes) -> None:
    """The states of the first tokens."""
    if states := probes.states(asked.name):
        asked.call(Call("layers", 0, 0, states[0].shape[1], "none", rewind=0))
        asked.layers = len(states)


def edge_positions(probes: Probes, name: str) -> np.ndarray:
    """The positions of a full cache that were simulated; an older export has the last ones and does not say so."""
    count, sketch = len(probes.arrays["edge.ids"]), probes.sketches[f"{name}.edge"]
    return probes.arrays.get("edge.at", np.arange(count - len(sketch.lse), count))


def own(traits: Traits) -> list[int]:
    """Lengths at which the engine computes otherwise, by its own account."""
    return sorted({size for size in (traits.chunk or 0, *traits.blocks) if size > 1})


def lengths(traits: Traits, longest: int, quick: bool) -> list[int]:
    """Prompt lengths that are prefilled: short ones, and both sides of each block."""
    found = {1, 2, 3, 7, 100, longest - 1, longest}
    blocks = [*BLOCKS, *own(traits), *(2 * size for size in own(traits))]
    if quick:  # an interpreter takes a tenth of a second for each token
        found = {1, 2, 16, 31, 32, 33, 64, 128} | (set() if traits.runtime == INTERPRETER else {100, 255, 256})
        blocks = own(traits)
        found |= {2 * size + 1 for size in blocks}
    found |= {size + side for size in blocks for side in (-1, 0, 1)}
    return sorted(n for n in found if 1 <= n <= longest)


def _runs(at: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Ascending positions, cut where they do not follow one another; with the row of the first."""
    row = 0
    for run in np.split(at, np.flatnonzero(np.diff(at) != 1) + 1):
        if len(run):
            yield run, row
        row += len(run)
