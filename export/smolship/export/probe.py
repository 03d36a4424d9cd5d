"""Making the golden probes: run the original, our decoder and each target's simulation over real text.

One model at a time is in memory: each pass compares its full logits with the sketches of an earlier one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smolship.export.checkpoint import Checkpoint
from smolship.export.reference import Numerics, Reference, run
from smolship.export.weights import Source, Weights
from smolship.runtime.errors import InputError
from smolship.runtime.parity import relative
from smolship.runtime.probes import Gap, Probes, Sketch, Window
from smolship.runtime.template import ChatTemplate
from smolship.runtime.tokenizer import Tokenizer

WINDOW = 1024  # tokens of one window, context permitting
EDGE = 16  # positions probed at the very end of the cache
EDGE_LIMIT = 8192  # longer contexts are not filled: a forward over the whole of them would take too long
DRIFT = 32  # tokens whose keys and values are kept
GREEDY = 32  # tokens of each greedy continuation
PROMPTS = ("What is the capital of France? Answer in one sentence.",
           "Write a Python function that returns the n-th Fibonacci number.")  # fmt: skip
DATE = "2026-01-01"  # templates that print today's date see this one

Logits = Iterator[np.ndarray]  # float32 [S, V], a window each


def english() -> str:
    """Prose: the language reference that comes with Python."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in ("objects", "execmodel", "compound", "types"))


def code() -> str:
    """Python: modules of the standard library."""
    import heapq
    import textwrap

    return inspect.getsource(textwrap) + inspect.getsource(heapq)


def make_windows(tokenizer: Tokenizer, context: int, tokens: int, text: str | None = None) -> list[Window]:
    """At least `tokens` positions of English and code by turns, in windows of at most 1,024 tokens, and the edge."""
    streams = [("text", text)] if text else [("english", english()), ("code", code())]
    encoded = [(kind, tokenizer.encode(source)) for kind, source in streams]
    size = min(WINDOW, context, tokens)
    windows: list[Window] = []
    for i in range(-(-tokens // size)):
        kind, ids = encoded[i % len(encoded)]
        start = i // len(encoded) * size
        piece = ids[start : start + size]
        if len(piece) < size:
            raise InputError("the text is too short to probe with", got=f"{len(ids):,} tokens of {kind}",
                             expected=f"at least {start + size:,}")  # fmt: skip
        windows.append(Window(kind, np.array(piece, np.int32)))
    if context <= EDGE_LIMIT:
        both = np.concatenate([np.array(ids, np.int32) for _, ids in encoded])
        windows.append(Window("edge", np.resize(both, context), max(context - EDGE, 0)))
    return windows


def original(checkpoint: Checkpoint) -> Any:
    """The model of the original implementation, transformers, in float32, with the checkpoint's weights."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    if checkpoint.path.is_dir():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint.path, dtype=torch.float32, local_files_only=True, use_safetensors=True,
            trust_remote_code=False)  # fmt: skip
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint.path.parent, gguf_file=checkpoint.path.name, dtype=torch.float32, local_files_only=True
        )
    return model.eval()


class Noisy:
    """A source whose quantized tensors are the checkpoint's plus uniform noise of the grid's step width: what
    rounding would cost if it were no better and no worse than noise."""

    def __init__(self, checkpoint: Source, weights: Weights):
        self.checkpoint, self.weights = checkpoint, weights

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        values = self.checkpoint.read(name, start, stop)
        if not self.weights.quantized(name):
            return values
        q = self.weights.tensor(name, start, stop)
        noise = np.random.default_rng(len(name)).uniform(-0.5, 0.5, values.shape).astype(np.float32)
        return values + noise * np.repeat(q.scales, q.group, axis=1)


def make_probes(
    checkpoint: Checkpoint,
    weights: Weights,
    targets: dict[str, Callable[[str], Numerics]],
    context: int,
    tokens: int,
    text: str | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Probes:
    """Probes for `targets` (name -> numerics of each linear); about `tokens` positions."""
    config = checkpoint.config
    tokenizer = Tokenizer(checkpoint.files["tokenizer.json"])
    windows = make_windows(tokenizer, context, tokens, text)
    probes = Probes(windows, {"tokens": tokens, "torch": torch.__version__, "date": DATE})
    prompts = _prompts(checkpoint, tokenizer, context)
    steps = ["original", "decoder", "decoder moved by an ulp", "quantized weights", "noise of the weights' step"]
    steps += [f"{name}, {what}" for name in targets for what in ("simulated", "moved by an ulp", "noise")]
    done = iter(range(len(steps) + 1))

    def passes(make: Callable[[], Callable[[Window], np.ndarray]]) -> Logits:
        at = next(done)
        progress(steps[at], at, len(steps))
        forward = make()
        for window in windows:
            yield forward(window)[window.first :]

    def decoder(source: Source, numerics: Any = Numerics(), ulp: int | None = None) -> Logits:
        def make() -> Callable[[Window], np.ndarray]:
            ops = Reference(config, source, context, numerics, ulp)
            return lambda window: run(config, ops, window.ids.tolist())

        return passes(make)

    def transformers_model() -> Callable[[Window], np.ndarray]:
        model = original(checkpoint)
        for i, prompt in enumerate(prompts):
            probes.arrays[f"greedy.prompt.{i}"] = np.array(prompt, np.int32)
            probes.arrays[f"greedy.original.{i}"] = _greedy_original(model, prompt, context)

        def forward(window: Window) -> np.ndarray:
            with torch.inference_mode():
                return model(torch.from_numpy(window.ids[None].astype(np.int64)), use_cache=False).logits[0].numpy()

        return forward

    first = probes.sketches["original"] = _sketch(windows, passes(transformers_model))
    ours, probes.gaps["decoder"] = _sketch_and_gap(windows, decoder(checkpoint), first)
    probes.gaps["decoder.ulp"] = _gap(windows, decoder(checkpoint, ulp=1), ours)
    quantized, probes.gaps["quantized"] = _sketch_and_gap(windows, decoder(weights), first)
    probes.gaps["quantized.noise"] = _gap(windows, decoder(Noisy(checkpoint, weights)), first)
    for name, numerics in targets.items():
        simulated, gap = _sketch_and_gap(windows, decoder(weights, numerics), quantized)
        probes.sketches[f"{name}.simulated"], probes.gaps[f"{name}.simulated"] = simulated, gap
        probes.gaps[f"{name}.ulp"] = _gap(windows, decoder(weights, numerics, ulp=2), simulated)
        noise = _dithered(numerics)
        probes.gaps[f"{name}.noise"] = _gap(windows, decoder(weights, noise), quantized)
        _drift(probes, name, lambda ulp, n=numerics: Reference(config, weights, context, n, ulp), windows[0])
        for i, prompt in enumerate(prompts):
            ops = Reference(config, weights, context, numerics)
            probes.arrays[f"greedy.{name}.{i}"] = _greedy(ops, prompt, context)
    progress("done", len(steps), len(steps))
    return probes


def _dithered(numerics: Callable[[str], Numerics]) -> Callable[[str], Numerics]:
    return lambda name: replace(numerics(name), dither=3)


def _sketch(windows: list[Window], logits: Logits) -> Sketch:
    return Sketch.join([Sketch.of(rows, w.following) for w, rows in zip(windows, logits, strict=True)])


def _gap(windows: list[Window], logits: Logits, reference: Sketch) -> Gap:
    return _sketch_and_gap(windows, logits, reference, keep=False)[1]


def _sketch_and_gap(windows: list[Window], logits: Logits, reference: Sketch, keep: bool = True) -> tuple[Sketch, Gap]:
    """Gap from `reference`, and where `keep`, the sketch of these logits themselves."""
    sketches, gaps, start = [], [], 0
    for window, rows in zip(windows, logits, strict=True):
        gaps.append(Gap.between(reference[start : start + len(rows)], rows, window.following))
        sketches.append(Sketch.of(rows if keep else rows[:1], window.following[: None if keep else 1]))
        start += len(rows)
    return Sketch.join(sketches), Gap.join(gaps)


def _prompts(checkpoint: Checkpoint, tokenizer: Tokenizer, context: int) -> list[list[int]]:
    """Chat prompts, through the template where the model has one; those that fit."""
    source = checkpoint.files.get("chat_template.jinja")
    found = []
    for prompt in PROMPTS:
        if source is None:
            ids = tokenizer.encode(prompt)
        else:
            template = ChatTemplate(source.decode(), {}, date=DATE)
            ids = tokenizer.encode(template.render([{"role": "user", "content": prompt}]), special=False)
        if len(ids) + GREEDY <= context:
            found.append(ids)
    return found


def _greedy_original(model: Any, prompt: list[int], context: int) -> np.ndarray:
    with torch.inference_mode():
        out = model.generate(torch.tensor([prompt]), max_new_tokens=GREEDY, min_new_tokens=GREEDY, do_sample=False,
                             eos_token_id=None, pad_token_id=0, temperature=None, top_p=None, top_k=None)  # fmt: skip
    return out[0, len(prompt) :].numpy().astype(np.int32)


def _greedy(ops: Reference, prompt: list[int], context: int) -> np.ndarray:
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


def probes_to(path: Path, *args: Any, **kwargs: Any) -> None:
    """`make_probes`, saved."""
    make_probes(*args, **kwargs).save(path)
