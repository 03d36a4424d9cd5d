"""Making the golden probes: the original, our decoder and each target's simulation over real text.

They are made in units, each some passes over one set of weights, a layer at a time (stream.py). Where there is a
folder to keep them in, a unit that ended is found there, and one that was interrupted goes on at its last layer.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from smolship.export.checkpoints import Checkpoint
from smolship.export.digits import digit_flows, repeated_digits, take_digits
from smolship.export.forecast.costs import PASSES
from smolship.export.kept_units import KeptUnits
from smolship.export.late import LEAD_IN, Summing, late_flows, late_logits, late_positions
from smolship.export.long_text import is_filled, repeated, spread
from smolship.export.noise import Noisy
from smolship.export.numerics import Numerics
from smolship.export.original import Original
from smolship.export.passes import Pass, run_passes
from smolship.export.reference import Held, Reference
from smolship.export.stream import Flow, Progress, Saved, continuations
from smolship.export.templates import DATE
from smolship.export.weights import Source, Weights
from smolship.export.windows import make_windows
from smolship.runtime.digits import IDS
from smolship.runtime.errors import InputError
from smolship.runtime.parity import relative
from smolship.runtime.probes import FILLED, LEAD, Gap, Probes, Sketch
from smolship.runtime.template import ChatTemplate
from smolship.runtime.tokenizer import Tokenizer

FAR = 16  # the original reads one text of so many times the positions that are probed, up to FILLED
DRIFT = 32  # tokens whose keys and values are kept
GREEDY = 32  # tokens of each greedy continuation
READING = 100  # positions that are computed in the time in which all weights are read for one token, about
PROMPTS = (
    "What is the capital of France? Answer in one sentence.",
    "Write a Python function that returns the n-th Fibonacci number.",
)
Arithmetic = Callable[[str], Numerics]  # of each linear, by its name


@dataclass(frozen=True)
class Unit:
    """A part of the probes that is made, timed and kept as one.

    work  positions that pass through the whole model, about
    make  puts it into probes of its own; what it saves between layers goes to `Saved`
    """

    name: str
    label: str
    work: float
    make: Callable[[Probes, Progress, Saved], None]


def make_probes(
    checkpoint: Checkpoint,
    weights: Weights,
    targets: Mapping[str, Arithmetic],
    context: int,
    tokens: int,
    text: str | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    own: Mapping[str, Weights] = MappingProxyType({}),
    template: ChatTemplate | None = None,
    notes: list[str] | None = None,
    kept: Path | None = None,
    translated: Callable[[Probes], None] = lambda probes: None,
) -> Probes:
    """Probes for `targets` (name -> numerics of each linear); about `tokens` positions.

    own         the sets of weights of targets that could not hold `weights` as they are
    template    what prompts go through; where it refuses them, `notes` say so
    kept        a folder for these probes alone, whatever the targets
    translated  is called with what there is as soon as our decoder was compared with the original: it may raise

    The floors and the noise that bounds derive from are measured on every other window: they need no such precision.
    """
    notes = [] if notes is None else notes
    tokenizer = Tokenizer(checkpoint.files["tokenizer.json"])
    windows = make_windows(tokenizer, context, tokens, text)
    probes = Probes(windows, {"tokens": tokens, "torch": torch.__version__, "date": DATE})
    prompts = _prompts(template, tokenizer, context, notes)
    making = _Making(checkpoint, context, probes, prompts, min(context, FILLED, FAR * tokens))
    making.digits = repeated_digits(tokenizer, context)
    units = [making.original(), making.decoder(), making.noise(weights), making.quantized(weights)]
    sets = {name: own.get(name, weights) for name in targets}
    rerounded = [name for name in targets if sets[name] is not weights]
    for name in sorted(targets, key=lambda name: name in rerounded):
        units += making.target(name, targets[name], weights, sets[name])
    units += making.greedy([name for name in targets if name not in rerounded], targets, weights)
    for name in rerounded:
        units += making.greedy([name], targets, sets[name])
    done, total, store = 0.0, sum(unit.work for unit in units), KeptUnits(kept, windows)
    for unit in units:
        part = store.find(unit.name)
        if part is None:
            begin, part, passed = time.monotonic(), Probes(windows), 0.0
            progress(unit.label, int(done), int(total))

            def more(positions: float, unit: Unit = unit, start: float = done) -> None:
                nonlocal passed
                passed += positions
                progress(unit.label, int(start + min(passed, unit.work)), int(total))

            with torch.inference_mode():
                unit.make(part, more, store.saved(unit.name))
            part.facts["seconds"] = {unit.label: round(time.monotonic() - begin, 1)}
            store.keep(unit.name, part)
        done += unit.work
        making.take(part)
        if unit.name == "decoder":
            translated(probes)
    notes += probes.facts.pop("notes", [])
    progress("done", int(total), int(total))
    return probes


class _Making:
    """The units of one set of probes, and what they share: `known`, the sketches of those that are done."""

    def __init__(self, checkpoint: Checkpoint, context: int, probes: Probes, prompts: list[list[int]], far: int):
        self.checkpoint, self.config, self.context = checkpoint, checkpoint.config, context
        self.probes, self.prompts, self.windows = probes, prompts, probes.windows
        self.every = list(range(len(self.windows)))
        self.some = self.every[::4] + self.every[1::4]  # of English and of code alike
        self.known: dict[str, Sketch] = {}
        self.digits: dict[str, np.ndarray] = {}  # digits.py
        self.far = self._text(far)
        self.edge = self._text(context) if is_filled(self.config, context) else None
        self.end = repeated(self.windows, context)  # what is read at the end of the cache, filled or not
        self.at = spread(context) if self.edge is not None else late_positions(context)

    def _text(self, length: int) -> np.ndarray:
        """A text of that length, which begins with the first window."""
        return repeated(self.windows, max(length, len(self.windows[0].ids)))

    def take(self, part: Probes) -> None:
        """Put what a unit made to the rest."""
        self.known |= part.sketches
        self.probes.gaps |= part.gaps
        self.probes.arrays |= part.arrays
        stay = ("original", ".simulated", ".edge", ".digits")
        self.probes.sketches |= {name: sketch for name, sketch in part.sketches.items() if name.endswith(stay)}
        seconds, more = self.probes.facts.setdefault("seconds", {}), part.facts.pop("seconds", {})
        seconds |= {label: round(seconds.get(label, 0) + more[label], 1) for label in more}  # continuations are several
        for name, facts in part.facts.items():
            self.probes.facts[name] = facts if isinstance(facts, list) else self.probes.facts.get(name, {}) | facts

    def original(self) -> Unit:
        def make(part: Probes, progress: Progress, saved: Saved) -> None:
            model = Original(self.checkpoint, progress, self.context)
            part.facts["notes"] = model.notes
            for i, ids in enumerate(model.continuations(self.prompts, GREEDY, READING)):
                part.arrays[f"greedy.prompt.{i}"] = np.array(self.prompts[i], np.int32)
                part.arrays[f"greedy.original.{i}"] = ids
            first, *rest = self.windows
            at = spread(len(self.far))
            (pieces,) = model.logits(self.far[None], np.concatenate([np.arange(len(first.ids)), at]))
            long = Sketch.of_pieces(pieces, np.concatenate([first.following, np.full(len(at), -1)]))
            found, part.sketches["far"] = [long[: len(first.ids)]], long[len(first.ids) :]
            if rest:
                ids = np.stack([window.ids for window in rest])
                texts = zip(rest, model.logits(ids, np.arange(ids.shape[1])), strict=True)
                found += [Sketch.of_pieces(pieces, window.following) for window, pieces in texts]
            part.sketches["original"] = Sketch.join(found)
            del model
            gc.collect()  # its modules refer to one another

        return Unit("original", "original", self._work(self.every, self.far) + GREEDY * READING, make)

    def decoder(self) -> Unit:
        def make(part: Probes, progress: Progress, saved: Saved) -> None:
            ops = self._arithmetics(self.checkpoint)
            near = Pass("decoder", ops(), "original", self.every, sketch=True, long=self.far)
            run_passes([near, Pass("decoder.ulp", ops(ulp=1), "decoder", self.some)], part, self.known, progress, saved)
            part.arrays["far.at"] = at = spread(len(self.far))
            far, nothing = self.known["far"], np.full(len(at), -1)
            gaps = [Gap.between(far[rows], logits, nothing[rows]) for rows, logits in near.beyond(at)]
            part.gaps["decoder.far"] = Gap.join(gaps)

        return Unit("decoder", "our decoder", self._work(self.every, self.far) + self._work(self.some), make)

    def noise(self, weights: Weights) -> Unit:
        source = Noisy(self.checkpoint, weights)
        return self._passes("noise", "weights with noise", source, [("quantized.noise", "original", self.some)])

    def quantized(self, weights: Weights) -> Unit:
        return self._passes("quantized", "quantized weights", weights, [("quantized", "original", self.every)])

    def _passes(self, name: str, label: str, source: Source, passes: list[tuple[str, str, list[int]]]) -> Unit:
        """Float32 passes over a source: (gap, the sketch that it is compared with, windows)."""

        def make(part: Probes, progress: Progress, saved: Saved) -> None:
            ops = self._arithmetics(source)
            all_of = [Pass(gap, ops(), against, of, sketch=of is self.every) for gap, against, of in passes]
            run_passes(all_of, part, self.known, progress, saved)

        return Unit(name, label, sum(self._work(of) for _, _, of in passes), make)

    def target(self, name: str, numerics: Arithmetic, weights: Weights, own: Weights) -> list[Unit]:
        """The simulation of an arithmetic; its weights first, where they are its own."""
        against, units = "quantized", []
        if own is not weights:
            noisy, against = Noisy(weights, own), f"{name}.rerounded"
            noise = [(f"{against}.noise", "quantized", self.some)]
            units += [self._passes(f"{against}.noise", f"{name}, weights with noise", noisy, noise)]
            units += [self._passes(against, f"{name}, rounded again", own, [(against, "quantized", self.every)])]

        def make(part: Probes, progress: Progress, saved: Saved) -> None:
            ops, first = self._arithmetics(own), self.windows[0].ids[:DRIFT]
            simulated = Pass(
                f"{name}.simulated", ops(numerics), against, self.every, sketch=True, long=self.edge, keep=len(first)
            )
            ulp = Pass(f"{name}.ulp", ops(numerics, 2), simulated.name, self.some)
            noise = Pass(f"{name}.noise", ops(_dithered(numerics)), against, self.some)
            moved = Flow(ops(numerics, 4), first, keep=len(first))
            others, late, swayed = [moved], [], []
            if self.edge is None:
                begun = Flow(ops(numerics), first, keep=len(first))  # through each layer before those behind it
                late = late_flows(ops(numerics), self.end, self.at, begun)
                swayed = late_flows(ops(numerics, 2, kind=Summing), self.end, self.at, begun)
                others += [begun, *late, *swayed]
            digits = digit_flows(self.digits, [simulated.ops, ulp.ops])
            run_passes([simulated, ulp, noise], part, self.known, progress, saved, [*others, *digits])
            part.arrays["edge.ids"], part.arrays["edge.at"], nothing = self.end, self.at, np.full(len(self.at), -1)
            if self.edge is not None:
                pieces = (logits for _, logits in simulated.beyond(self.at))
                part.sketches[f"{name}.edge"] = Sketch.of_pieces(pieces, nothing)
            else:
                part.arrays[LEAD] = np.array([LEAD_IN])
                part.sketches[f"{name}.edge"] = Sketch.of(late_logits(late, self.at), nothing)
                between = Gap.between(part.sketches[f"{name}.edge"], late_logits(swayed, self.at), nothing)
                part.gaps[f"{name}.edge.ulp"] = between
            take_digits(part, name, self.digits, digits)
            simulated.ops.forget()
            ulp.ops.forget()
            _drift(part, name, simulated.flows[0], moved)

        positions = self._work(self.every, self.edge) + 2 * self._work(self.some) + DRIFT
        positions += 2 * len(self.digits.get(IDS, ()))
        return [*units, Unit(name, f"{name}, simulated", positions, make)]

    def greedy(self, names: Sequence[str], targets: Mapping[str, Arithmetic], weights: Weights) -> list[Unit]:
        """Continuations of the prompts in arithmetics over the same weights, which are read once for all of them."""
        found: dict[str, np.ndarray] = {}

        names = [name for name in names if "." not in name]  # parity asks nothing of an engine's other arithmetics

        def make(name: str, part: Probes, progress: Progress, saved: Saved) -> None:
            if not found:
                ops = self._arithmetics(weights)
                missing = [name for name in names if f"greedy.{name}.0" not in self.probes.arrays]
                drafts = [self.probes.arrays[f"greedy.original.{i}"] for i in range(len(self.prompts))]
                read = partial(progress, READING)
                drafts = continuations([ops()], self.prompts, drafts, read)  # near to what all of them say
                # Weights in fp16 are rounded from those in float32, if they were read before them.
                asked = sorted(((name, ops(targets[name])) for name in missing), key=lambda one: one[1].half)
                answers = continuations([one for _, one in asked], self.prompts, drafts, read)
                keys = [f"greedy.{name}.{i}" for name, _ in asked for i in range(len(self.prompts))]
                found.update(zip(keys, answers, strict=True))
            part.arrays |= {key: ids for key, ids in found.items() if key.startswith(f"greedy.{name}.")}

        work = {name: 0 if i else PASSES * READING for i, name in enumerate(names)}
        return [Unit(f"greedy.{name}", "continuations", work[name], partial(make, name)) for name in names]

    def _arithmetics(self, source: Source) -> Callable[..., Reference]:
        """Makes references over one source, whose tensors they share."""
        held = Held(source, self.config.shapes())
        return lambda *of, kind=Reference, **options: kind(self.config, held, self.context, *of, **options)

    def _work(self, of: Sequence[int], long: np.ndarray | None = None) -> int:
        """Positions of a pass over windows, the first of which a long text may take in."""
        lengths = {i: len(self.windows[i].ids) for i in of}
        return sum((lengths if long is None else lengths | {0: len(long)}).values())


def _dithered(numerics: Arithmetic) -> Arithmetic:
    return lambda name: replace(numerics(name), dither=3)


def _prompts(template: ChatTemplate | None, tokenizer: Tokenizer, context: int, notes: list[str]) -> list[list[int]]:
    """Prompts through the template, raw where there is none or it cannot be rendered for them; those that fit."""
    found: list[list[int]] = []
    for prompt in PROMPTS:
        ids: list[int] = []
        if template:
            try:
                ids = tokenizer.encode(template.render([{"role": "user", "content": prompt}]), special=False)
            except InputError as error:
                why = str(error).partition("got:")[2].strip()
                notes.append(f"parity's prompts go without the chat template, which refuses them: {why}")
                template = None
        ids = ids or tokenizer.encode(prompt)
        if 0 < len(ids) <= context - GREEDY:
            found.append(ids)
    return found


def _drift(part: Probes, name: str, simulated: Flow, moved: Flow) -> None:
    """The states of the first tokens, and how far one ulp moves them, layer by layer."""
    attended = [layer for layer in simulated.kept if len(layer) == 2]
    heads = np.array([keys.shape[1:] for keys, _ in attended])  # [L, 2]: G, K
    for side, what in enumerate(("keys", "values")):
        arrays = [layer[side] for layer in attended]
        more = [[(0, 0), *((0, most - size) for most, size in zip(heads.max(0), own, strict=True))] for own in heads]
        part.arrays[f"drift.{name}.{what}"] = np.stack([*map(np.pad, arrays, more)])
    if (heads != heads[0]).any():
        part.arrays[f"drift.{name}.heads"] = heads
    if convolved := [i for i, layer in enumerate(simulated.kept) if len(layer) == 1]:
        part.arrays[f"drift.{name}.convolutions"] = np.array(convolved)
        part.arrays[f"drift.{name}.inputs"] = np.stack([simulated.kept[i][0] for i in convolved])
    layers = zip(simulated.kept, moved.kept, strict=True)
    part.arrays[f"drift.{name}.floor"] = np.array([relative(np.stack(a), np.stack(b)) for a, b in layers])
