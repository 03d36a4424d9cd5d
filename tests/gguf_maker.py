"""Tiny GGUF files for tests: whole ones from HF checkpoints by gguf-py's writer, and raw bytes to lie with."""

from __future__ import annotations

import json
import struct
from itertools import cycle
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from smolship.export.checkpoints import Checkpoint, open_checkpoint
from smolship.export.checkpoints.gguf import KEYS, names_of
from smolship.export.rotary import LongRope
from smolship.export.targets.gguf.architectures import ARCHITECTURES, in_keys
from smolship.export.transforms import theirs
from smolship.runtime.tensors import GGUF_WOVEN


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """A q or k matrix (or bias) as llama.cpp's converter stores it: the halves of each head interleaved."""
    out = np.empty_like(rows)
    head = len(rows) // heads
    for row in range(len(rows)):
        within = row % head
        half, pair = divmod(within, head // 2)
        out[row - within + 2 * pair + half] = rows[row]
    return out


def make_gguf(
    folder: Path, path: Path, kind: str = "F32", split: str = "gpt-2", drop: tuple[str, ...] = (), **extra: Any
) -> Checkpoint:
    """The HF checkpoint in `folder` as a GGUF file, matrices quantized to `kind`, or by turns to each of several, such
    as "Q4_0 Q8_0". `extra` adds or overrides metadata by its full key, `drop` leaves tensors and keys out by GGUF's
    name. Returns the HF checkpoint."""
    hf = open_checkpoint(str(folder))
    known, mixer = ARCHITECTURES[hf.config.architecture], hf.config.attentions[0]
    arch, rotary = known.name, known.rotary(hf.config)
    writer = gguf.GGUFWriter(path, arch)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    special = {t["content"] for t in tokenizer["added_tokens"]}
    values: dict[str, Any] = {f"{arch}.{key}": hf.raw[name] for name, key in KEYS.items() if hf.raw.get(name)}
    values |= {f"{arch}.feed_forward_length": hf.config.layers[0].mlp.width} | by_layer(hf, arch)
    values |= {
        f"{arch}.rope.freq_base": rotary.theta,
        f"{arch}.rope.dimension_count": rotary.width,
        f"{arch}.vocab_size": hf.config.vocab,
        **{f"{arch}.{key}": value for key, value in known.metadata(hf.config).items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": split,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(m) if isinstance(m, list) else m for m in tokenizer["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": (folder / "chat_template.jinja").read_text(),
    } | extra
    for key, value in values.items():
        if key in drop:
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
            add[type(value)](key, value)
    tensors: dict[str, np.ndarray] = {}
    for ours in hf.config.shapes():
        name, rows = theirs(names_of(arch), ours), hf.read(ours)
        part = ours.removesuffix(".bias").rpartition(".")[2]
        if part in ("q", "k") and arch in GGUF_WOVEN:
            rows = permute(rows, mixer.heads if part == "q" else mixer.kv_heads)
        tensors[name] = np.concatenate([tensors[name], rows]) if name in tensors else rows
    kinds = cycle(kind.split())
    for name, rows in tensors.items():
        if name in drop:
            continue
        if rows.ndim == 1 or kind == "F32" or ".conv." in name:
            writer.add_tensor(name, rows)
        else:
            stored = gguf.GGMLQuantizationType[next(kinds)]
            writer.add_tensor(name, gguf.quants.quantize(rows, stored), raw_dtype=stored)
    if isinstance(rotary.scaling, LongRope):
        for length in ("short", "long"):
            if (name := f"rope_factors_{length}.weight") not in drop:
                writer.add_tensor(name, np.array(getattr(rotary.scaling, length), np.float32))
    elif rotary.scaling and not in_keys(rotary.scaling):
        from dataclasses import replace

        plain = replace(rotary, scaling=None).frequencies()
        writer.add_tensor("rope_freqs.weight", (plain / rotary.frequencies()).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return hf


def by_layer(hf: Checkpoint, arch: str) -> dict[str, Any]:
    """What llama.cpp's converter writes of a model whose layers differ."""
    layers, attentions = hf.config.layers, hf.config.attentions
    if len({(mixer.heads, layer.mlp.width) for mixer, layer in zip(attentions, layers, strict=False)}) == 1:
        return {}
    return {
        f"{arch}.block_count": len(layers),
        f"{arch}.context_length": hf.config.positions,
        f"{arch}.embedding_length": hf.config.hidden,
        f"{arch}.feed_forward_length": [layer.mlp.width for layer in layers],
        f"{arch}.attention.head_count": [mixer.heads for mixer in attentions],
        f"{arch}.attention.head_count_kv": [mixer.kv_heads for mixer in attentions],
        f"{arch}.attention.layer_norm_rms_epsilon": hf.config.norm_eps,
        f"{arch}.attention.value_length": attentions[0].head_dim,
    }


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def blob(
    pairs: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    counts: tuple[int, int] | None = None,
    version: int = 3,
    data: int = 256,
) -> bytes:
    """A GGUF file of raw key-value pairs and tensor entries; `counts` may lie about how many."""
    pairs, tensors = pairs or [], tensors or []
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(pairs))))
    body = head + b"".join(pairs) + b"".join(tensors)
    return body + b"\0" * (-len(body) % 32 + data)


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def entry(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0, rank: int | None = None) -> bytes:
    """A tensor entry; `shape` innermost first, as GGUF has it."""
    rank = len(shape) if rank is None else rank
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", rank, *shape, kind, offset)
