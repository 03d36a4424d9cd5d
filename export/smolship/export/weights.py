"""The one set of weights: quantized once, into one file, which every target reads.

The file is safetensors: `NAME.codes` (uint8, int4 packed as `pack4` does; or int8) and `NAME.scales` (float16,
exact) for what is quantized, `NAME` (float16) for the rest. `weights.json` in the bundle lists each tensor with its
SHA-256, and the digest over all of them names the set.

What a GGUF file already holds on a grid of ours is lifted: its codes and scales are taken as they are. A target that
cannot hold some of those reads a set of its own, in which they are rounded again (`reround`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from smolship.export.config import DecoderConfig
from smolship.export.quantize import GROUPS, QuantTensor, layout, pack4, quantize, to_half, unpack4
from smolship.export.slots import row_chunks
from smolship.export.tensorfile import Slot, TensorWriter, read_header
from smolship.runtime.readback.hashing import Entry, TensorHash, digest

Bits = Literal[4, 8, 16]
Form = tuple[int, int]  # (bits, group) of a matrix; group 0 at 16 bits
CALIBRATED = "calibrated"  # the folder of what calibration has changed, beside the set that it began with


@dataclass(frozen=True)
class Scheme:
    """What to quantize to. Bits 16 leaves a tensor alone but for its rounding to fp16.

    A matrix that the file holds in Q4_0 or Q8_0 is lifted where that is no more bits than asked for here, whatever the
    group asked for: int4 keeps a file's Q4_0 linears, and its embedding and head whether Q4_0 or Q8_0; int8 keeps both
    everywhere. Q8_0 linears under int4 are quantized, and 16 bits ("none") takes the values.
    """

    linear: Bits = 4
    embedding: Bits = 8  # the table, and the head where it is tied to it
    head: Bits = 8  # a head of its own
    group: int = 32

    def bits(self, name: str) -> Bits:
        """Asked for, of a matrix."""
        return self.embedding if name == "embed" else self.head if name == "head" else self.linear

    def of(self, name: str, width: int) -> tuple[int, int]:
        """(bits, group) for a matrix; group 0 at 16 bits."""
        bits = self.bits(name)
        return (16, 0) if bits == 16 else layout(width, bits, self.group)

    def lifts(self, name: str, grid: tuple[int, int] | None) -> bool:
        """Whether a matrix that is on that grid already (bits, group) stays on it."""
        return grid is not None and grid[0] <= self.bits(name) < 16


SCHEMES = {"int4": Scheme(4, 8, 8), "int8": Scheme(8, 8, 8), "none": Scheme(16, 16, 16)}


class Source(Protocol):
    """Where float weights come from: a checkpoint, by our names."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray: ...


@runtime_checkable
class GridSource(Source, Protocol):
    """A source that may hold matrices on a grid of ours already."""

    def grid(self, name: str) -> tuple[int, int] | None: ...

    def lift(self, name: str, start: int = 0, stop: int | None = None) -> QuantTensor: ...


class Weights:
    """A finished set, read by name, whole or in rows. Nothing is kept in memory. `base` holds the tensors that the
    folder's own file does not."""

    def __init__(self, folder: Path, base: Weights | None = None):
        info = json.loads((folder / "weights.json").read_text())
        self.digest: str = info["digest"]
        self.entries = {name: Entry(**{**e, "shape": tuple(e["shape"])}) for name, e in info["tensors"].items()}
        self._slots: dict[str, Slot] = dict(base._slots) if base else {}
        self._slots |= read_header(folder / "weights.safetensors")

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
        """`values`: a set of weights is a `Source`, like a checkpoint."""
        return self.values(name, start, stop)


def write_weights(
    source: Source,
    config: DecoderConfig,
    scheme: Scheme,
    folder: Path,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
    forms: Mapping[str, Form] | None = None,
) -> Weights:
    """Read each tensor in row chunks, quantize or lift it, and write `weights.safetensors` and `weights.json` to
    `folder`. `forms` are those of matrices that do not go by the scheme.

    `progress(name, done, total)` is called in numbers read.
    """
    _list(_write(source, layouts(source, config, scheme, forms), folder, progress), folder)
    return Weights(folder)


def reround(
    weights: Weights,
    names: Iterable[str],
    folder: Path,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Weights:
    """The set `weights` with these matrices rounded to the portable grid, at their bits. The rest is not copied."""
    entries = {}
    for name in names:
        entry = weights.entries[name]
        bits, group = layout(entry.shape[1], entry.bits, min(GROUPS))
        entries[name] = replace(entry, bits=bits, group=group, origin="re-rounded")
    _list(weights.entries | _write(weights, entries, folder, progress), folder)
    return Weights(folder, weights)


def replace_tensors(
    base: Weights, source: Source, names: Iterable[str], folder: Path, calibration: Mapping[str, object]
) -> Weights:
    """The set `base` with these tensors as `source` has them, in their forms. The rest is not copied. The list says
    how they were calibrated."""
    entries = {name: replace(base.entries[name], origin="calibrated") for name in names}
    written = _write(source, entries, folder, lambda name, done, total: None)
    _list(base.entries | written, folder, {"calibration": dict(calibration)})
    return Weights(folder, base)


def open_set(work: Path) -> Weights:
    """The set of weights that the steps of an export have made in `work`: calibrated, where it was."""
    base, folder = Weights(work), set_list(work).parent
    return base if folder == work else Weights(folder, base)


def set_list(work: Path) -> Path:
    """The list of that set."""
    calibrated = work / CALIBRATED / "weights.json"
    return calibrated if calibrated.exists() else work / "weights.json"


def _write(
    source: Source, entries: dict[str, Entry], folder: Path, progress: Callable[[str, int, int], None]
) -> dict[str, Entry]:
    """Write tensors to `weights.safetensors`; their entries, with hashes."""
    total = sum(math.prod(entry.shape) for entry in entries.values())
    done, written = 0, {}
    with TensorWriter(folder / "weights.safetensors", stored_shapes(entries)) as writer:
        for name, entry in entries.items():
            hashed = TensorHash(name, entry)
            for start, stop in row_chunks(entry.shape[0], math.prod(entry.shape[1:])):
                if entry.bits == 16:
                    half = to_half(source.read(name, start, stop), name)
                    hashed.update(half)
                    writer.append(name, half)
                else:
                    q = _rows(source, name, entry, start, stop)
                    hashed.update(q.codes, q.scales)
                    writer.append(f"{name}.codes", pack4(q.codes) if entry.bits == 4 else q.codes)
                    writer.append(f"{name}.scales", q.scales.astype(np.float16))
                done += (stop - start) * math.prod(entry.shape[1:])
                progress(name, done, total)
            written[name] = replace(entry, sha256=hashed.hexdigest())
    return written


def _rows(source: Source, name: str, entry: Entry, start: int, stop: int) -> QuantTensor:
    if entry.origin in ("lifted", "calibrated"):
        assert isinstance(source, GridSource)
        return source.lift(name, start, stop)
    return quantize(source.read(name, start, stop), entry.bits, entry.group, name)


def _list(entries: dict[str, Entry], folder: Path, more: Mapping[str, object] = {}) -> None:
    listed = {
        "digest": digest(entry.sha256 for entry in entries.values()),
        **more,
        "tensors": {name: asdict(entry) for name, entry in entries.items()},
    }
    (folder / "weights.json").write_text(json.dumps(listed, indent=1))


def layouts(
    source: Source, config: DecoderConfig, scheme: Scheme, forms: Mapping[str, Form] | None = None
) -> dict[str, Entry]:
    """The layout of each tensor in the set, by headers alone; hashes are missing. What is not lifted has one of `forms`
    where it is among them."""
    entries, plain = {}, config.vectors()
    for name, shape in config.shapes().items():
        if name in plain:
            entries[name] = Entry(shape, 16, 0, "rounded")
            continue
        grid = source.grid(name) if isinstance(source, GridSource) else None
        if grid and scheme.lifts(name, grid):
            entries[name] = Entry(shape, *grid, "lifted")
        else:
            bits, group = (forms or {}).get(name) or scheme.of(name, shape[1])
            entries[name] = Entry(shape, bits, group, "rounded" if bits == 16 else "quantized")
    return entries


def stored_shapes(entries: dict[str, Entry]) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
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
