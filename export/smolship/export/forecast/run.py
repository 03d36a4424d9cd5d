"""Memory of an open artifact with a full cache, in a process of smolship's runtime.

What an engine keeps is known for the most part: the cache, in the numbers that it keeps it in; its own copy of the
weights, which it packs into anonymous memory; the scores of a chunk against the whole cache. The rest is measured once
for each engine, as the constants beside each say:

    python -P -m smolship.tools.forecast_check --shapes found

S tokens of a chunk, T of the cache, H query heads, G key and value heads, K head_dim. Sizes are bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from smolship.export.config import DecoderConfig
from smolship.export.forecast.sizes import GGML_CHUNK, ORT_CHUNK, Entries, kept_bytes, kv_bytes
from smolship.export.targets import load_target
from smolship.runtime.readback.hashing import Entry

MB = 1_000_000


@dataclass(frozen=True)
class Memory:
    """Bytes resident in the end, and those of them that the engine's import takes, before an artifact is opened.
    `idle` ones are mapped, and not read again: the system can drop them for nothing."""

    anonymous: int
    mapped: int
    base_anonymous: int
    base_mapped: int
    idle: int

    @property
    def added_anonymous(self) -> int:
        return self.anonymous - self.base_anonymous

    @property
    def added_mapped(self) -> int:
        return self.mapped - self.base_mapped


def run_memory(target: str, config: DecoderConfig, entries: Entries, context: int, artifact: int) -> Memory:
    """Of a target whose `artifact` has so many bytes."""
    anonymous, mapped = ENGINES[target](config, entries, context, artifact)
    base, base_mapped = BASE[target]
    idle = _packed_by_ggml(config, entries) if target == "gguf" else 0
    return Memory(base + anonymous, base_mapped + mapped, base, base_mapped, idle)


# Anonymous and mapped memory of a process that has imported the engine: "anonymous_before" and "mapped_before".
BASE = {
    "executorch": (151 * MB, 81 * MB),  # torch, in the main
    "onnx": (27 * MB, 29 * MB),
    "coreml": (19 * MB, 17 * MB),  # the interpreter in numpy; Core ML itself runs on Apple's systems alone
    "gguf": (24 * MB, 20 * MB),
}


def _chunk(target: str, context: int) -> int:
    """S: the most tokens of one call."""
    return min(int(vars(load_target(target))["CHUNK"]), context)


def _widest(config: DecoderConfig) -> int:
    """Numbers of a token in the widest place: in the MLP, or between a convolution's gates."""
    return max(*(layer.mlp.width for layer in config.layers), 3 * config.hidden if config.convolutions else 0)


def _heads(config: DecoderConfig) -> tuple[int, int, int]:
    """H, G and K of the largest layer."""
    mixer = max(config.attentions, key=lambda m: m.heads * m.head_dim)
    return mixer.heads, mixer.kv_heads, mixer.head_dim


def _matrices(config: DecoderConfig, entries: Entries, of: Callable[[Entry], int]) -> int:
    """Over the linears and the head."""
    names = [*config.linears(), *(["embed"] if config.tied_head else [])]
    return sum(of(entries[name]) for name in names)


XNN_ROW = 12  # bytes that XNNPACK packs with each row: a sum of its codes, a bias, a scale
XNN_BUFFERS = (3, 6)  # of a chunk as wide as the MLP, and as the hidden state
XNN_MAPPED = 6 * MB  # libraries, once a method is loaded


def _executorch(config: DecoderConfig, entries: Entries, context: int, artifact: int) -> tuple[int, int]:
    """XNNPACK packs every matrix, the head too, and the file's pages go but for the table of embeddings. Kept for a
    chunk: scores [H, S, T], the mask [R, S, T], keys and values transposed, and one of them packed."""
    stored, chunk = load_target("executorch").stored_bytes, _chunk("executorch", context)
    heads, groups, size = _heads(config)
    packed = _matrices(config, entries, lambda entry: stored(entry) + XNN_ROW * entry.shape[0])
    attention = context * 4 * (heads * chunk + heads // groups * chunk + 3 * groups * size)
    wide, narrow = XNN_BUFFERS
    buffers = 4 * chunk * (wide * _widest(config) + narrow * config.hidden)
    embed = entries["embed"]
    table = math.prod(embed.shape) * (4 if embed.bits == 16 else 1)
    tables = context * 4 * sum(2 * rotary.width for rotary in config.rotaries.values())
    return packed + kv_bytes(config, context, 4) + attention + buffers, XNN_MAPPED + table + tables


ORT_BUFFERS = 7.3  # of a chunk as wide as the MLP
ORT_SCALES = 2.4  # times the scales of a matrix: as they are packed, with sums of its blocks
ORT_ANONYMOUS, ORT_MAPPED = 6 * MB, 13 * MB  # of a session, whatever the model


def _onnx(config: DecoderConfig, entries: Entries, context: int, artifact: int) -> tuple[int, int]:
    """Every matrix is packed anew. The file's scales stay mapped; of the table of embeddings, only rows in use."""
    stored, chunk = load_target("onnx").stored_bytes, min(ORT_CHUNK, context)

    def codes(entry: Entry) -> int:
        return math.prod(entry.shape) * (32 if entry.bits == 16 else entry.bits) // 8

    whole, bare = _matrices(config, entries, stored), _matrices(config, entries, codes)
    buffers = int(4 * chunk * ORT_BUFFERS * _widest(config))
    anonymous = bare + int(ORT_SCALES * (whole - bare)) + buffers + ORT_ANONYMOUS
    return anonymous + kept_bytes(config, context, "onnx"), ORT_MAPPED + whole - bare


MIL_SCORES = 3  # arrays of scores of a chunk
MIL_WIDE = 1 << 30  # bytes of weights in float32: WIDE in runtime/mil/compiling.py
MIL_MAPPED = 2 * MB


def _coreml(config: DecoderConfig, entries: Entries, context: int, artifact: int) -> tuple[int, int]:
    """The interpreter: weights as float32 up to a limit, and beyond it as float16; the state in float32."""
    chunk, (heads, _, _) = _chunk("coreml", context), _heads(config)
    count = sum(math.prod(entry.shape) for entry in entries.values())
    wide = min(4 * count, MIL_WIDE)
    scores = MIL_SCORES * 4 * heads * chunk * context
    return wide + (4 * count - wide) // 2 + kv_bytes(config, context, 4) + scores, artifact + MIL_MAPPED


def apple_memory(config: DecoderConfig, entries: Entries, context: int, artifact: int) -> tuple[int, int]:
    """Core ML itself, which nobody has measured here: that the GPU has the weights in memory of its own is assumed,
    the state and the scores are fp16."""
    chunk, (heads, _, _) = _chunk("coreml", context), _heads(config)
    return artifact + kv_bytes(config, context, 2) + 2 * 2 * heads * chunk * context, 0


GGML_BUFFERS = (2, 3)  # of a chunk as wide as the MLP, and as the hidden state
GGML_TOKEN = 340  # bytes of a token of the vocabulary, its text and its places in maps


def _gguf(config: DecoderConfig, entries: Entries, context: int, artifact: int) -> tuple[int, int]:
    """llama.cpp maps the file, and packs int4 matrices anew. Kept for a chunk: scores in float32 and fp16, the mask. Of
    convolutions it keeps a few rows."""
    chunk, (heads, _, _) = min(GGML_CHUNK, context), _heads(config)
    packed = _packed_by_ggml(config, entries)
    attention = context * chunk * (6 * heads + 4)
    wide, narrow = GGML_BUFFERS
    buffers = 4 * chunk * (wide * _widest(config) + narrow * config.hidden)
    vocabulary = GGML_TOKEN * config.vocab
    return packed + kept_bytes(config, context, "gguf") + attention + buffers + vocabulary, artifact + MB


def _packed_by_ggml(config: DecoderConfig, entries: Entries) -> int:
    stored = load_target("gguf").stored_bytes
    return sum(stored(entries[name]) for name in config.linears() if entries[name].bits == 4)


ENGINES = {"executorch": _executorch, "onnx": _onnx, "coreml": _coreml, "gguf": _gguf}
