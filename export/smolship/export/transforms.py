"""Where a checkpoint has our tensors: its name of each kind, and what is done to a stored tensor to get ours, as data.

Everything is read in rows, lazily: a transform wraps what a file gives (`Rows`) and is `Rows` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from smolship.export.config import Attention, DecoderConfig
from smolship.export.quantize import QuantTensor
from smolship.export.slots import Rows, row_chunks
from smolship.runtime.tensors import Name, parse

Shape = tuple[int, ...]


class Transform(Protocol):
    """How one kind of tensor is made of a stored one, whose `name` has {} for the layer."""

    @property
    def name(self) -> str: ...

    def stored_shape(self, ours: Name, config: DecoderConfig) -> Shape:
        """The shape of the stored tensor."""
        ...

    def apply(self, stored: Rows, ours: Name, config: DecoderConfig) -> Rows:
        """Ours."""
        ...


Names = Mapping[str, "str | Transform"]  # kind of tensor -> the stored name, or a transform


def source(names: Names, ours: str) -> tuple[str, Transform | None]:
    """The stored tensor that ours is made of, and how; None where it is that tensor."""
    name = parse(ours)
    entry = names[name.kind]
    stored, transform = (entry, None) if isinstance(entry, str) else (entry.name, entry)
    stored = stored.format(name.layer)
    return stored.removesuffix(".weight") + ".bias" if name.bias else stored, transform


def theirs(names: Names, ours: str) -> str:
    """The checkpoint's name of the tensor that ours is made of."""
    return source(names, ours)[0]


@dataclass(frozen=True)
class Fused:
    """One of several matrices (or biases) of `kinds` that are stored as one, the rows of each after the other's."""

    name: str
    kinds: tuple[str, ...]

    def _rows(self, ours: Name, config: DecoderConfig) -> dict[str, int]:
        shapes = config.shapes()
        return {kind: shapes[str(ours._replace(kind=kind))][0] for kind in self.kinds}

    def stored_shape(self, ours: Name, config: DecoderConfig) -> Shape:
        return sum(self._rows(ours, config).values()), *config.shapes()[str(ours)][1:]

    def apply(self, stored: Rows, ours: Name, config: DecoderConfig) -> Rows:
        rows = self._rows(ours, config)
        before = self.kinds[: self.kinds.index(ours.kind)]
        return Slice(stored, sum(rows[kind] for kind in before), rows[ours.kind])


@dataclass(frozen=True)
class Plus:
    """A gain that is stored as its distance from `amount`: w + amount (Gemma's 1 + w)."""

    name: str
    amount: float = 1.0

    def stored_shape(self, ours: Name, config: DecoderConfig) -> Shape:
        return config.shapes()[str(ours)]

    def apply(self, stored: Rows, ours: Name, config: DecoderConfig) -> Rows:
        return Sum(stored, self.amount)


@dataclass(frozen=True)
class Transposed:
    """A matrix that is stored [in, out]."""

    name: str

    def stored_shape(self, ours: Name, config: DecoderConfig) -> Shape:
        return config.shapes()[str(ours)][::-1]

    def apply(self, stored: Rows, ours: Name, config: DecoderConfig) -> Rows:
        return Turned(stored)


@dataclass(frozen=True)
class Squeezed:
    """A kernel [hidden, kernel] that is stored as [hidden, 1, kernel]. Its bias is stored as it is."""

    name: str

    def stored_shape(self, ours: Name, config: DecoderConfig) -> Shape:
        first, *rest = config.shapes()[str(ours)]
        return (first, 1, *rest) if rest else (first,)

    def apply(self, stored: Rows, ours: Name, config: DecoderConfig) -> Rows:
        return stored if ours.bias else Flat(stored)


@dataclass(frozen=True)
class Interleaved:
    """Queries or keys as llama.cpp stores them for some architectures (see `Unwoven`)."""

    name: str

    def stored_shape(self, ours: Name, config: DecoderConfig) -> Shape:
        return config.shapes()[str(ours)]

    def apply(self, stored: Rows, ours: Name, config: DecoderConfig) -> Rows:
        assert ours.layer is not None
        mixer = config.layers[ours.layer].mixer
        assert isinstance(mixer, Attention)
        return Unwoven(stored, mixer.head_dim)


@dataclass(frozen=True)
class Slice:
    """Rows `first`, `first` + 1, … of another tensor, `count` of them."""

    whole: Rows
    first: int
    count: int

    @property
    def shape(self) -> Shape:
        return self.count, *self.whole.shape[1:]

    @property
    def grid(self) -> tuple[int, int] | None:
        return self.whole.grid

    def _range(self, start: int, stop: int | None) -> tuple[int, int]:
        stop = self.count if stop is None else min(stop, self.count)
        return self.first + start, self.first + stop

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.whole.read(*self._range(start, stop))

    def lift(self, start: int = 0, stop: int | None = None) -> QuantTensor:
        return self.whole.lift(*self._range(start, stop))


@dataclass(frozen=True)
class Flat:
    """A tensor [rows, 1, width] as a matrix."""

    stored: Rows
    grid = None

    @property
    def shape(self) -> Shape:
        return self.stored.shape[0], self.stored.shape[2]

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.stored.read(start, stop)[:, 0]

    def lift(self, start: int = 0, stop: int | None = None) -> QuantTensor:
        raise TypeError("a kernel is on no grid")


@dataclass(frozen=True)
class Sum:
    """A tensor plus a number, in float32, as the original computes it."""

    stored: Rows
    amount: float
    grid = None

    @property
    def shape(self) -> Shape:
        return self.stored.shape

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.stored.read(start, stop).astype(np.float32) + np.float32(self.amount)

    def lift(self, start: int = 0, stop: int | None = None) -> QuantTensor:
        raise TypeError("a sum is on no grid")


@dataclass(frozen=True)
class Turned:
    """A matrix with its rows and columns exchanged. Some rows of it are read without holding more than about
    4 million numbers of the other besides."""

    stored: Rows
    grid = None

    @property
    def shape(self) -> Shape:
        return self.stored.shape[::-1]

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        rows, width = self.stored.shape
        pieces = [self.stored.read(*piece)[:, start:stop] for piece in row_chunks(rows, width)]
        return np.ascontiguousarray(np.concatenate(pieces).T)

    def lift(self, start: int = 0, stop: int | None = None) -> QuantTensor:
        raise TypeError("groups of a transposed matrix lie along its columns")


@dataclass(frozen=True)
class Unwoven:
    """Queries or keys in the order of halves.

    llama.cpp rotates neighbours (0, 1), (2, 3), … where transformers rotates halves (0, d/2), (1, d/2 + 1), …, so its
    converter stores row s * d/2 + p of each head of `size` rows, s in 0, 1, at 2 p + s. In layers without rotary
    embedding, too: the converter does not tell them apart.
    """

    stored: Rows
    size: int

    @property
    def shape(self) -> Shape:
        return self.stored.shape

    @property
    def grid(self) -> tuple[int, int] | None:
        return self.stored.grid

    def _heads(self, start: int, stop: int | None) -> tuple[int, int, slice]:
        """First and last + 1 stored row of the heads that are touched, and which of theirs are wanted."""
        stop = self.shape[0] if stop is None else min(stop, self.shape[0])
        first, last = start // self.size * self.size, -(-stop // self.size) * self.size
        return first, last, slice(start - first, stop - first)

    def _order(self, rows: np.ndarray) -> np.ndarray:
        pairs = rows.reshape(-1, self.size // 2, 2, *rows.shape[1:])
        return pairs.swapaxes(1, 2).reshape(rows.shape)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        first, last, wanted = self._heads(start, stop)
        return self._order(self.stored.read(first, last))[wanted]

    def lift(self, start: int = 0, stop: int | None = None) -> QuantTensor:
        first, last, wanted = self._heads(start, stop)
        q = self.stored.lift(first, last)
        return QuantTensor(self._order(q.codes)[wanted], self._order(q.scales)[wanted], q.bits, q.group, q.origin)
