"""The one set of weights: quantized once, into one file, which every target reads.

The file is safetensors: `NAME.codes` (uint8, int4 packed as `pack4` does; or int8) and `NAME.scales` (float16,
exact) for what is quantized, `NAME` (float16) for the rest. `weights.json` in the bundle lists each tensor with its
SHA-256, and the digest over all of them names the set.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from smolship.export.config import DecoderConfig
from smolship.export.quantize import QuantTensor, layout, pack4, quantize, to_half, unpack4
from smolship.export.tensorfile import TensorWriter, read_header, row_chunks
from smolship.runtime.weights.hashing import Entry, TensorHash, digest

Bits = Literal[4, 8, 16]


@dataclass(frozen=True)
class Scheme:
    """What to quantize to. Bits 16 leaves a tensor alone but for its rounding to fp16."""

    linear: Bits = 4
    embedding: Bits = 8  # the table, and the head where it is tied to it
    head: Bits = 8  # a head of its own
    group: int = 32

    def of(self, name: str, width: int) -> tuple[int, int]:
        """(bits, group) for a matrix; group 0 at 16 bits."""
        bits = self.embedding if name == "embed" else self.head if name == "head" else self.linear
        return (16, 0) if bits == 16 else layout(width, bits, self.group)


SCHEMES = {"int4": Scheme(4, 8, 8), "int8": Scheme(8, 8, 8), "none": Scheme(16, 16, 16)}


class Source(Protocol):
    """Where float weights come from: a checkpoint, by our names."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray: ...


class Weights:
    """A finished set: reads by name, whole or in rows; nothing is kept in memory."""

    def __init__(self, folder: Path):
        info = json.loads((folder / "weights.json").read_text())
        self.digest: str = info["digest"]
        self.entries = {name: Entry(**{**e, "shape": tuple(e["shape"])}) for name, e in info["tensors"].items()}
        self._slots = read_header(folder / "weights.safetensors")

    def quantized(self, name: str) -> bool:
        return self.entries[name].bits < 16

    def tensor(self, name: str, start: int = 0, stop: int | None = None) -> QuantTensor:
        """Rows of a quantized matrix."""
        entry = self.entries[name]
        codes = self.codes(name, start, stop)
        codes = unpack4(codes) if entry.bits == 4 else codes
        return QuantTensor(codes, self.scales(name, start, stop), entry.bits, entry.group, entry.origin)  # type: ignore[arg-type]

    def codes(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows of a quantized matrix's codes as they are stored: uint8 from `pack4`, or int8."""
        return self._slots[f"{name}.codes"].read(start, stop)

    def scales(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows of a quantized matrix's scales, float32 [rows, in / group]."""
        return self._slots[f"{name}.scales"].read(start, stop).astype(np.float32)

    def values(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows of any tensor as float32, dequantized where it is quantized."""
        if self.quantized(name):
            return self.tensor(name, start, stop).dequantize()
        return self._slots[name].read(start, stop).astype(np.float32)

    def chunks(self, name: str, limit: int = 1 << 22) -> list[tuple[int, int]]:
        """Row ranges of at most about `limit` numbers, for streaming a tensor."""
        rows, *rest = self.entries[name].shape
        return list(row_chunks(rows, rest[0] if rest else 1, limit))

    def share_at(self, bits: int, config: DecoderConfig) -> float:
        """Share of the parameters of the layers' linears that are held at `bits`."""
        count = {name: out * width for name, (out, width) in config.linears().items() if name != "head"}
        return sum(n for name, n in count.items() if self.entries[name].bits == bits) / sum(count.values())

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """`values`, so that a set of weights is a `Source` as a checkpoint is."""
        return self.values(name, start, stop)


def write_weights(
    source: Source,
    config: DecoderConfig,
    scheme: Scheme,
    folder: Path,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Weights:
    """Read each tensor in row chunks, quantize it, and write `weights.safetensors` and `weights.json` to `folder`.

    `progress(name, done, total)` is called in numbers read.
    """
    entries = _plan(config, scheme)
    total = sum(math.prod(entry.shape) for entry in entries.values())
    done = 0
    listed: dict[str, dict[str, Any]] = {}
    with TensorWriter(folder / "weights.safetensors", _stored_shapes(entries)) as writer:
        for name, entry in entries.items():
            hashed = TensorHash(name, entry)
            for start, stop in row_chunks(entry.shape[0], math.prod(entry.shape[1:])):
                rows = source.read(name, start, stop)
                if entry.bits == 16:
                    half = to_half(rows, name)
                    hashed.update(half)
                    writer.append(name, half)
                else:
                    q = quantize(rows, entry.bits, entry.group, name)
                    hashed.update(q.codes, q.scales)
                    writer.append(f"{name}.codes", pack4(q.codes) if entry.bits == 4 else q.codes)
                    writer.append(f"{name}.scales", q.scales.astype(np.float16))
                done += rows.size
                progress(name, done, total)
            listed[name] = asdict(entry) | {"sha256": hashed.hexdigest()}
    whole = digest(entry["sha256"] for entry in listed.values())
    (folder / "weights.json").write_text(json.dumps({"digest": whole, "tensors": listed}, indent=1))
    return Weights(folder)


def _plan(config: DecoderConfig, scheme: Scheme) -> dict[str, Entry]:
    entries = {}
    for name, shape in config.shapes().items():
        bits, group = scheme.of(name, shape[1]) if len(shape) == 2 else (16, 0)
        entries[name] = Entry(shape, bits, group, "rounded" if bits == 16 else "quantized")
    return entries


def _stored_shapes(entries: dict[str, Entry]) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    shapes: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    for name, entry in entries.items():
        if entry.bits == 16:
            shapes[name] = (np.dtype(np.float16), entry.shape)
        else:
            rows, width = entry.shape
            packed = (np.dtype(np.uint8), (rows, width // 2)) if entry.bits == 4 else (np.dtype(np.int8), (rows, width))
            shapes[f"{name}.codes"] = packed
            shapes[f"{name}.scales"] = (np.dtype(np.float16), (rows, width // entry.group))
    return shapes
