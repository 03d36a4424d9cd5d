"""Bytes of what an export writes, from shapes, layouts and the context alone.

What a target stores of a tensor, its own `stored_bytes` says. The rest is added here: tables of positions, copies of
side files, the program or graph, alignment.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from smolship.export.config import CacheSpec, DecoderConfig, with_mixers
from smolship.export.targets import load_target
from smolship.export.weights import stored_shapes
from smolship.runtime.readback.hashing import Entry

Entries = Mapping[str, Entry]

# Bytes of the program or graph beside its weights: (of each layer, of the rest). Read off exports of known shapes:
#   python -P -m smolship.tools.forecast_check --shapes found
PROGRAM = {"executorch": (9_000, 20_000), "onnx": (6_200, 6_000), "coreml": (47_000, 10_000), "gguf": (0, 0)}
KEPT_WIDTH = {"executorch": 4, "onnx": 4, "coreml": 2, "gguf": 2}  # bytes of a number in each engine's cache
GGML_CHUNK, GGML_CELLS = 512, 256  # tokens of a batch (runtime/engines/gguf.py), and of which a cache is a multiple
ORT_CHUNK = 512  # tokens of a prompt that are fed at once (runtime/engines/onnx.py)
WINDOWS = {"gguf": (GGML_CHUNK, GGML_CELLS), "onnx": (ORT_CHUNK, 1)}  # what is kept beside one, and of what a multiple
LISTED = 96  # bytes by which a tensor is listed in a GGUF file, and aligned
BLOB = 128  # bytes of a header, and of alignment, for each array of a package
TOKEN = 8 + 4  # bytes beside the text of each token of a GGUF file: its length and its kind


def set_bytes(entries: Entries) -> int:
    """The one set of weights, which every target is made from."""
    return sum(math.prod(shape) * dtype.itemsize for dtype, shape in stored_shapes(dict(entries)).values())


def artifact_bytes(
    target: str, config: DecoderConfig, entries: Entries, context: int, files: Mapping[str, bytes]
) -> int:
    """A target's folder."""
    stored = load_target(target).stored_bytes
    layer, rest = PROGRAM[target]
    size = sum(map(stored, entries.values())) + layer * len(config.layers) + rest
    return size + EXTRA[target](config, entries, context, files)


def kv_bytes(config: DecoderConfig, context: int, width: int) -> int:
    """The states of all layers, of numbers of `width` bytes."""
    return sum(math.prod(shape) * width for spec in config.cache(context) for shape in spec.shapes)


def _as_kept(config: DecoderConfig, target: str) -> DecoderConfig:
    """With heads of the size that the target's cache keeps: ONNX fills some up with zeros."""
    size = getattr(load_target(target), "kept_head", None)
    return with_mixers(config, head_dim=[size(mixer.head_dim) for mixer in config.attentions]) if size else config


def kept_bytes(config: DecoderConfig, context: int, target: str) -> int:
    """The states in a target, as our sessions hold them: of a window, ONNX Runtime's and llama.cpp's hold that and one
    call; llama.cpp's of a convolution is next to nothing."""
    config, width = _as_kept(config, target), KEPT_WIDTH[target]
    if target not in WINDOWS:
        return kv_bytes(config, context, width)
    call, unit = WINDOWS[target]
    size = 0
    for spec in config.cache(context):
        if isinstance(spec, CacheSpec):
            kept = -(-((spec.window or context) + call) // unit) * unit
            size += 2 * min(spec.length, kept) * spec.kv_heads * spec.head_dim * width
        elif target != "gguf":
            size += sum(math.prod(shape) * width for shape in spec.shapes)
    return size


def _executorch(config: DecoderConfig, entries: Entries, context: int, files: Mapping[str, bytes]) -> int:
    """Rows of cos and sin as wide as a head, positions for the masks, and a table of embeddings of its own at 4 bits:
    the kernel reads whole bytes."""
    embed, kinds = entries["embed"], {(m.heads // m.kv_heads, m.window) for m in config.attentions}
    tables = sum(2 * 4 * rotary.width for rotary in config.rotaries.values()) + 2 * 4 * len(kinds)
    table = 0
    if embed.bits == 4:
        rows, width = embed.shape
        table = rows * width + 4 * rows * (width // embed.group)
        table -= 0 if config.tied_head else load_target("executorch").stored_bytes(embed)
    return context * tables + table


def _onnx(config: DecoderConfig, entries: Entries, context: int, files: Mapping[str, bytes]) -> int:
    """Rows of cos and sin, and what onnxruntime-genai wants beside the model."""
    tables = sum(4 * rotary.width for rotary in config.rotaries.values())
    copied = sum(
        len(files.get(name, b"")) for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    )
    return context * tables + copied


def _coreml(config: DecoderConfig, entries: Entries, context: int, files: Mapping[str, bytes]) -> int:
    arrays = sum(2 if entry.bits < 16 else 1 for entry in entries.values())
    return context * (sum(2 * rotary.width for rotary in config.rotaries.values()) + 4) + arrays * BLOB


def _gguf(config: DecoderConfig, entries: Entries, context: int, files: Mapping[str, bytes]) -> int:
    """The list of tensors, and the tokenizer, in another form than tokenizer.json."""
    counted = count_tokenizer(files["tokenizer.json"])
    size = len(entries) * LISTED + config.vocab * TOKEN + counted.token_bytes + counted.merge_bytes + 9 * counted.merges
    return size + max(config.vocab - counted.tokens, 0) * len("[PAD12345]")  # as unused ones are called


@dataclass(frozen=True)
class Counts:
    """Of a tokenizer.json, and bytes of the texts in it."""

    tokens: int
    merges: int
    token_bytes: int
    merge_bytes: int


@lru_cache(2)
def count_tokenizer(raw: bytes) -> Counts:
    """Of the model in a tokenizer.json."""
    model = json.loads(raw).get("model", {})
    texts, merges = model.get("vocab", ()), model.get("merges", ())
    texts = [*texts] if isinstance(texts, dict) else [text for text, *_ in texts]
    joined = ["".join(merge) if isinstance(merge, list) else merge for merge in merges]
    return Counts(len(texts), len(joined), _bytes(texts), _bytes(joined))


def _bytes(texts: Iterable[str]) -> int:
    return len("".join(texts).encode("utf-8", "replace"))


EXTRA = {"executorch": _executorch, "onnx": _onnx, "coreml": _coreml, "gguf": _gguf}
