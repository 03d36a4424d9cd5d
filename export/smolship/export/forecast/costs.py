"""Time and peak memory of each step of an export.

The steps read and write in pieces: what they hold is their imports, some pieces, and what a library wants whole. Those
were measured once, as the constants beside each say:

    python -P -m smolship.tools.forecast_check --shapes found
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from smolship.export.calibrate.asked import Effort, is_whole, window
from smolship.export.calibrate.cost import texts_at_once, work_of
from smolship.export.calibrate.limits import LOGITS as LOGITS_AT_ONCE
from smolship.export.calibrate.limits import MOST, PASSING
from smolship.export.config import DecoderConfig
from smolship.export.forecast.record import StepForecast
from smolship.export.forecast.sizes import Entries, set_bytes
from smolship.export.forecast.speed import Speed
from smolship.export.long_text import is_filled
from smolship.export.targets import load_target
from smolship.runtime.probes import FILLED

MB = 1_000_000
REFERENCE = Speed(python=5.0e7, quantize=3.9e7, convert=3.8e9, multiply=9.5e10)  # of the machine of the constants

QUANTIZE_BASE, QUANTIZE_PIECES, FOUR_PIECES = 76 * MB, 40 * MB, 1 << 24
QUANTIZE_SECONDS = 0.25  # of imports
CODES_RATE = 150e6  # numbers a second at 8 and 16 bits
SEARCHED = 0.92  # of the speed at which a small block is searched

LOWER_BASE = {"executorch": 352 * MB, "onnx": 370 * MB, "coreml": 379 * MB, "gguf": 247 * MB}
LOWER_LAYER = {"executorch": 600_000, "onnx": 200_000, "coreml": MB, "gguf": 0}  # bytes of each layer's graph
LOWER_SECONDS = {"executorch": 2.4, "onnx": 2.3, "coreml": 3.1, "gguf": 1.1}  # of imports
LAYER_SECONDS = {"executorch": 0.055, "onnx": 0.037, "coreml": 0.1, "gguf": 0.0}
WRITE_RATE = {"executorch": 500e6, "onnx": 500e6, "coreml": 400e6, "gguf": 400e6}  # bytes of the artifact a second
TOKEN_SECONDS = 3e-6  # of a token of GGUF's vocabulary

# Of a GGUF checkpoint, bytes a token: a tokenizer.json is made of its vocabulary as each step opens it, of which a part
# stays. Found on Gemma-3-270M (262,144 tokens), whose steps are within 13 % then, and 42 % below without.
GGUF_OPENED, GGUF_KEPT = 1_630, 470

WHOLE = 1.1  # bytes a number of the largest matrix, which coremltools takes whole
TOKEN, MERGE = 670, 520  # bytes of a token and a merge while GGUF's vocabulary is made
SIDE = 1.5  # bytes for each of tokenizer.json, where it is read and copied


def with_gguf(cost: StepForecast, tokens: int, whole: int = 0) -> StepForecast:
    """The cost of a step whose checkpoint is a GGUF file of so many tokens; `whole` are bytes of a model that
    transformers loads from it."""
    opening, peak = QUANTIZE_BASE + GGUF_OPENED * tokens, cost.peak_bytes + GGUF_KEPT * tokens + whole
    return replace(cost, peak_bytes=max(opening, peak))


def quantize_cost(config: DecoderConfig, entries: Entries, speed: Speed) -> StepForecast:
    """The file of weights is written in pieces of 4 million numbers."""
    largest = max(math.prod(entry.shape) for entry in entries.values())
    peak = QUANTIZE_BASE + int(QUANTIZE_PIECES * min(1.0, largest / FOUR_PIECES))
    searched = sum(math.prod(e.shape) for e in entries.values() if e.bits == 4 and e.origin != "lifted")
    others = sum(math.prod(e.shape) for e in entries.values()) - searched
    seconds = QUANTIZE_SECONDS * REFERENCE.python / speed.python + searched / (SEARCHED * speed.quantize)
    return StepForecast(seconds + others / CODES_RATE * REFERENCE.convert / speed.convert, peak)


CALIBRATE_BASE = 400 * MB  # torch, and what it keeps
READ_AGAIN = 6  # bytes of a weight that is read as float32, and of what it is stored in
CALIBRATE_SECONDS = 5.0  # of imports, of the template and of opening
STREAMS, SQUARES = 4, 4  # arrays of hidden states that pass, and of a Hessian and its inverse
BITS_PASSES = 2.9  # how much slower than large products the passes are that measure sensitivities
NARROW, WIDE = 14, 5  # arrays of hidden size, and of the MLP's, that a layer keeps of a window for gradients


def calibrate_cost(
    config: DecoderConfig, entries: Entries, effort: Effort, writes: bool, speed: Speed, processors: int
) -> StepForecast:
    """`writes`: the model writes its text. The parts hold different things: the writing all weights, keys and values;
    the layers what passes; the training a set of weights, codes, and gradients of as many windows as threads."""
    length, whole = window(config), is_whole(config)
    work = work_of(config, effort, length, writes, whole)
    threads, tokens = min(processors, MOST, effort.batch), effort.windows * length
    count = {name: math.prod(entry.shape) for name, entry in entries.items()}
    tables = sum(count[name] for name in {"embed", config.head})
    linear, layers = sum(count.values()) - tables, len(config.layers)
    widest = max(max(layer.mlp.width for layer in config.layers), config.hidden)
    at_once = texts_at_once(config, length, effort.windows, whole)
    cached = at_once * sum(8 * length * a.kv_heads * a.head_dim for a in config.attentions)
    write = 4 * (tables + (linear if whole else linear // layers)) + cached
    states, logits = 4 * tokens * config.hidden, 4 * 4 * LOGITS_AT_ONCE * threads
    passing = STREAMS * states + min(PASSING, 16 * tokens * widest) + 4 * SQUARES * widest**2
    passing += 4 * 3 * linear // layers
    last = STREAMS * states + 8 * tables + logits
    kept = 4 * length * layers * (NARROW * config.hidden + WIDE * widest) * threads
    train = 5 * linear + 8 * tables + 2 * states + kept + logits if whole else 0
    peak = CALIBRATE_BASE + int(max(write if writes else 0, passing, last, train))
    seconds = CALIBRATE_SECONDS * REFERENCE.python / speed.python
    if writes and not whole:  # all layers are read for each token
        seconds += effort.windows / at_once * length * READ_AGAIN * linear / speed.convert
    return StepForecast(seconds + 2 * work.total / (speed.multiply * min(processors, MOST) / processors), peak)


FORMS = 4  # of each matrix: groups of 32, 64 and 128, and 8 bits


def bits_cost(
    config: DecoderConfig, entries: Entries, windows: int, writes: bool, speed: Speed, processors: int
) -> StepForecast:
    """`writes`: the model writes its text. States of all layers are kept for the way back, and of a layer what each
    matrix took and its gradient."""
    length, whole = window(config), is_whole(config)
    tokens, layers = windows * length, len(config.layers)
    count = {name: math.prod(entry.shape) for name, entry in entries.items()}
    head, tables = config.vocab * config.hidden, sum(count[name] for name in {"embed", config.head})
    linear = sum(count.values()) - tables
    widest = max(max(layer.mlp.width for layer in config.layers), config.hidden)
    write = work_of(config, Effort(windows, 0, 0), length, writes, whole).write
    passes = BITS_PASSES * tokens * (linear * (3 + FORMS) + head * (2 + FORMS))
    at_once = texts_at_once(config, length, windows, whole)
    cached = at_once * sum(8 * length * a.kv_heads * a.head_dim for a in config.attentions)
    written = 4 * (tables + (linear if whole else linear // layers)) + cached if writes else 0
    back = 4 * tokens * (config.hidden * (layers + 2 * NARROW) + 2 * WIDE * widest) + 4 * tables + 8 * linear // layers
    seconds = CALIBRATE_SECONDS * REFERENCE.python / speed.python + (FORMS - 1) * (linear + tables) / speed.quantize
    if writes and not whole:
        seconds += windows / at_once * length * READ_AGAIN * linear / speed.convert
    seconds += 2 * (write + passes) / (speed.multiply * min(processors, MOST) / processors)
    return StepForecast(seconds, CALIBRATE_BASE + max(written, back))


def lower_cost(
    target: str, config: DecoderConfig, entries: Entries, artifact: int, tokenizer: tuple[int, int, int], speed: Speed
) -> StepForecast:
    """`tokenizer`: bytes of tokenizer.json, its tokens and its merges."""
    size, tokens, merges = tokenizer
    layers = len(config.layers)
    peak = LOWER_BASE[target] + layers * LOWER_LAYER[target]
    if target == "onnx":
        peak += int(SIDE * size)
    if target == "coreml":
        largest = max(entries.values(), key=lambda entry: math.prod(entry.shape))
        peak += int(math.prod(largest.shape) * (WHOLE if largest.bits < 16 else 6))
    if target == "gguf":
        peak += TOKEN * max(tokens, config.vocab) + MERGE * merges
    seconds = LOWER_SECONDS[target] + layers * LAYER_SECONDS[target]
    seconds += TOKEN_SECONDS * config.vocab if target == "gguf" else 0
    seconds = seconds * REFERENCE.python / speed.python
    return StepForecast(seconds + artifact / WRITE_RATE[target] * REFERENCE.convert / speed.convert, peak)


# Of probes. Peaks: found on SmolLM2 and on SmolLM3's shape, four targets, 2,048 tokens of context, and within 4 % of
# these two. Times: found on the same two, where a machine multiplies 5e11 times a second: 11 % below SmolLM2's, and as
# the 3B's with four times the continuations, since no draft of random weights is right.
PROBE_BASE = 550 * MB  # torch, transformers, and what targets import
SCORES, LOGITS = 4, 8  # arrays of attention scores, of STEP positions against the cache, and of PIECE positions' logits
PROBE_SECONDS = 4.0  # of imports and of opening
FAR = 16  # export/probe.py: how far the long text of the original goes, up to FILLED
EFFICIENCY = 0.6  # of a large matrix product's speed, over the whole of a pass
STEP, PIECE = 512, 128  # positions computed at once, and whose logits exist at once (export/stream.py)
COMPARED = 5e-8  # seconds for each logit that is compared
PASSES = 8  # through all weights, in which drafts of continuations become right, about
CALLED, READ_RATE = 0.012, 5.2e9  # seconds of a layer in a pass of continuations, and bytes of weights read a second


def probe_positions(config: DecoderConfig, tokens: int, context: int, arithmetics: int) -> tuple[int, int]:
    """Positions that pass through the layers, and those of them whose logits are compared: of the original, the
    decoder and its floor, the noise, the quantized weights, and each arithmetic with its floor and its noise."""
    long, edge = min(context, FILLED, FAR * tokens), context if is_filled(config, context) else 0
    compared = 4 * tokens + arithmetics * 2 * tokens
    return compared + 2 * long + arithmetics * edge, compared


def probe_cost(
    config: DecoderConfig,
    entries: Entries,
    context: int,
    tokens: int,
    targets: Sequence[str],
    speed: Speed,
    arm: bool = False,
) -> StepForecast:
    """What is resident: the head, a layer, logits, attention's scores. Core ML's attention is taken step by step; and
    in the continuations, whose logits are few, its head and layer, rounded to fp16, lie beside those of the others."""
    count = {name: math.prod(entry.shape) for name, entry in entries.items()}
    tables, largest = sum(count[name] for name in {"embed", config.head}), max(count["embed"], count[config.head])
    layer = (sum(count.values()) - tables) // len(config.layers)
    scores = 4 * max(m.heads for m in config.attentions) * min(STEP, context) * min(context, FILLED)
    peak, held, logits = PROBE_BASE + SCORES * scores, 4 * (largest + layer), LOGITS * 4 * PIECE * config.vocab
    peak += max(held + logits + SCORES * scores, 2 * held) if "coreml" in targets else held + logits
    passed, compared = probe_positions(config, tokens, context, arithmetics_of(targets, arm))
    work = 2 * (layer * len(config.layers) * passed + count[config.head] * compared)
    seconds = PROBE_SECONDS * REFERENCE.python / speed.python + work / (EFFICIENCY * speed.multiply)
    seconds += COMPARED * compared * config.vocab * REFERENCE.convert / speed.convert
    read = CALLED * len(config.layers) * REFERENCE.python / speed.python
    read += 4 * sum(count.values()) / READ_RATE * REFERENCE.convert / speed.convert
    seconds += PASSES * len(targets) * read
    return StepForecast(seconds, peak)


def arithmetics_of(targets: Sequence[str], arm: bool = False) -> int:
    """How many arithmetics the probes simulate, with those on Arm too."""
    kinds = ("OTHER_ARITHMETICS", "ON_ARM") if arm else ("OTHER_ARITHMETICS",)
    return sum(1 + sum(len(getattr(load_target(name), kind, {})) for kind in kinds) for name in targets)


def probes_bytes(tokens: int, arithmetics: int) -> int:
    """probes.npz: the 256 largest logits and their ids at each position, of the original and each arithmetic."""
    return 256 * (4 + 4) * tokens * (1 + arithmetics)


def disk_bytes(
    config: DecoderConfig, entries: Entries, artifacts: dict[str, int], probes: int, calibrated: bool = False
) -> int:
    """At the fullest moment: the set stays until the end, and so does what calibration changed, which may be all of it,
    after codes of a byte each that it puts into files; coremltools first writes a copy elsewhere."""
    at = set_bytes(entries) * (2 if calibrated else 1)
    most = 0 if not calibrated or is_whole(config) else at + sum(math.prod(entry.shape) for entry in entries.values())
    for name, size in artifacts.items():
        most = max(most, at + size * (2 if name == "coreml" else 1))
        at += size
    return max(most, at + probes)
