"""Making the golden probes: run the original, our decoder and each target's simulation over real text.

One model at a time is in memory: each pass compares its full logits with the sketches of an earlier one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from smolship.export.checkpoints import Checkpoint
from smolship.export.long_text import at_positions, in_steps, repeated, spread
from smolship.export.nonfinite import Watched
from smolship.export.numerics import Numerics
from smolship.export.original import original
from smolship.export.reference import Reference, run
from smolship.export.templates import DATE
from smolship.export.weights import Source, Weights
from smolship.export.windows import make_windows
from smolship.runtime.errors import InputError
from smolship.runtime.parity import relative
from smolship.runtime.probes import FILLED, Gap, Probes, Sketch, Window
from smolship.runtime.template import ChatTemplate
from smolship.runtime.tokenizer import Tokenizer

EDGE_LIMIT = FILLED  # longer caches are not filled
FAR = 16  # the original reads one text of so many times the positions that are probed, up to EDGE_LIMIT
DRIFT = 32  # tokens whose keys and values are kept
GREEDY = 32  # tokens of each greedy continuation
PROMPTS = (
    "What is the capital of France? Answer in one sentence.",
    "Write a Python function that returns the n-th Fibonacci number.",
)


class InMemory:
    """A source in memory: passes over the same weights share one float32 copy of them."""

    def __init__(self, source: Source):
        self.source = source
        self.copies: dict[str, np.ndarray] = {}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        if name not in self.copies:
            self.copies[name] = self.source.read(name)
        return self.copies[name][start:stop]


class Noisy:
    """A source of the checkpoint's values, each moved by uniform noise as wide as the step of the grid that holds it
    (int4, int8 or fp16): what rounding would cost if it were no better and no worse than noise. Values that the grid
    holds exactly stay as they are."""

    def __init__(self, checkpoint: Source, weights: Weights):
        self.checkpoint, self.weights = checkpoint, weights

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        values = self.checkpoint.read(name, start, stop)
        if self.weights.quantized(name):
            q = self.weights.tensor(name, start, stop)
            held, step = q.dequantize(), np.repeat(q.scales, q.group, axis=1)
        else:
            held = self.weights.values(name, start, stop)
            step = np.spacing(np.abs(held).astype(np.float16)).astype(np.float32)
        noise = np.random.default_rng(zlib.crc32(name.encode())).uniform(-0.5, 0.5, values.shape).astype(np.float32)
        return np.where(held == values, values, values + noise * step)


def make_probes(
    checkpoint: Checkpoint,
    weights: Weights,
    targets: dict[str, Callable[[str], Numerics]],
    context: int,
    tokens: int,
    text: str | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    own: Mapping[str, Weights] = MappingProxyType({}),
    template: ChatTemplate | None = None,
    notes: list[str] | None = None,
) -> Probes:
    """Probes for `targets` (name -> numerics of each linear); about `tokens` positions. `own` are the sets of weights
    of targets that could not hold `weights` as they are. Prompts go through `template`; where it refuses them, `notes`
    say so.

    The floors and the noise that bounds derive from are measured on every other window: they need no such precision.
    """
    config = checkpoint.config
    tokenizer = Tokenizer(checkpoint.files["tokenizer.json"])
    windows = make_windows(tokenizer, context, tokens, text)
    probes = Probes(windows, {"tokens": tokens, "torch": torch.__version__, "date": DATE})
    prompts = _prompts(template, tokenizer, context, [] if notes is None else notes)
    every = list(range(len(windows)))
    some = every[::4] + every[1::4]  # of English and of code alike
    rerounded = [name for name in targets if own.get(name, weights) is not weights]
    total = len(every) * (3 + len(targets) + len(rerounded)) + len(some) * (2 + 2 * len(targets) + len(rerounded))
    done = [0]

    def passes(what: str, forward: Callable[[Window], np.ndarray], of: list[int] = every) -> Iterator[np.ndarray]:
        for i in of:
            progress(what, done[0], total)
            yield forward(windows[i])
            done[0] += 1

    def decoder(source: Source, numerics: Any = Numerics(), ulp: int | None = None) -> Ours:
        return Ours(lambda kind: kind(config, source, context, numerics, ulp))

    def against(name: str, reference: Sketch, what: str, forward: Ours, of: list[int] = some) -> None:
        """Measure the gap `name`."""
        rows = zip(of, passes(what, forward, of), strict=True)
        probes.gaps[name] = Gap.join([Gap.between(reference[probes.rows(i)], x, windows[i].following) for i, x in rows])
        forward.explain(probes, name, of)

    def both(name: str, reference: Sketch, what: str, forward: Ours) -> Sketch:
        """Measure the gap `name` in every window, and keep a sketch of what was compared."""
        sketches, gaps = [], []
        for i, x in zip(every, passes(what, forward), strict=True):
            sketches.append(Sketch.of(x, windows[i].following))
            gaps.append(Gap.between(reference[probes.rows(i)], x, windows[i].following))
        probes.gaps[name] = Gap.join(gaps)
        forward.explain(probes, name, every)
        return Sketch.join(sketches)

    progress("original", 0, total)
    long = repeated(windows, min(context, EDGE_LIMIT, FAR * tokens))
    forward, far = _transformers(checkpoint, prompts, probes, long)
    logits = passes("original", forward)
    first = Sketch.join([Sketch.of(x, window.following) for window, x in zip(windows, logits, strict=True)])
    probes.sketches["original"] = first
    del forward  # and with it the model
    loaded = InMemory(checkpoint)
    ours = both("decoder", first, "our decoder", decoder(loaded))
    progress("our decoder, far positions", done[0], total)
    _far(probes, far, Reference(config, loaded, context), long)
    against("decoder.ulp", ours, "our decoder, moved by an ulp", decoder(loaded, ulp=1))
    loaded = InMemory(Noisy(checkpoint, weights))
    against("quantized.noise", first, "weights with noise", decoder(loaded))
    loaded = InMemory(weights)
    shared = quantized = both("quantized", first, "quantized weights", decoder(loaded))
    for name in sorted(targets, key=lambda name: name in rerounded):
        numerics = targets[name]
        if name in rerounded:  # its own weights take the place of the others, one copy at a time
            loaded = InMemory(Noisy(weights, own[name]))
            against(f"{name}.rerounded.noise", shared, f"{name}, weights with noise", decoder(loaded))
            loaded = InMemory(own[name])
            quantized = both(f"{name}.rerounded", shared, f"{name}, rounded again", decoder(loaded))
        simulated = both(f"{name}.simulated", quantized, f"{name}, simulated", decoder(loaded, numerics))
        probes.sketches[f"{name}.simulated"] = simulated
        against(f"{name}.ulp", simulated, f"{name}, moved by an ulp", decoder(loaded, numerics, ulp=2))
        against(f"{name}.noise", quantized, f"{name}, with noise", decoder(loaded, _dithered(numerics)))
        _drift(probes, name, lambda ulp, n=numerics, w=loaded: Reference(config, w, context, n, ulp), windows[0])  # type: ignore[misc]
        ops = Reference(config, loaded, context, numerics)
        for i, prompt in enumerate(prompts):
            probes.arrays[f"greedy.{name}.{i}"] = _greedy(ops, prompt)
        if context <= EDGE_LIMIT:
            progress(f"{name}, the cache's end", done[0], total)
            _edge(probes, name, ops, context)
    progress("done", total, total)
    return probes


Forward = Callable[[Window], np.ndarray]  # -> float32 [S, V]


class Ours:
    """Our decoder, as `make` makes it, over windows."""

    def __init__(self, make: Callable[[type[Reference]], Reference]):
        self.make, self.ops = make, make(Reference)

    def __call__(self, window: Window) -> np.ndarray:
        return in_steps(self.ops, window.ids)

    def explain(self, probes: Probes, name: str, of: list[int]) -> None:
        """Put the operator that made the first infinity or NaN of the gap `name` into the facts; `of` are its
        windows."""
        rows = np.isfinite(probes.gaps[name].kl)
        for i in of:
            count = len(probes.windows[i].ids)
            if not rows[:count].all():
                ops = self.make(Watched)
                assert isinstance(ops, Watched)
                in_steps(ops, probes.windows[i].ids)
                probes.facts.setdefault("nonfinite", {})[name] = ops.first
                return
            rows = rows[count:]


def _transformers(
    checkpoint: Checkpoint, prompts: list[list[int]], probes: Probes, long: np.ndarray
) -> tuple[Forward, Sketch]:
    """The original's logits, and its sketch of the long text; its greedy continuations are put into the probes on the
    way."""
    model = original(checkpoint)
    for i, prompt in enumerate(prompts):
        probes.arrays[f"greedy.prompt.{i}"] = np.array(prompt, np.int32)
        probes.arrays[f"greedy.original.{i}"] = _greedy_original(model, prompt)

    def logits(ids: np.ndarray, keep: Any = 0) -> np.ndarray:
        with torch.inference_mode():
            found = model(torch.from_numpy(ids[None].astype(np.int64)), use_cache=False, logits_to_keep=keep).logits
        return np.asarray(found[0].numpy())

    at = spread(len(long))
    far = Sketch.of(logits(long, torch.from_numpy(at.astype(np.int64))), np.full(len(at), -1))
    return lambda window: logits(window.ids), far


def _far(probes: Probes, far: Sketch, ops: Reference, long: np.ndarray) -> None:
    """Our decoder against the original at the end of a long text: rotary tables show there, not in the windows."""
    at = spread(len(long))
    probes.arrays["far.at"] = at
    probes.gaps["decoder.far"] = Gap.between(far, at_positions(ops, long, at), np.full(len(at), -1))


def _edge(probes: Probes, name: str, ops: Reference, context: int) -> None:
    """The simulation of a full cache: on the way, and at the last positions, where rotary tables and buffers end."""
    ids, at = repeated(probes.windows, context), spread(context)
    probes.arrays["edge.ids"], probes.arrays["edge.at"] = ids, at
    probes.sketches[f"{name}.edge"] = Sketch.of(at_positions(ops, ids, at), np.full(len(at), -1))


def _dithered(numerics: Callable[[str], Numerics]) -> Callable[[str], Numerics]:
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


def _greedy_original(model: Any, prompt: list[int]) -> np.ndarray:
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=GREEDY,
            min_new_tokens=GREEDY,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            temperature=None,
            top_p=None,
            top_k=None,
        )
    return out[0, len(prompt) :].numpy().astype(np.int32)


def _greedy(ops: Reference, prompt: list[int]) -> np.ndarray:
    logits = run(ops.config, ops, prompt)[-1]
    ids: list[int] = []
    for position in range(len(prompt), len(prompt) + GREEDY):
        ids.append(int(logits.argmax()))
        logits = run(ops.config, ops, ids[-1:], position)[-1]
    return np.array(ids, np.int32)


def _drift(probes: Probes, name: str, make: Callable[[int | None], Reference], window: Window) -> None:
    """Keys and values of the first tokens, and how far one ulp moves them, layer by layer."""
    count = min(DRIFT, len(window.ids))
    caches = []
    for ulp in (None, 4):
        ops = make(ulp)
        run(ops.config, ops, window.ids[:count].tolist())
        caches.append([np.stack([t[0, :count].numpy() for t in side]) for side in (ops.k, ops.v)])
    (keys, values), (moved_keys, moved_values) = caches
    probes.arrays[f"drift.{name}.keys"], probes.arrays[f"drift.{name}.values"] = keys, values
    probes.arrays[f"drift.{name}.floor"] = np.array(
        [relative(np.stack([keys[i], values[i]]), np.stack([moved_keys[i], moved_values[i]])) for i in range(len(keys))]
    )
