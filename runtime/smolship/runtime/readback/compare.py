"""Whether each artifact of a bundle holds the set of weights that the bundle says it holds, to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from smolship.runtime.bundle import Bundle
from smolship.runtime.errors import InputError, clip, unknown
from smolship.runtime.files import inside, read_json
from smolship.runtime.readback.hashing import Entry, TensorHash, digest
from smolship.runtime.readback.stored import Rows, StoredTensor

READERS = {  # engine -> module that reads its files
    "coreml": "smolship.runtime.readback.coreml",
    "executorch": "smolship.runtime.readback.pte",
    "gguf": "smolship.runtime.readback.gguf",
    "onnx": "smolship.runtime.readback.onnx",
}
CHUNK = 1 << 22  # numbers held at once
EQUAL, MISSING, DIFFERENT = "equal", "missing", "different"

Entries = Mapping[str, Entry]
Progress = Callable[[str, int, int], None]  # (target, tensors done, total)


@dataclass
class Comparison:
    """What one target holds, compared with what it should.

    entries  what it should hold
    found    tensor -> EQUAL, MISSING, or what is wrong with it; tensors that it should not hold are in it, too
    """

    target: str
    entries: dict[str, Entry]
    found: dict[str, str] = field(default_factory=dict)

    @property
    def wrong(self) -> dict[str, str]:
        return {name: what for name, what in self.found.items() if what != EQUAL}


def expected(bundle: Bundle, target: str | None = None) -> dict[str, Entry]:
    """The tensors of the bundle's set, or of the set that a target holds instead, as their list says. Raises InputError
    where the list does not have the manifest's digest."""
    own = bundle.entry(target).own_digest if target else None
    name = f"weights-{target}.json" if own else "weights.json"
    raw, wanted = read_json(bundle.path / name, name), own or bundle.manifest.weights_digest
    try:
        entries = {tensor: _entry(entry) for tensor, entry in raw["tensors"].items()}
        found = digest(entry.sha256 for entry in entries.values())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{name} cannot be used", got=clip(error), expected="as `smolship export` wrote it") from None
    if found != wanted:
        raise InputError(
            f"{name} is not the manifest's",
            got=f"digest {found}",
            expected=wanted,
            todo="export it again, or copy it again",
        )
    return entries


def _entry(raw: dict[str, Any]) -> Entry:
    """One tensor of weights.json."""
    entry = Entry(**{**raw, "shape": tuple(raw["shape"])})
    if any(type(n) is not int or n < 0 for n in (*entry.shape, entry.bits, entry.group)) or not all(entry.shape):
        raise ValueError(f"a tensor of shape {entry.shape}, {entry.bits} bits, group {entry.group}")
    if entry.bits not in (4, 8, 16) or (entry.bits < 16 and (len(entry.shape) != 2 or not entry.group)):
        raise ValueError(f"{entry.bits} bits for shape {entry.shape}")
    return entry


def stored(bundle: Bundle, target: str, entries: Entries) -> Iterator[StoredTensor]:
    """Every tensor that a target's file holds, one at a time; each of several copies comes by itself."""
    entry = bundle.entry(target)
    if entry.engine not in READERS:
        raise unknown("engine", entry.engine, READERS)
    reader: Any = import_module(READERS[entry.engine])
    folder = bundle.path / entry.folder
    inside(folder, entry.info["file"])
    yield from reader.read(folder, entry.info["file"], {name: e.shape for name, e in entries.items()})


def compare(
    bundle: Bundle, targets: Iterable[str], progress: Progress = lambda target, done, total: None
) -> list[Comparison]:
    """Read the weights of each target and compare them with the set's digest. Hashes of files play no part in it."""
    comparisons = [check(bundle, target, progress) for target in targets]
    if not comparisons:
        raise InputError("the bundle holds no target", got=bundle.path)
    for one in comparisons:
        for name, what in one.wrong.items():
            right = next((other.target for other in comparisons if _vouches(other, name, one.entries)), None)
            if right is not None and what == DIFFERENT:
                one.found[name] = f"{what}: {difference(bundle, name, one.entries, one.target, right)}"
    return comparisons


def _vouches(other: Comparison, name: str, entries: Entries) -> bool:
    """Whether a target holds the tensor that another should hold."""
    return other.found.get(name) == EQUAL and other.entries[name].sha256 == getattr(entries.get(name), "sha256", None)


def check(bundle: Bundle, target: str, progress: Progress) -> Comparison:
    """One target by itself."""
    entries = expected(bundle, target)
    comparison = Comparison(target, entries)
    for tensor in stored(bundle, target, entries):
        what = judge(tensor, entries)
        if comparison.found.get(tensor.name, EQUAL) == EQUAL:  # of several copies, the first that differs
            comparison.found[tensor.name] = what
        progress(target, len(comparison.found), len(entries))
    comparison.found |= {name: MISSING for name in entries if name not in comparison.found}
    return comparison


def judge(tensor: StoredTensor, entries: Entries) -> str:
    """EQUAL, or in what a tensor differs from what the set says of it."""
    entry = entries.get(tensor.name)
    if entry is None:
        return "not of the set"
    fits = tensor.bits == entry.bits or (tensor.bits, entry.bits) == (8, 4)  # some kernels want a byte a code
    if tensor.shape != entry.shape or not fits:
        return f"{tensor.bits} bits of shape {list(tensor.shape)}, not {entry.bits} of {list(entry.shape)}"
    hashed = TensorHash(tensor.name, entry)
    try:
        for start, stop in chunks(entry.shape):
            hashed.update(*canonical(tensor, entry, start, stop))
    except ValueError as error:
        return str(error)
    return EQUAL if hashed.hexdigest() == entry.sha256 else DIFFERENT


def chunks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Row ranges of at most about CHUNK numbers."""
    step = max(CHUNK // math.prod(shape[1:]), 1)
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def canonical(tensor: StoredTensor, entry: Entry, start: int, stop: int) -> Rows:
    """Rows as the digest wants them. Raises ValueError where the file holds what no set of ours could make of them."""
    values, scales = tensor.read(start, stop)
    if scales is None:
        return half(values, f"values in rows {start:,} to {stop - 1:,}"), None
    width = entry.shape[1]
    if values[:, width:].any():
        raise ValueError(f"padding that is not 0 in rows {start:,} to {stop - 1:,}")
    repeats = entry.group // tensor.block if entry.group < width else scales.shape[1]
    if repeats < 1 or (entry.group % tensor.block and entry.group < width):
        raise ValueError(f"a scale for {tensor.block} inputs, not {entry.group}")
    grouped = scales.reshape(len(scales), -1, repeats)
    strange = (grouped != grouped[:, :, :1]).any(axis=(1, 2))
    if strange.any():
        raise ValueError(f"scales of one group that differ in row {start + int(strange.argmax()):,}")
    return values[:, :width], half(grouped[:, :, 0], f"scales in rows {start:,} to {stop - 1:,}")


def half(values: np.ndarray, what: str) -> np.ndarray:
    """The same numbers as fp16."""
    with np.errstate(over="ignore", invalid="ignore"):
        halved = values.astype("<f2")
    if not np.array_equal(halved.astype(values.dtype).view(np.uint8), np.ascontiguousarray(values).view(np.uint8)):
        raise ValueError(f"{what} that are no fp16 numbers")
    return halved


def difference(bundle: Bundle, name: str, entries: Entries, target: str, right: str) -> str:
    """Where a tensor of one target differs from another's, which is as the set says."""
    entry = entries[name]
    true = next(tensor for tensor in stored(bundle, right, entries) if tensor.name == name)
    for tensor in (tensor for tensor in stored(bundle, target, entries) if tensor.name == name):
        try:
            counts, first = _count(tensor, true, entry)
        except ValueError:
            continue  # its verdict has said so
        if first is not None:
            kinds = ("codes", "scales") if entry.bits < 16 else ("values",)
            said = " and ".join(f"{n:,} of its {kind}" for n, kind in zip(counts, kinds, strict=False) if n)
            return f"{said}, first in row {first:,} (the rest as in {right})"
    return f"{right} has it"


def _count(tensor: StoredTensor, true: StoredTensor, entry: Entry) -> tuple[list[int], int | None]:
    """How many codes (or values) and scales differ, and in which row first."""
    counts, first = [0, 0], None
    for start, stop in chunks(entry.shape):
        mine, theirs = canonical(tensor, entry, start, stop), canonical(true, entry, start, stop)
        for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            if a is None or b is None:
                continue
            differs = (a != b).reshape(len(a), -1)
            counts[i] += int(differs.sum())
            if differs.any():
                row = start + int(differs.any(axis=1).argmax())
                first = row if first is None else min(first, row)
    return counts, first
