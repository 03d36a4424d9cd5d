"""A session of an engine that gives up what lies far behind: of windows, or of the states of convolutions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from smolship.runtime.errors import InputError
from smolship.runtime.session import Session


class ForgetfulSession(Session):
    """A session that feeds the text again where it is rewound further back than the state reaches, in as much time as
    that took before. Behind a preset, of which nobody knows the tokens, it cannot.

    fed      the token at each position
    unknown  positions whose tokens were not fed
    """

    chunk: int

    def __init__(self, vocab: int, capacity: int):
        super().__init__(vocab, capacity)
        self.fed = np.zeros(capacity, np.int64)
        self.unknown = 0

    @property
    @abstractmethod
    def _held(self) -> int:
        """Tokens that the engine's state is of. It differs from `position` behind an interrupt."""

    @property
    @abstractmethod
    def _reach(self) -> int:
        """The earliest position, besides 0, to which the state can be cut."""

    @abstractmethod
    def _drop(self, to: int) -> None:
        """Cut the state to `to` tokens: 0, or from `_reach` to `_held`."""

    @abstractmethod
    def _decode(self, tokens: np.ndarray, position: int) -> np.ndarray:
        """As `_run`, of tokens that follow the state."""

    def _run(self, ids: np.ndarray, position: int) -> np.ndarray:
        held = self._held
        if held > position:  # an interrupt came before the count
            self._cut(position)
        elif held < position:  # or while the text was fed again
            self._feed_again(position)
        self.fed[position : position + len(ids)] = ids
        return self._decode(self.fed[position : position + len(ids)], position)

    @property
    def earliest(self) -> int:
        return self._reach if self.unknown else 0

    def rewind(self, to: int) -> None:
        super().rewind(to)
        self.unknown = min(self.unknown, to)
        self._cut(to)

    def _cut(self, to: int) -> None:
        if 0 < to < self._reach:
            self._feed_again(to)
        elif to < self._held:
            self._drop(to)

    def _feed_again(self, to: int) -> None:
        if self.unknown:
            raise InputError(
                "the state was lost in a call that broke off, behind tokens that were not fed",
                got=f"{self.unknown:,} tokens of a preset",
                todo="rewind to 0, and preset again",
            )
        self._drop(0)
        for start in range(0, to, self.chunk):
            self._decode(self.fed[start : min(start + self.chunk, to)], start)

    def preset(self, layers: Sequence[np.ndarray], count: int) -> None:
        super().preset(layers, count)
        self.unknown = count
