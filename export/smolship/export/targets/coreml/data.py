"""The constants of a Core ML program: our weights under our names, read only when coremltools writes them.

A quantized matrix is one `constexpr_blockwise_shift_scale`: our codes (int4 or int8) and our scales as fp16, which hold
them exactly; what Core ML makes of it is code * scale in fp16. What is not quantized is fp16 as it is in the set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from smolship.export.targets import Job
from smolship.export.targets.coreml.light import Var, mb, types

HALF = np.dtype(np.float16)
CODES = {4: types.np_int4_dtype, 8: np.dtype(np.int8)}


class Streamed(np.ndarray):
    """An array of a shape and a type, without memory: its numbers are read as coremltools writes it to the file, which
    it does by `flatten`."""

    read: Callable[[], np.ndarray]

    @staticmethod
    def of(dtype: np.dtype, shape: Sequence[int], read: Callable[[], np.ndarray]) -> Streamed:
        array = np.broadcast_to(np.zeros((), dtype), tuple(shape)).view(Streamed)
        array.read = read
        return array

    def flatten(self, order: Any = "C") -> np.ndarray:
        numbers = self.read()
        assert numbers.shape == self.shape and numbers.dtype == self.dtype
        return numbers.reshape(-1)


def identifier(name: str) -> str:
    """Our name as MIL writes it: letters, digits and underscores."""
    return name.replace(".", "_")


class Constants:
    """Makes the constants of one program. What several functions hold under one name lies in the file once."""

    def __init__(self, job: Job):
        self.job, self.weights = job, job.weights
        self.waiting: set[str] = set()  # tensors that no file holds yet
        self.total = 0

    def weight(self, name: str) -> Var:
        """A matrix or a vector of the set, in the function that is open."""
        entry, label = self.weights.entries[name], identifier(name)
        if entry.bits == 16:
            return self._streamed(name, label, HALF, entry.shape, lambda: self.weights.values(name).astype(HALF))
        rows, width = entry.shape
        blocks = (rows, width // entry.group)
        codes = self._streamed(name, f"{label}_codes", CODES[entry.bits], entry.shape, lambda: self._codes(name))
        scales = self._streamed(name, f"{label}_scales", HALF, blocks, lambda: self.weights.scales(name).astype(HALF))
        return mb.constexpr_blockwise_shift_scale(data=codes, scale=scales, name=label)

    def array(self, name: str, values: np.ndarray) -> Var:
        """A small array of our own."""
        constant = mb.const(val=values, name=name)
        constant.op.weight_id = name
        return constant

    def check(self) -> None:
        """coremltools must have asked for every tensor: what it did not read, it wrote as zeros."""
        assert not self.waiting, f"coremltools wrote {sorted(self.waiting)} without reading them"

    def _codes(self, name: str) -> np.ndarray:
        codes = self.weights.tensor(name).codes
        return codes.view(CODES[self.weights.entries[name].bits])

    def _streamed(
        self, name: str, label: str, dtype: np.dtype, shape: tuple[int, ...], read: Callable[[], np.ndarray]
    ) -> Var:
        def reading() -> np.ndarray:
            self.waiting.discard(label)
            self.job.progress(name, self.total - len(self.waiting), self.total)
            return read()

        constant = mb.const(val=Streamed.of(dtype, shape, reading), name=label)
        constant.op.weight_id = label
        self.waiting.add(label)
        self.total = len(self.waiting)
        return constant
