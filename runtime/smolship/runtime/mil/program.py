"""A package's functions, compiled when it is opened, and run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from smolship.runtime.errors import InputError, unknown
from smolship.runtime.mil.compiling import Compiled, Unpacked
from smolship.runtime.mil.instructions import BROKEN, Machine
from smolship.runtime.mil.package import ARRAY_TYPES, Declared, Package
from smolship.runtime.mil.slots import forget, own, update_in_place

Arithmetic = Literal["float32", "float16"]
State = dict[str, np.ndarray]


class Program:
    """The functions of a package.

    arithmetic  "float32": what is declared fp16 is computed and kept in float32; "float16": every operator's output is
                rounded to fp16 where it is declared so, while sums inside one operator are float32's
    nonfinite   how many infinities and NaNs an operator has made of finite numbers, by "operator in function"
    """

    def __init__(self, path: Path, arithmetic: Arithmetic = "float16"):
        package = Package(path)
        self.nonfinite: dict[str, int] = {}
        unpacked = Unpacked()
        program, description = package.program, package.model.description
        self.default = description.defaultFunctionName or next(iter(program.functions), "main")
        with np.errstate(all="ignore"):
            self.functions = {}
            for name, message in program.functions.items():
                machine = Machine(name, arithmetic == "float16", self.nonfinite)
                self.functions[name] = Function(Compiled(message, machine, package, unpacked), machine)

    def function(self, name: str) -> Function:
        if name not in self.functions:
            raise unknown("function of the package", name, self.functions)
        return self.functions[name]


class Function:
    """One function. `inputs` and `states` are declared types by name; `outputs` are names."""

    def __init__(self, code: Compiled, machine: Machine):
        update_in_place(code)
        forget(code)
        self.name, self.machine = machine.function, machine
        self.inputs, self.states, self.outputs, self.instructions = (
            code.inputs,
            code.states,
            code.outputs,
            code.instructions,
        )
        self._slot, self._kinds = code.slot, code.kinds
        self._start = [code.constants.get(i) for i in range(len(code.slot))]
        self._runners = [machine.runner(instruction) for instruction in code.instructions]

    def declared(self, name: str) -> Declared | None:
        """The type of a value; None of a constant that stands where it is used."""
        return self._kinds.get(self._slot[name])

    def new_state(self) -> State:
        """Zeros for every state."""
        return {name: np.zeros(d.shape, ARRAY_TYPES[d.dtype]) for name, d in self.states.items()}  # type: ignore[arg-type]

    def __call__(self, inputs: Mapping[str, np.ndarray], state: State | None = None) -> dict[str, np.ndarray]:
        """Run on arrays that must be as declared, changing `state`. Raises InputError that names the operator."""
        values: list[Any] = list(self._start)
        state = state or {}
        for kind, given, declared in (("input", inputs, self.inputs), ("state", state, self.states)):
            if set(given) != set(declared):
                raise InputError(
                    f"function {self.name} takes other {kind}s", got=sorted(given), expected=list(declared)
                )
            for name, array in given.items():
                self.machine.check(f"{kind} {name}", array, declared[name])
                values[self._slot[name]] = array
        at = 0
        try:
            with np.errstate(all="ignore"):
                for at, run in enumerate(self._runners):  # noqa: B007
                    run(values)
        except BROKEN as error:
            raise self.machine.refusal(self.instructions[at].name, error) from None
        return {name: own(values[self._slot[name]], state.values()) for name in self.outputs}
