"""The tensors of a GGUF file: their list, from shapes alone, and their data, in pieces. The writer's own way would hold
each of them whole.

A stack is a tensor in which llama.cpp keeps several matrices of ours, the rows of each after the other's; most hold
one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import IO, Any

import numpy as np

from smolship.export.checkpoints.gguf import names_of
from smolship.export.config import DecoderConfig
from smolship.export.rotary import LongRope
from smolship.export.targets import Job
from smolship.export.targets.gguf.architectures import ARCHITECTURES, in_keys
from smolship.export.targets.gguf.arithmetic import BLOCK
from smolship.export.transforms import theirs
from smolship.export.weights import Weights
from smolship.runtime.errors import InputError
from smolship.runtime.readback.hashing import Entry
from smolship.runtime.tensors import GGUF_WOVEN, KERNELS, parse

CHUNK = 1 << 21  # numbers held at once


def list_tensors(writer: Any, job: Job) -> None:
    """Tell gguf-py's writer what the file is going to hold."""
    from gguf import GGML_QUANT_SIZES

    entries = job.weights.entries
    for stack, names in stacks(job.config, entries).items():
        kinds = {name: _kind(name, entries[name]) for name in names}
        kind = kinds[names[0]]
        if other := next((name for name in names if kinds[name] != kind), None):
            raise InputError(
                f"llama.cpp holds {names[0]} and {other} in one tensor",
                got=f"{kind.name} and {kinds[other].name}",
                expected="one type of both",
                todo="export with --quant none, or without gguf",
            )
        shape = sum(entries[name].shape[0] for name in names), *entries[names[0]].shape[1:]
        block, size = GGML_QUANT_SIZES[kind]
        writer.add_tensor_info(stack, shape, np.dtype(np.float32), math.prod(shape) // block * size, kind)
    for name, divisors in rotary_divisors(job.config).items():
        writer.add_tensor_info(name, divisors.shape, divisors.dtype, divisors.nbytes)


def write_tensors(file: IO[bytes], job: Job) -> None:
    """Their data, in the order of the list."""
    entries = job.weights.entries
    done, total = 0, sum(math.prod(entry.shape) for entry in entries.values())
    for names in stacks(job.config, entries).values():
        _align(file)
        for name in names:
            for rows, piece in pieces(job, name):
                file.write(np.ascontiguousarray(piece).data)
                done += rows * math.prod(entries[name].shape[1:])
                job.progress(name, done, total)
    for divisors in rotary_divisors(job.config).values():
        _align(file)
        file.write(divisors.data)
    _align(file)


def _align(file: IO[bytes]) -> None:
    file.write(bytes(-file.tell() % 32))


def stacks(config: DecoderConfig, entries: Mapping[str, Entry]) -> dict[str, list[str]]:
    """llama.cpp's name of each tensor -> ours of the matrices in it, in the order of their rows."""
    found: dict[str, list[str]] = {}
    names = names_of(ARCHITECTURES[config.architecture].name)
    for name in entries:
        found.setdefault(theirs(names, name), []).append(name)
    return found


def rotary_divisors(config: DecoderConfig) -> dict[str, np.ndarray]:
    """A scaled rotary embedding as llama.cpp holds it: what each frequency is divided by, float32 [width / 2]. None
    where it is not scaled, or as keys of the metadata say."""
    rotary = ARCHITECTURES[config.architecture].rotary(config)
    scaling = rotary.scaling
    if scaling is None or in_keys(scaling):
        return {}
    if isinstance(scaling, LongRope):  # of which llama.cpp takes one by the length of the context, as we do
        by_length = {"long": scaling.long, "short": scaling.short}
        return {f"rope_factors_{name}.weight": np.array(of, "<f4") for name, of in by_length.items()}
    return {"rope_freqs.weight": (replace(rotary, scaling=None).frequencies() / rotary.frequencies()).astype("<f4")}


def _kind(name: str, entry: Entry) -> Any:
    """The GGML type that holds a tensor as it is."""
    from gguf import GGMLQuantizationType as Kind

    if entry.bits < 16 and entry.group % BLOCK:
        raise InputError(
            "GGUF holds a scale for each 32 inputs",
            got=f"{entry.shape[1]} inputs of {name}",
            expected="a multiple of 32",
            todo="export with --quant none, or without gguf",
        )
    return Kind.F32 if _plain(name, entry) else {16: Kind.F16, 8: Kind.Q8_0, 4: Kind.Q4_0}[entry.bits]


def _plain(name: str, entry: Entry) -> bool:
    """Whether a tensor is F32."""
    return len(entry.shape) == 1 or parse(name).kind in KERNELS


def pieces(job: Job, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """(rows, their bytes in the file), rows in llama.cpp's order.

    For some architectures llama.cpp rotates neighbours (0, 1), (2, 3), … where transformers rotates halves (0, d/2),
    (1, d/2 + 1), …: row s * d/2 + p of each q and k head, s in 0, 1, is stored at 2 p + s. In layers without rotary
    embedding too, as its converter does; the scores stay as they are.
    """
    shape, ours = job.weights.entries[name].shape, parse(name)
    woven = ARCHITECTURES[job.config.architecture].name in GGUF_WOVEN and ours.kind in ("q", "k")
    unit = job.config.attentions[0].head_dim if woven else 1
    step = max(CHUNK // math.prod(shape[1:]) // unit, 1) * unit
    for start in range(0, shape[0], step):
        piece = _stored(job.weights, name, start, min(start + step, shape[0]))
        if woven:
            heads = piece.reshape(-1, 2, unit // 2, *piece.shape[1:])
            piece = heads.swapaxes(1, 2).reshape(piece.shape)
        yield len(piece), piece


def _stored(weights: Weights, name: str, start: int, stop: int) -> np.ndarray:
    """Rows as the file holds them: float32 [rows], fp16 [rows, K], or the bytes of their blocks, uint8 [rows, …]."""
    entry = weights.entries[name]
    if entry.bits == 16:
        return weights.values(name, start, stop).astype("<f4" if _plain(name, entry) else "<f2")
    q = weights.tensor(name, start, stop)
    codes = q.codes.reshape(len(q.codes), -1, BLOCK)  # [rows, blocks, 32]
    scales = np.repeat(q.scales.astype("<f2"), entry.group // BLOCK, axis=1)[..., None].view(np.uint8)
    packed = pack_q4_0(codes) if entry.bits == 4 else codes.view(np.uint8)
    return np.concatenate([scales, packed], axis=2).reshape(len(codes), -1)


def pack_q4_0(codes: np.ndarray) -> np.ndarray:
    """int8 [..., 32] in -8…7 -> uint8 [..., 16]: code + 8, the first half in the low nibbles."""
    biased = (codes + np.int8(8)).view(np.uint8)
    return biased[..., :16] | biased[..., 16:] << 4
