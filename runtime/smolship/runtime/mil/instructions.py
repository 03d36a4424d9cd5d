"""Instructions, which a function is compiled to: one operator each, on values that lie in numbered slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from smolship.runtime.errors import InputError
from smolship.runtime.mil import matrix, packed, pointwise, tensors
from smolship.runtime.mil.package import ARRAY_TYPES, Declared

OPERATORS: dict[str, Callable[..., Any]] = {
    **pointwise.OPERATORS,
    **matrix.OPERATORS,
    **tensors.OPERATORS,
    **packed.OPERATORS,
}
LISTS = {"concat", "stack", "einsum"}  # their `values` are a list, of one even
BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, MemoryError)


@dataclass
class Instruction:
    """One operator, ready to run.

    inputs   slots by parameter; a tuple of slots where the parameter takes a list
    bound    the function with its constants
    outputs  slot and declared type of each result
    done     slots that nobody reads afterwards
    """

    kind: str
    name: str
    bound: Callable[..., Any]
    inputs: list[tuple[str, int | tuple[int, ...]]]
    outputs: list[tuple[int, Declared]]
    done: list[int] = field(default_factory=list)

    @property
    def reads(self) -> Iterator[int]:
        for _, slot in self.inputs:
            yield from (slot,) if isinstance(slot, int) else slot

    @property
    def slots(self) -> list[int]:
        return [slot for slot, _ in self.outputs]


@dataclass(frozen=True)
class Machine:
    """What runs the instructions of one function.

    half       whether results that are declared fp16 are rounded to it
    nonfinite  how many infinities and NaNs an operator has made of finite numbers, by "operator in function"
    """

    function: str
    half: bool
    nonfinite: dict[str, int]

    def runner(self, instruction: Instruction) -> Callable[[list[Any]], None]:
        """A function that runs `instruction` on the slots."""
        bound, inputs, done, kind = instruction.bound, instruction.inputs, instruction.done, instruction.kind
        single = instruction.outputs[0] if len(instruction.outputs) == 1 else None
        finish = self._finish

        def run(values: list[Any]) -> None:
            given = {n: values[s] if type(s) is int else [values[i] for i in s] for n, s in inputs}  # type: ignore[union-attr]
            if kind in LISTS and type(given["values"]) is not list:
                given["values"] = [given["values"]]
            made = bound(**given)
            if single is not None:
                values[single[0]] = finish(instruction, single[1], made[0] if type(made) is list else made, given)
            else:
                results = made if isinstance(made, tuple | list) else ()
                for (slot, declared), result in zip(instruction.outputs, results, strict=True):
                    values[slot] = finish(instruction, declared, result, given)
            for slot in done:
                values[slot] = None

        return run

    def _finish(self, instruction: Instruction, declared: Declared, made: Any, given: dict[str, Any]) -> np.ndarray:
        """Check a result against what is declared, and round it."""
        made, wanted = np.asarray(made), ARRAY_TYPES[declared.dtype]
        if made.dtype != wanted:
            indices = made.dtype == np.int64 and np.dtype(wanted).kind == "u"  # numpy's type of an index
            # A product with a constant of another type is of the other operand's.
            mixed = instruction.kind == "matmul" and {value.dtype for value in given.values()} == {np.dtype(wanted)}
            if made.dtype.kind != np.dtype(wanted).kind and not indices and not mixed:
                raise ValueError(f"it gives {made.dtype}, and declares {declared}")
            made = made.astype(wanted)  # indices and counts are int64 in numpy
        if made.shape != declared.shape and not declared.fits(made.shape):
            raise ValueError(f"it gives shape {list(made.shape)}, and declares {declared}")
        if instruction.kind in tensors.MOVES or made.dtype.kind != "f":
            return made
        if self.half and declared.dtype == "fp16":
            made = made.astype(np.float16).astype(np.float32)
        if not np.isfinite(made).all() and all(map(_finite, given.values())):
            where = f"{instruction.name} in function {self.function}"
            self.nonfinite[where] = self.nonfinite.get(where, 0) + int(made.size - np.isfinite(made).sum())
        return made

    def check(self, what: str, array: np.ndarray, declared: Declared) -> None:
        """Refuses an array that is not as declared."""
        wanted = ARRAY_TYPES[declared.dtype]
        if (array.dtype != wanted and wanted is not np.str_) or not declared.fits(array.shape):
            raise InputError(
                f"{what} of function {self.function} is not as declared",
                got=f"{array.dtype} {list(array.shape)}",
                expected=declared,
            )

    def refusal(self, operator: str, error: BaseException) -> InputError:
        """Of an operator (its type and name) that ran into `error`."""
        got = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        return InputError(
            f"operator {operator} in function {self.function} cannot be run", got=got, todo="export the package again"
        )


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_finite, value))
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())
