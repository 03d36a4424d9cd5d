"""Where values lie while a function runs: states are updated in place, slots are emptied after their last reader."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np

from smolship.runtime.mil import tensors
from smolship.runtime.mil.compiling import Compiled
from smolship.runtime.mil.instructions import Instruction

Readers = dict[int, list[int]]  # slot -> the instructions that read it; past the end where it is given back


def update_in_place(code: Compiled) -> None:
    """read_state -> slice_update -> write_state, the way to append to a cache, writes into the state itself. Any other
    reading is a copy, unless its last reader comes before the next writing."""
    instructions, readers = code.instructions, _readers(code)
    writes: dict[int, list[int]] = {code.slot[name]: [] for name in code.states}
    reading: dict[int, tuple[int, int]] = {}  # slot that was read -> (state, instruction)
    for i, instruction in enumerate(instructions):
        if instruction.kind == "read_state":
            reading[instruction.slots[0]] = next(instruction.reads), i
        elif instruction.kind == "write_state":
            writes[dict(instruction.inputs)["input"]].append(i)  # type: ignore[index]
    in_place = set()
    for value, (state, start) in reading.items():
        chain = readers.get(value, [])
        if len(chain) != 1 or chain[0] >= len(instructions) or instructions[chain[0]].kind != "slice_update":
            continue
        update = instructions[chain[0]]
        then = readers.get(update.slots[0], [])
        if dict(update.inputs).get("x") != value or len(then) != 1 or then[0] not in writes[state]:
            continue
        others = writes[state] + [at for _, (s, at) in reading.items() if s == state and at != start]
        if any(start < at < then[0] for at in others):
            continue
        assert isinstance(update.bound, partial)
        update.bound = partial(tensors.slice_update_in_place, **update.bound.keywords)
        writes[state][writes[state].index(then[0])] = chain[0]
        in_place.add(value)
    for value, (state, start) in reading.items():
        if value in in_place:
            continue
        last = _last_reader(value, readers, instructions)
        if any(start < at < last for at in writes[state]):
            instructions[start].bound = np.copy
            instructions[start].inputs = [("a", state)]


def _readers(code: Compiled) -> Readers:
    readers: Readers = {}
    for i, instruction in enumerate(code.instructions):
        for slot in instruction.reads:
            readers.setdefault(slot, []).append(i)
    for output in code.outputs:
        readers.setdefault(code.slot[output], []).append(len(code.instructions))
    return readers


def _last_reader(value: int, readers: Readers, instructions: list[Instruction]) -> int:
    """The last instruction that reads `value` or a view of it; past the end where it is given back."""
    last, waiting = -1, [value]
    while waiting:
        for at in readers.get(waiting.pop(), []):
            last = max(last, at)
            if at < len(instructions) and instructions[at].kind in tensors.VIEWS:
                waiting += instructions[at].slots
    return last


def forget(code: Compiled) -> None:
    """Tell each instruction which slots nobody reads after it, and drop the constants that no instruction reads."""
    kept = {code.slot[name] for name in [*code.outputs, *code.inputs, *code.states]} | set(code.constants)
    for instruction in reversed(code.instructions):
        instruction.done = [slot for slot in {*instruction.reads, *instruction.slots} if slot not in kept]
        kept.update(instruction.done)
    used = {slot for instruction in code.instructions for slot in instruction.reads} | {
        code.slot[name] for name in code.outputs
    }
    code.constants = {slot: value for slot, value in code.constants.items() if slot in used}


def own(value: np.ndarray, owners: Iterable[np.ndarray]) -> np.ndarray:
    """A copy of what is one of `owners`, or a view of one: the next call would change it."""
    owned, root = {id(array) for array in owners}, value
    while root.base is not None and isinstance(root.base, np.ndarray) and id(root) not in owned:
        root = root.base
    return value.copy() if id(root) in owned or root is not value else value
