"""A session: one open model with its cache, whatever the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol

import numpy as np

from smolship.runtime.errors import InputError
from smolship.runtime.records import LATER

INTERPRETER = "interpreter"  # a runtime of our own: its speed is not the engine's


@dataclass(frozen=True)
class Traits:
    """What a plan must know of the session that it is made for; see `Session`."""

    vocab: int
    capacity: int
    chunk: int | None = None
    blocks: tuple[int, ...] = ()
    runtime: str = ""
    presets: bool = False
    computes: str | None = None
    tokenizer: str | None = field(default=None, metadata=LATER)  # whose it is, where there is one


class EngineTokenizer(Protocol):
    """The tokenizer that an engine brings along; `name` says whose it is."""

    name: str

    def encode(self, text: str, special: bool = True) -> list[int] | None:
        """Token ids, with what the model wants around a text where it is `special`; None where it cannot."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Their text."""
        ...


def over_and_over(rows: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` [T, G, K] with the rows [N, G, K], again from the first where they end, each time scaled by another
    factor between 1/2 and 1: sums of equal terms would all be rounded in one direction, as those of no text are. The
    numbers are fp16's, so that every engine holds them exactly."""
    if rows.shape[1:] != out.shape[1:] or not len(rows):
        raise ValueError(f"{list(rows.shape)} where there is room for {list(out.shape)}")
    for turn, start in enumerate(range(0, len(out), len(rows))):
        scaled = rows[: len(out) - start] * np.float32(1 - turn * 619 % 2048 / 4096)
        out[start : start + len(rows)] = scaled.astype(np.float16)


class Session(ABC):
    """Feeds token ids to a model and keeps its place in the cache.

    vocab     size of the vocabulary
    capacity  tokens that the cache holds
    position  tokens that it holds now
    """

    # The most tokens that one call of the engine takes; longer inputs are fed in chunks of this size.
    chunk: int | None = None
    # Further lengths, of a call or of the cache, from which on the engine computes in another way: parity looks at
    # both sides of each.
    blocks: tuple[int, ...] = ()
    # What runs it, where one engine name stands for more than one runtime: "Core ML" or "interpreter".
    runtime: str = ""
    # Whether `preset` can be asked of it.
    presets: bool = False
    # In what arithmetic, where the engine chooses that by the processor.
    computes: str | None = None
    # The engine's own, where it has one: plans can have strings for it.
    tokenizer: EngineTokenizer | None = None

    def __init__(self, vocab: int, capacity: int):
        self.vocab, self.capacity, self.position = vocab, capacity, 0

    @abstractmethod
    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        """Run int64 `ids` [S], the first at `position`, S at least 1 -> logits of the last, float32 [V]. The array may
        be the engine's own buffer: it holds until the next call."""

    def cache(self, layer: int) -> tuple[np.ndarray, ...] | None:
        """Copies of one layer's state: keys, as rotated, and values, float32 [position, kv_heads, head_dim], or what a
        convolution was given, [position, 1, width]. None where the engine does not show it. Parity finds the layer
        where a drift begins with it."""
        return None

    def preset(self, layers: Sequence[np.ndarray], count: int) -> None:
        """Begin anew behind `count` tokens that are not fed: their state is that of `layers`, float32
        [2, N, kv_heads, head_dim] or [1, N, 1, width] each, `over_and_over`. So the end of a long cache can be looked
        at without the text that would fill it, which takes time for the square of its length."""
        if not 0 <= count <= self.capacity:
            raise InputError("the cache does not hold so many tokens", got=count, expected=f"at most {self.capacity:,}")
        self.rewind(0)
        try:
            self._preset(layers, count)
        except (ValueError, IndexError, RuntimeError) as error:
            raise InputError(
                "the keys and values are not of this model's shape", got=error, todo="export the bundle again"
            ) from None
        self.position = count

    def _preset(self, layers: Sequence[np.ndarray], count: int) -> None:
        """Write them to positions 0 to `count`. Raises ValueError, IndexError or RuntimeError where they do not fit."""
        raise InputError("this engine does not let its cache be written")

    @property
    def traits(self) -> Traits:
        return Traits(
            self.vocab,
            self.capacity,
            self.chunk,
            tuple(self.blocks),
            self.runtime,
            self.presets,
            self.computes,
            self.tokenizer.name if self.tokenizer else None,
        )

    @property
    def nonfinite(self) -> list[str]:
        """Infinities and NaNs met so far, each with the operator that made it, where the engine shows them."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Give the engine's memory back. A closed session cannot be used."""

    def forward(self, ids: Sequence[int] | np.ndarray, logits: Literal["last", "all"] = "last") -> np.ndarray:
        """Append `ids` (1-D) to the cache and return logits, float32 [1, V], or [S, V] for "all".

        The artifacts compute the last token's logits only, so "all" feeds the tokens one by one: it tests decode, not
        prefill. Raises InputError where an id is not in the vocabulary or the cache would overflow; the session is
        then as it was. An interrupt leaves it behind the last call of the engine that was counted: what a call wrote
        beyond `position` never holds.
        """
        array = self._checked(ids)
        if logits == "all":
            out = np.empty((len(array), self.vocab), np.float32)
            for i in range(len(array)):
                out[i] = self._run(array[i : i + 1], self.position)
                self.position += 1
            return out
        step = self.chunk or len(array)
        for start in range(0, len(array), step):
            last = self._run(array[start : start + step], self.position)
            self.position += len(array[start : start + step])
        return np.array(last, np.float32, ndmin=2)

    @property
    def earliest(self) -> int:
        """How far back `rewind` reaches: the earliest position that the state still knows, besides 0, where it begins
        anew. Engines that keep the whole context know all."""
        return 0

    def rewind(self, to: int) -> None:
        """Forget all tokens from position `to` on, which is 0 or at least `earliest`; the next `forward` continues
        there."""
        if to != 0 and not self.earliest <= to <= self.position:
            expected = f"0, or a position from {self.earliest:,} to {self.position:,}"
            raise InputError("cannot rewind to there", got=to, expected=expected)
        self.position = to

    def _checked(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        array = np.ascontiguousarray(ids, dtype=np.int64)
        if array.ndim != 1 or not len(array):
            raise InputError("token ids must be a list with something in it", got=f"shape {array.shape}")
        if self.position + len(array) > self.capacity:
            raise InputError(
                "the prompt is longer than the context",
                got=f"{len(array):,} tokens after {self.position:,}",
                expected=f"at most {self.capacity - self.position:,}",
                todo="shorten it, or export with a larger --context",
            )
        if array.min() < 0 or array.max() >= self.vocab:
            raise InputError(
                "a token id is not in the vocabulary",
                got=array[(array < 0) | (array >= self.vocab)][0],
                expected=f"0 to {self.vocab - 1:,}",
            )
        return array

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
