"""Compiling a function of an ML program to a list of steps, once, and running it.

What depends on constants alone is computed while compiling. A value lives in a numbered slot until its last reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from smolship.runtime.errors import InputError, clip, show, unknown
from smolship.runtime.mil import matrix, packed, pointwise, tensors
from smolship.runtime.mil.package import HELD, Declared, Package, declaration

OPERATORS: dict[str, Callable[..., Any]] = {
    **pointwise.OPERATORS,
    **matrix.OPERATORS,
    **tensors.OPERATORS,
    **packed.OPERATORS,
}
STATEFUL = {"read_state", "write_state"}
FLOATS = {"fp16", "fp32", "fp64"}
BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, MemoryError)
Arithmetic = Literal["float32", "float16"]
State = dict[str, np.ndarray]


@dataclass
class Step:
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


class Program:
    """The functions of a package.

    arithmetic  "float32": what is declared fp16 is computed and kept in float32; "float16": every operator's output is
                rounded to fp16 where it is declared so, while sums inside one operator are float32's
    nonfinite   how many infinities and NaNs an operator has made of finite numbers, by "operator in function"
    """

    def __init__(self, path: Path, arithmetic: Arithmetic = "float16"):
        self.package, self.half = Package(path), arithmetic == "float16"
        self.nonfinite: dict[str, int] = {}
        self.unpacked: dict[Any, Any] = {}  # decompressed constants, which functions share
        program, description = self.package.program, self.package.model.description
        self.default = description.defaultFunctionName or next(iter(program.functions), "main")
        with np.errstate(all="ignore"):
            self.functions = {name: Function(self, name, f) for name, f in program.functions.items()}
        self.unpacked.clear()
        self.package.blobs.clear()

    def function(self, name: str) -> Function:
        if name not in self.functions:
            raise unknown("function of the package", name, self.functions)
        return self.functions[name]


class Function:
    """One compiled function. `inputs` and `states` are declared types by name; `outputs` are names."""

    def __init__(self, program: Program, name: str, message: Any):
        self.program, self.name = program, name
        self.slot: dict[str, int] = {}
        self.kinds: dict[int, Declared] = {}
        self.constants: dict[int, np.ndarray] = {}
        self.steps: list[Step] = []
        self.inputs: dict[str, Declared] = {}
        self.states: dict[str, Declared] = {}
        for value in message.inputs:
            where = self.states if value.type.WhichOneof("type") == "stateType" else self.inputs
            where[value.name] = self._declare(value)[1]
        blocks = message.block_specializations
        if message.opset not in blocks:
            raise InputError(f"function {name} of the package has no body", got=list(blocks), expected=message.opset)
        for operation in blocks[message.opset].operations:
            with self._refusals(operation):
                self._compile(operation)
        self.outputs: list[str] = list(blocks[message.opset].outputs)
        for output in self.outputs:
            if output not in self.slot:
                raise InputError(f"function {name} of the package gives what it does not make", got=output)
        self._update_in_place()
        self._forget()
        self.template = [self.constants.get(i) for i in range(len(self.slot))]
        self.runners = [self._runner(step) for step in self.steps]

    def __call__(self, inputs: Mapping[str, np.ndarray], state: State | None = None) -> dict[str, np.ndarray]:
        """Run on arrays that must be as declared, changing `state`. Raises InputError that names the operator."""
        values: list[Any] = list(self.template)
        for kind, given, declared in (("input", inputs, self.inputs), ("state", state or {}, self.states)):
            if set(given) != set(declared):
                raise InputError(
                    f"function {self.name} takes other {kind}s", got=sorted(given), expected=list(declared)
                )
            for name, array in given.items():
                self._fits(f"{kind} {name}", array, declared[name])
                values[self.slot[name]] = array
        at = 0
        try:
            with np.errstate(all="ignore"):
                for at, run in enumerate(self.runners):  # noqa: B007
                    run(values)
        except BROKEN as error:
            raise self._refusal(self.steps[at].kind, self.steps[at].name, error) from None
        owned = {id(array) for array in (state or {}).values()}
        return {name: _own(values[self.slot[name]], owned) for name in self.outputs}

    def new_state(self) -> State:
        """Zeros for every state."""
        return {name: np.zeros(d.shape, HELD[d.dtype]) for name, d in self.states.items()}  # type: ignore[arg-type]

    # Compiling

    def _declare(self, value: Any) -> tuple[int, Declared]:
        try:
            declared = declaration(value.type)
        except ValueError as error:
            raise InputError(f"a value of function {self.name} cannot be used", got=f"{value.name}: {error}") from None
        if value.name in self.slot:
            raise InputError(f"function {self.name} makes a value twice", got=value.name)
        self.slot[value.name] = slot = len(self.slot)
        self.kinds[slot] = declared
        return slot, declared

    def _compile(self, operation: Any) -> None:
        kind = operation.type
        if kind == "const":
            ((slot, declared),) = [self._declare(value) for value in operation.outputs]
            constant = self.program.package.value(operation.attributes["val"])
            self._fits(operation.outputs[0].name, constant, declared)
            self.constants[slot] = constant
            return
        if kind not in OPERATORS or operation.blocks:
            raise InputError(
                f"unknown operator {clip(kind)} in function {self.name}",
                got=self._label(operation),
                expected="one of " + ", ".join(sorted(OPERATORS)),
            )
        inputs = {name: self._argument(argument) for name, argument in operation.inputs.items()}
        for name, value in operation.attributes.items():
            if name != "name":
                inputs[name] = self._constant(self.program.package.value(value))
        step = Step(
            kind,
            self._label(operation),
            OPERATORS[kind],
            list(inputs.items()),
            [self._declare(value) for value in operation.outputs],
        )
        self._check_types(step, inputs)
        if kind not in STATEFUL and all(slot in self.constants for slot in step.reads):
            self._fold(step)
            return
        constants = {
            name: self.constants[slot] for name, slot in step.inputs if isinstance(slot, int) and slot in self.constants
        }
        step.bound = partial(step.bound, **{name: _python(value) for name, value in constants.items()})
        step.inputs = [(name, slot) for name, slot in step.inputs if name not in constants]
        self.steps.append(step)

    def _argument(self, argument: Any) -> int | tuple[int, ...]:
        slots = tuple(self._binding(binding) for binding in argument.arguments)
        return slots[0] if len(slots) == 1 else slots

    def _binding(self, binding: Any) -> int:
        if binding.WhichOneof("binding") == "value":
            return self._constant(self.program.package.value(binding.value))
        if binding.name not in self.slot:
            raise ValueError(f"{show(binding.name)} is not there yet")
        return self.slot[binding.name]

    def _constant(self, value: np.ndarray) -> int:
        slot = self.slot[f"constant {len(self.slot)}"] = len(self.slot)
        self.constants[slot] = value
        return slot

    def _check_types(self, step: Step, inputs: dict[str, Any]) -> None:
        """Floats keep their type, unless they are cast to that which is declared."""
        declared = {kind.dtype for _, kind in step.outputs} & FLOATS
        if step.kind in ("cast", "constexpr_cast"):
            said = {str(self.constants[inputs["dtype" if step.kind == "cast" else "output_dtype"]])} & FLOATS
        else:
            said = {self.kinds[slot].dtype for slot in step.reads if slot in self.kinds} & FLOATS or declared
        if not declared <= said:
            raise ValueError(f"it is declared to give {sorted(declared)}, and gives {sorted(said)}")

    def _fold(self, step: Step) -> None:
        values: list[Any] = [self.constants.get(i) for i in range(len(self.slot))]
        shared = self.program.unpacked
        key = (step.kind, *((name, _key(values[s])) for name, s in step.inputs if isinstance(s, int)))
        if step.kind.startswith("constexpr_") and key in shared:
            for (slot, declared), value in zip(step.outputs, shared[key], strict=True):
                self._fits(step.name, value, declared)
                self.constants[slot] = value
            return
        self._runner(step)(values)
        self.constants.update((slot, values[slot]) for slot in step.slots)
        if step.kind.startswith("constexpr_"):
            shared[key] = [values[slot] for slot in step.slots]

    # States and slots

    def _update_in_place(self) -> None:
        """read_state -> slice_update -> write_state, the way to append to a cache, writes into the state itself. Any
        other reading is a copy, unless its last reader comes before the next writing."""
        readers: dict[int, list[int]] = {}
        for i, step in enumerate(self.steps):
            for slot in step.reads:
                readers.setdefault(slot, []).append(i)
        for output in self.outputs:
            readers.setdefault(self.slot[output], []).append(len(self.steps))
        writes: dict[int, list[int]] = {self.slot[name]: [] for name in self.states}
        reading: dict[int, tuple[int, int]] = {}  # slot that was read -> (state, step)
        for i, step in enumerate(self.steps):
            if step.kind == "read_state":
                reading[step.slots[0]] = next(step.reads), i
            elif step.kind == "write_state":
                writes[dict(step.inputs)["input"]].append(i)  # type: ignore[index]
        in_place = set()
        for value, (state, start) in reading.items():
            chain = readers.get(value, [])
            if len(chain) != 1 or chain[0] >= len(self.steps) or self.steps[chain[0]].kind != "slice_update":
                continue
            update = self.steps[chain[0]]
            then = readers.get(update.slots[0], [])
            if dict(update.inputs).get("x") != value or len(then) != 1 or then[0] not in writes[state]:
                continue
            others = writes[state] + [at for _, (s, at) in reading.items() if s == state and at != start]
            if any(start < at < then[0] for at in others):
                continue
            update.bound = _replaced(update.bound, tensors.slice_update_in_place)
            writes[state][writes[state].index(then[0])] = chain[0]
            in_place.add(value)
        for value, (state, start) in reading.items():
            if value in in_place:
                continue
            last = self._last_reader(value, readers)
            if any(start < at < last for at in writes[state]):
                self.steps[start].bound = np.copy
                self.steps[start].inputs = [("a", state)]

    def _last_reader(self, value: int, readers: dict[int, list[int]]) -> int:
        """The last step that reads `value` or a view of it; past the end where it is given back."""
        last, waiting = -1, [value]
        while waiting:
            for at in readers.get(waiting.pop(), []):
                last = max(last, at)
                if at < len(self.steps) and self.steps[at].kind in tensors.VIEWS:
                    waiting += self.steps[at].slots
        return last

    def _forget(self) -> None:
        kept = {self.slot[name] for name in [*self.outputs, *self.inputs, *self.states]} | set(self.constants)
        for step in reversed(self.steps):
            step.done = [slot for slot in {*step.reads, *step.slots} if slot not in kept]
            kept.update(step.done)
        used = {slot for step in self.steps for slot in step.reads} | {self.slot[name] for name in self.outputs}
        self.constants = {slot: value for slot, value in self.constants.items() if slot in used}

    # Running

    def _runner(self, step: Step) -> Callable[[list[Any]], None]:
        """A function that runs `step` on the slots."""
        bound, inputs, done, kind = step.bound, step.inputs, step.done, step.kind
        single = step.outputs[0] if len(step.outputs) == 1 else None
        finish = self._finish

        def run(values: list[Any]) -> None:
            given = {n: values[s] if type(s) is int else [values[i] for i in s] for n, s in inputs}  # type: ignore[union-attr]
            if kind in LISTS and type(given["values"]) is not list:
                given["values"] = [given["values"]]
            made = bound(**given)
            if single is not None:
                values[single[0]] = finish(step, single[1], made[0] if type(made) is list else made, given)
            else:
                results = made if isinstance(made, tuple | list) else ()
                for (slot, declared), result in zip(step.outputs, results, strict=True):
                    values[slot] = finish(step, declared, result, given)
            for slot in done:
                values[slot] = None

        return run

    def _finish(self, step: Step, declared: Declared, made: Any, given: dict[str, Any]) -> np.ndarray:
        """Check a result against what is declared, and round it."""
        made, held = np.asarray(made), HELD[declared.dtype]
        if made.dtype != held:
            indices = made.dtype == np.int64 and np.dtype(held).kind == "u"  # numpy's type of an index
            # A product with a constant of another type is of the other operand's.
            mixed = step.kind == "matmul" and {value.dtype for value in given.values()} == {np.dtype(held)}
            if made.dtype.kind != np.dtype(held).kind and not indices and not mixed:
                raise ValueError(f"it gives {made.dtype}, and declares {declared}")
            made = made.astype(held)  # indices and counts are int64 in numpy
        if made.shape != declared.shape and not declared.fits(made.shape):
            raise ValueError(f"it gives shape {list(made.shape)}, and declares {declared}")
        if step.kind in tensors.MOVES or made.dtype.kind != "f":
            return made
        if self.program.half and declared.dtype == "fp16":
            made = made.astype(np.float16).astype(np.float32)
        if not np.isfinite(made).all() and all(map(_finite, given.values())):
            where = f"{step.name} in function {self.name}"
            count = int(made.size - np.isfinite(made).sum())
            self.program.nonfinite[where] = self.program.nonfinite.get(where, 0) + count
        return made

    def _fits(self, what: str, array: np.ndarray, declared: Declared) -> None:
        held = HELD[declared.dtype]
        if (array.dtype != held and held is not np.str_) or not declared.fits(array.shape):
            raise InputError(
                f"{what} of function {self.name} is not as declared",
                got=f"{array.dtype} {list(array.shape)}",
                expected=declared,
            )

    def _label(self, operation: Any) -> str:
        name = operation.outputs[0].name if operation.outputs else "without output"
        return f"{clip(operation.type, 60)} {clip(name, 80)}"

    def _refusals(self, operation: Any) -> _Refusals:
        return _Refusals(self, operation)

    def _refusal(self, kind: str, name: str, error: BaseException) -> InputError:
        got = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        return InputError(
            f"operator {name} in function {self.name} cannot be run", got=got, todo="export the package again"
        )


LISTS = {"concat", "stack", "einsum"}  # their `values` are a list, of one even


class _Refusals:
    """Whatever breaks inside becomes an InputError that names the operator."""

    def __init__(self, function: Function, operation: Any):
        self.function, self.operation = function, operation

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, BROKEN):
            name = self.function._label(self.operation)
            raise self.function._refusal(self.operation.type, name, error) from None


def _replaced(bound: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    assert isinstance(bound, partial)
    return partial(function, **bound.keywords)


def _python(value: np.ndarray) -> Any:
    """Texts as Python's own: numpy's scalars are slow to compare."""
    return str(value) if value.dtype.kind == "U" and value.ndim == 0 else value


def _key(value: np.ndarray) -> Any:
    """Equal for equal constants: blobs are the same array, what lies in the program is small."""
    return id(value) if value.nbytes > 4096 else (value.dtype.str, value.shape, value.tobytes())


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_finite, value))
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())


def _own(value: np.ndarray, owned: set[int]) -> np.ndarray:
    """A copy of what is a state, or a view of one: the next call would change it."""
    root = value
    while root.base is not None and isinstance(root.base, np.ndarray) and id(root) not in owned:
        root = root.base
    return value.copy() if id(root) in owned or root is not value else value
