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

from smolship.export.checkpoint import Checkpoint
from smolship.export.original import original
from smolship.export.reference import Numerics, Reference, run
from smolship.export.templates import DATE
from smolship.export.weights import Source, Weights
from smolship.export.windows import make_windows
from smolship.runtime.errors import InputError
from smolship.runtime.parity import relative
from smolship.runtime.probes import Gap, Probes, Sketch, Window
from smolship.runtime.template import ChatTemplate
from smolship.runtime.tokenizer import Tokenizer

EDGE = 16  # positions probed at the very end of the cache
EDGE_LIMIT = 8192  # longer contexts are not filled: a forward over the whole of them would take too long
STEP = 512  # positions run at once: logits of more would not fit into memory for large vocabularies
DRIFT = 32  # tokens whose keys and values are kept
GREEDY = 32  # tokens of each greedy continuation
PROMPTS = ("What is the capital of France? Answer in one sentence.",
           "Write a Python function that returns the n-th Fibonacci number.")  # fmt: skip


class Held:
    """A source in memory: passes over the same weights share one float32 copy of them."""

    def __init__(self, source: Source):
        self.source = source
        self.held: dict[str, np.ndarray] = {}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        if name not in self.held:
            self.held[name] = self.source.read(name)
        return self.held[name][start:stop]


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

    def decoder(source: Source, numerics: Any = Numerics(), ulp: int | None = None) -> Forward:
        ops = Reference(config, source, context, numerics, ulp)
        return lambda window: _in_steps(ops, window.ids)

    def against(reference: Sketch, what: str, forward: Forward, of: list[int] = every) -> Gap:
        rows = zip(of, passes(what, forward, of), strict=True)
        return Gap.join([Gap.between(reference[probes.rows(i)], x, windows[i].following) for i, x in rows])

    def both(reference: Sketch, what: str, forward: Forward) -> tuple[Sketch, Gap]:
        sketches, gaps = [], []
        for i, x in zip(every, passes(what, forward), strict=True):
            sketches.append(Sketch.of(x, windows[i].following))
            gaps.append(Gap.between(reference[probes.rows(i)], x, windows[i].following))
        return Sketch.join(sketches), Gap.join(gaps)

    progress("original", 0, total)
    logits = passes("original", _transformers(checkpoint, prompts, probes))
    first = Sketch.join([Sketch.of(x, window.following) for window, x in zip(windows, logits, strict=True)])
    probes.sketches["original"] = first
    held = Held(checkpoint)
    ours, probes.gaps["decoder"] = both(first, "our decoder", decoder(held))
    probes.gaps["decoder.ulp"] = against(ours, "our decoder, moved by an ulp", decoder(held, ulp=1), some)
    held = Held(Noisy(checkpoint, weights))
    probes.gaps["quantized.noise"] = against(first, "weights with noise", decoder(held), some)
    held = Held(weights)
    shared, probes.gaps["quantized"] = both(first, "quantized weights", decoder(held))
    quantized = shared
    for name in sorted(targets, key=lambda name: name in rerounded):
        numerics = targets[name]
        if name in rerounded:  # its own weights take the place of the others, one copy at a time
            held = Held(Noisy(weights, own[name]))
            probes.gaps[f"{name}.rerounded.noise"] = against(shared, f"{name}, weights with noise", decoder(held), some)
            held = Held(own[name])
            quantized, probes.gaps[f"{name}.rerounded"] = both(shared, f"{name}, rounded again", decoder(held))
        simulated, probes.gaps[f"{name}.simulated"] = both(quantized, f"{name}, simulated", decoder(held, numerics))
        probes.sketches[f"{name}.simulated"] = simulated
        moved, noise = decoder(held, numerics, ulp=2), decoder(held, _dithered(numerics))
        probes.gaps[f"{name}.ulp"] = against(simulated, f"{name}, moved by an ulp", moved, some)
        probes.gaps[f"{name}.noise"] = against(quantized, f"{name}, with noise", noise, some)
        _drift(probes, name, lambda ulp, n=numerics, w=held: Reference(config, w, context, n, ulp), windows[0])  # type: ignore[misc]
        ops = Reference(config, held, context, numerics)
        for i, prompt in enumerate(prompts):
            probes.arrays[f"greedy.{name}.{i}"] = _greedy(ops, prompt)
        if context <= EDGE_LIMIT:
            progress(f"{name}, the cache's end", done[0], total)
            _edge(probes, name, ops, context)
    progress("done", total, total)
    return probes


Forward = Callable[[Window], np.ndarray]  # -> float32 [S, V]


def _in_steps(ops: Reference, ids: np.ndarray, keep: int = 0) -> np.ndarray:
    """Logits float32 [S, V] through the cache, 512 tokens at a time; of the last `keep` only, where given."""
    parts = []
    for start in range(0, len(ids), STEP):
        parts.append(run(ops.config, ops, ids[start : start + STEP].tolist(), start))
        if keep:
            parts = [np.concatenate(parts)[-keep:]]
    return np.concatenate(parts)


def _transformers(checkpoint: Checkpoint, prompts: list[list[int]], probes: Probes) -> Forward:
    """The original's logits; its greedy continuations are put into the probes on the way."""
    model = original(checkpoint)
    for i, prompt in enumerate(prompts):
        probes.arrays[f"greedy.prompt.{i}"] = np.array(prompt, np.int32)
        probes.arrays[f"greedy.original.{i}"] = _greedy_original(model, prompt)

    def forward(window: Window) -> np.ndarray:
        with torch.inference_mode():
            logits = model(torch.from_numpy(window.ids[None].astype(np.int64)), use_cache=False).logits
        return logits[0].numpy()

    return forward


def _edge(probes: Probes, name: str, ops: Reference, context: int) -> None:
    """The simulation at the last positions of a full cache, where rotary tables and buffers end."""
    ids = np.resize(np.concatenate([w.ids for w in probes.windows]), context).astype(np.int32)
    count = min(EDGE, context - 1)
    probes.arrays["edge.ids"] = ids
    probes.sketches[f"{name}.edge"] = Sketch.of(_in_steps(ops, ids, count), np.full(count, -1))


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
        out = model.generate(torch.tensor([prompt]), max_new_tokens=GREEDY, min_new_tokens=GREEDY, do_sample=False,
                             eos_token_id=None, pad_token_id=0, temperature=None, top_p=None, top_k=None)  # fmt: skip
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
    probes.arrays[f"drift.{name}.floor"] = np.array([
        relative(np.stack([keys[i], values[i]]), np.stack([moved_keys[i], moved_values[i]])) for i in range(len(keys))
    ])  # fmt: skip
