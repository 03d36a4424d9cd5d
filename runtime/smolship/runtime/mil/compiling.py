"""Compiling a function of an ML program to a list of instructions. What depends on constants alone is computed here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from smolship.runtime.errors import InputError, clip, show
from smolship.runtime.mil.instructions import BROKEN, OPERATORS, Instruction, Machine
from smolship.runtime.mil.package import Declared, Package, declaration

STATEFUL = {"read_state", "write_state"}
FLOATS = {"fp16", "fp32", "fp64"}
NARROW = {("linear", "weight"), ("gather", "x")}  # operands that may be float16 arrays
WIDE = 1 << 30  # bytes of decompressed constants in float32, beyond which further ones are float16


class Unpacked(dict[Any, list[np.ndarray]]):
    """Decompressed constants by operator, declared types and what they are made of; functions of a package share them.

    The first are float32, as products need them. Further ones that were rounded to fp16 are kept as float16 arrays:
    half the memory, and a conversion in each product.
    """

    wide = 0  # bytes in float32

    def add(self, key: tuple[Any, ...], made: list[np.ndarray], half: bool) -> None:
        """`key` has the declared types in its second place; `half`: what is declared fp16 is rounded to it."""
        for i, (declared, value) in enumerate(zip(key[1], made, strict=True)):
            if half and declared.dtype == "fp16" and self.wide + value.nbytes > WIDE:
                made[i] = value.astype(np.float16)
            else:
                self.wide += value.nbytes
        self[key] = made


class Compiled:
    """One function as it was compiled.

    slot       the number of each value, by name
    kinds      declared types by slot
    constants  values by slot
    inputs, states  declared types by name
    outputs    names
    unpacked   decompressed constants
    """

    def __init__(self, message: Any, machine: Machine, package: Package, unpacked: Unpacked):
        self.machine, self.package, self.unpacked = machine, package, unpacked
        self.slot: dict[str, int] = {}
        self.kinds: dict[int, Declared] = {}
        self.constants: dict[int, np.ndarray] = {}
        self.unnamed: set[int] = set()  # slots of constants that stand where they are used
        self.instructions: list[Instruction] = []
        self.inputs: dict[str, Declared] = {}
        self.states: dict[str, Declared] = {}
        for value in message.inputs:
            where = self.states if value.type.WhichOneof("type") == "stateType" else self.inputs
            where[value.name] = self._declare(value)[1]
        name, blocks = machine.function, message.block_specializations
        if message.opset not in blocks:
            raise InputError(f"function {name} of the package has no body", got=list(blocks), expected=message.opset)
        for operation in blocks[message.opset].operations:
            with self._refusals(operation):
                self._compile(operation)
        self.outputs: list[str] = list(blocks[message.opset].outputs)
        for output in self.outputs:
            if output not in self.slot:
                raise InputError(f"function {name} of the package gives what it does not make", got=output)

    def _declare(self, value: Any) -> tuple[int, Declared]:
        function = self.machine.function
        try:
            declared = declaration(value.type)
        except ValueError as error:
            raise InputError(f"a value of function {function} cannot be used", got=f"{value.name}: {error}") from None
        if value.name in self.slot:
            raise InputError(f"function {function} makes a value twice", got=value.name)
        self.slot[value.name] = slot = len(self.slot)
        self.kinds[slot] = declared
        return slot, declared

    def _compile(self, operation: Any) -> None:
        kind = operation.type
        if kind == "const":
            ((slot, declared),) = [self._declare(value) for value in operation.outputs]
            constant = self.package.value(operation.attributes["val"])
            self.machine.check(operation.outputs[0].name, constant, declared)
            if where := self.package.place(constant):
                key = (kind, (declared,), where)
                if key not in self.unpacked:
                    self.unpacked.add(key, [constant], True)
                (constant,) = self.unpacked[key]
            self.constants[slot] = constant
            return
        if kind not in OPERATORS or operation.blocks:
            raise InputError(
                f"unknown operator {clip(kind)} in function {self.machine.function}",
                got=_label(operation),
                expected="one of " + ", ".join(sorted(OPERATORS)),
            )
        inputs = {name: self._argument(argument) for name, argument in operation.inputs.items()}
        for name, value in operation.attributes.items():
            if name != "name":
                inputs[name] = self._constant(self.package.value(value))
        outputs = [self._declare(value) for value in operation.outputs]
        instruction = Instruction(kind, _label(operation), OPERATORS[kind], list(inputs.items()), outputs)
        self._check_types(instruction, inputs)
        if kind not in STATEFUL and all(slot in self.constants for slot in instruction.reads):
            self._fold(instruction)
            return
        constants = {
            name: self.constants[slot] if (kind, name) in NARROW else _wide(self.constants[slot])
            for name, slot in instruction.inputs
            if isinstance(slot, int) and slot in self.constants
        }
        instruction.bound = partial(instruction.bound, **{name: _python(value) for name, value in constants.items()})
        instruction.inputs = [(name, slot) for name, slot in instruction.inputs if name not in constants]
        self.instructions.append(instruction)

    def _argument(self, argument: Any) -> int | tuple[int, ...]:
        slots = tuple(self._binding(binding) for binding in argument.arguments)
        return slots[0] if len(slots) == 1 else slots

    def _binding(self, binding: Any) -> int:
        if binding.WhichOneof("binding") == "value":
            return self._constant(self.package.value(binding.value))
        if binding.name not in self.slot:
            raise ValueError(f"{show(binding.name)} is not there yet")
        return self.slot[binding.name]

    def _constant(self, value: np.ndarray) -> int:
        slot = self.slot[f"constant {len(self.slot)}"] = len(self.slot)
        self.unnamed.add(slot)
        self.constants[slot] = value
        return slot

    def _check_types(self, instruction: Instruction, inputs: dict[str, Any]) -> None:
        """Floats keep their type, unless they are cast to that which is declared."""
        declared = {kind.dtype for _, kind in instruction.outputs} & FLOATS
        if instruction.kind in ("cast", "constexpr_cast"):
            said = {str(self.constants[inputs["dtype" if instruction.kind == "cast" else "output_dtype"]])} & FLOATS
        else:
            said = {self.kinds[slot].dtype for slot in instruction.reads if slot in self.kinds} & FLOATS or declared
        if not declared <= said:
            raise ValueError(f"it is declared to give {sorted(declared)}, and gives {sorted(said)}")

    def _fold(self, instruction: Instruction) -> None:
        """Run an instruction whose inputs are all constants."""
        values: list[Any] = [None] * len(self.slot)
        for slot in instruction.reads:
            values[slot] = _wide(self.constants[slot])
        packed = instruction.kind.startswith("constexpr_")
        given = ((name, self._key(values[slot])) for name, slot in instruction.inputs if isinstance(slot, int))
        key = (instruction.kind, tuple(declared for _, declared in instruction.outputs), *given)
        if not packed or key not in self.unpacked:
            self.machine.runner(instruction)(values)
            made = [values[slot] for slot in instruction.slots]
            if packed:
                self.unpacked.add(key, made, self.machine.half)
        self.constants.update(zip(instruction.slots, self.unpacked[key] if packed else made, strict=True))
        for slot in self.unnamed.intersection(instruction.reads):  # nothing else can read it
            self.constants.pop(slot, None)

    def _key(self, value: np.ndarray) -> Any:
        """Equal for equal constants: a blob's place, and what lies in the program itself."""
        return self.package.place(value) or (value.dtype.str, value.shape, value.tobytes())

    @contextmanager
    def _refusals(self, operation: Any) -> Iterator[None]:
        """Whatever breaks inside becomes an InputError that names the operator."""
        try:
            yield
        except BROKEN as error:
            raise self.machine.refusal(_label(operation), error) from None


def _label(operation: Any) -> str:
    name = operation.outputs[0].name if operation.outputs else "without output"
    return f"{clip(operation.type, 60)} {clip(name, 80)}"


def _wide(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _python(value: np.ndarray) -> Any:
    """Texts as Python's own: numpy's scalars are slow to compare."""
    return str(value) if value.dtype.kind == "U" and value.ndim == 0 else value
