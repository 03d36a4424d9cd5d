"""Writing a .pte: values, instructions and a memory plan in, ExecuTorch's file out.

The schema is the one that the executorch package carries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from smolship.export.targets.executorch.file import Blob, Bytes, Progress, Segments, align
from smolship.export.targets.executorch.graph import Subgraph, Value
from smolship.export.targets.executorch.light import ScalarType, et

SLACK = 128  # bytes after the last tensor: XNNPACK may read a little past the end of its inputs
BYTES = {ScalarType.FLOAT: 4, ScalarType.LONG: 8, ScalarType.CHAR: 1}


@dataclass
class Planned:
    """A tensor in the arena: where its bytes must not be anyone else's, from its first instruction to its last."""

    tensor: et.Tensor
    size: int
    first: int
    last: int
    offset: int = 0


@dataclass
class Program:
    """One method, `forward`, under construction, and the constants it shares with its delegates.

    Every method here that makes a value returns its index. Sizes are upper bounds: kernels and delegates resize what
    they write.
    """

    values: list[et.EValue] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    instructions: list[et.Instruction] = field(default_factory=list)
    operators: dict[tuple[str, str], int] = field(default_factory=dict)
    delegates: list[bytes] = field(default_factory=list)
    constants: list[Bytes] = field(default_factory=lambda: [b""])  # index 0 means "not a constant"
    named: dict[str, Blob] = field(default_factory=dict)
    planned: dict[int, Planned] = field(default_factory=dict)
    aliases: dict[int, int] = field(default_factory=dict)
    scalars: dict[tuple[type, Any], int] = field(default_factory=dict)

    def _value(self, value: Any) -> int:
        self.values.append(et.EValue(value))
        return len(self.values) - 1

    def _tensor(self, sizes: tuple[int, ...], dtype: ScalarType, buffer: int, dynamic: bool) -> int:
        bound = et.TensorShapeDynamism.DYNAMIC_BOUND if dynamic else et.TensorShapeDynamism.STATIC
        order = list(range(len(sizes)))
        return self._value(et.Tensor(dtype, 0, list(sizes), order, False, 0, buffer, None, bound))

    def scalar(self, value: int | float | bool | None) -> int:
        """A constant argument, made once."""
        key = (type(value), value)
        if key not in self.scalars:
            kinds = {bool: et.Bool, int: et.Int, float: et.Double, type(None): lambda _: et.Null()}
            self.scalars[key] = self._value(kinds[type(value)](value))
        return self.scalars[key]

    def variable(self, kind: type[et.Int] | type[et.Bool]) -> int:
        """A number or truth value that an instruction sets."""
        return self._value(kind(0) if kind is et.Int else kind(False))

    def input(self, sizes: tuple[int, ...], dtype: ScalarType, dynamic: bool) -> int:
        self.inputs.append(self._tensor(sizes, dtype, 0, dynamic))
        return self.inputs[-1]

    def constant(self, sizes: tuple[int, ...], dtype: ScalarType, data: Bytes, name: str | None = None) -> int:
        """A constant tensor. What is a weight has a name, by which it can be found in the file."""
        assert len(data) == math.prod(sizes) * BYTES[dtype]
        self.constants.append(data)
        index = self._tensor(sizes, dtype, len(self.constants) - 1, dynamic=False)
        if name is not None:
            tensor: Any = self.values[index].val
            tensor.extra_tensor_info = et.ExtraTensorInfo(fully_qualified_name=name)
        return index

    def tensor(self, sizes: tuple[int, ...], dynamic: bool = True) -> int:
        """A float tensor in the arena, written by the next instruction."""
        index = self._tensor(sizes, ScalarType.FLOAT, 0, dynamic)
        now = len(self.instructions)
        self.planned[index] = Planned(self.values[index].val, math.prod(sizes) * 4, now, now)
        return index

    def state(self, sizes: tuple[int, ...], name: str) -> int:
        """A float tensor that lives from one run to the next, and can be read by its name."""
        index = self.tensor(sizes, dynamic=False)
        self.planned[index].tensor.extra_tensor_info = et.ExtraTensorInfo(fully_qualified_name=name)
        self.planned[index].first = 0
        self.planned[index].last = 1 << 62
        return index

    def alias(self, state: int, sizes: tuple[int, ...]) -> int:
        """Another tensor over the first bytes of a state, to be resized."""
        index = self._tensor(sizes, ScalarType.FLOAT, 0, dynamic=True)
        self.aliases[index] = state
        return index

    def sizes(self, lengths: list[int]) -> int:
        """A shape, of numbers that are values."""
        return self._value(et.IntList(lengths))

    def _emit(self, call: Any, args: Iterable[int]) -> None:
        for index in args:
            if index in self.planned:
                self.planned[index].last = max(self.planned[index].last, len(self.instructions))
        self.instructions.append(et.Instruction(call))

    def call(self, operator: str, *args: int) -> None:
        """Run a kernel such as `aten::slice_copy.Tensor_out`. Kernels that write to an `out` argument take it twice:
        as the argument, and as the place of what they return."""
        name, _, overload = operator.partition(".")
        index = self.operators.setdefault((name, overload), len(self.operators))
        args = args if name.startswith("executorch_prim") or overload in ("int", "") else (*args, args[-1])
        self._emit(et.KernelCall(index, list(args)), args)

    def add_delegate(self, processed: bytes) -> int:
        self.delegates.append(processed)
        return len(self.delegates) - 1

    def run_delegate(self, delegate: int, args: list[int]) -> None:
        self._emit(et.DelegateCall(delegate, args), args)

    def run_subgraph(self, graph: Subgraph, outputs: list[Value]) -> None:
        """Make a delegate of `graph` and run it; its outputs become tensors."""
        for value in dict.fromkeys(outputs):
            value.tensor = self.tensor(value.dims)
            graph.output(value)
        self.run_delegate(self.add_delegate(graph.to_bytes()), graph.args)

    def floats(self, array: np.ndarray, name: str | None = None) -> Value:
        """A float constant."""
        array = np.ascontiguousarray(array, np.float32)
        return Value(array.shape, self.constant(array.shape, ScalarType.FLOAT, array.tobytes(), name))

    def rows(self, table: np.ndarray, start: int, end: int, most: int) -> Value:
        """Rows start…end, at most `most`, of a constant table."""
        source, dims = self.floats(table), (most, *table.shape[1:])
        result = Value(dims, self.tensor(dims))
        assert source.tensor is not None and result.tensor is not None
        zero, one = self.scalar(0), self.scalar(1)
        self.call("aten::slice_copy.Tensor_out", source.tensor, zero, start, end, one, result.tensor)
        return result

    def jump_unless(self, condition: int) -> et.JumpFalseCall:
        """Jump where `condition` is false, to where `land` is called with what this returns."""
        jump = et.JumpFalseCall(condition, -1)
        self._emit(jump, [])
        return jump

    def land(self, jump: et.JumpFalseCall) -> None:
        jump.destination_instruction = len(self.instructions)

    def write(self, path: Path, metadata: dict[str, list[int]], progress: Progress = lambda done, total: None) -> None:
        """Write the file. `metadata` becomes one method each, which returns those numbers; `progress(done, total)` is
        called in bytes."""
        arena = place(list(self.planned.values()))
        for alias, state in self.aliases.items():
            tensor: Any = self.values[alias].val
            tensor.allocation_info = self.planned[state].tensor.allocation_info
        segments = Segments()
        constants = segments.joined(self.constants)
        delegates = [et.BackendDelegateDataReference(et.DataLocation.SEGMENT, segments.add(d)) for d in self.delegates]
        named = [et.NamedData(key, segments.add(blob)) for key, blob in self.named.items()]
        forward = et.ExecutionPlan(
            name="forward",
            container_meta_type=et.ContainerMetadata("", ""),
            values=self.values,
            inputs=self.inputs,
            outputs=self.outputs,
            chains=[et.Chain([], [], self.instructions, None)],
            operators=[et.Operator(*names) for names in self.operators],
            delegates=[et.BackendDelegate("XnnpackBackend", where, []) for where in delegates],
            non_const_buffer_sizes=[0, arena],  # the first is no buffer, by ExecuTorch's rule
        )
        segments.write(
            path,
            progress,
            et.Program(
                version=0,
                execution_plan=[forward, *(_getter(name, numbers) for name, numbers in metadata.items())],
                constant_buffer=[],
                backend_delegate_data=[],
                segments=segments.slots,
                constant_segment=constants,
                named_data=named,
            ),
        )


def _getter(name: str, numbers: list[int]) -> et.ExecutionPlan:
    """A method that takes nothing and returns these numbers."""
    return et.ExecutionPlan(
        name=name,
        container_meta_type=et.ContainerMetadata("", ""),
        values=[et.EValue(et.Int(number)) for number in numbers],
        inputs=[],
        outputs=list(range(len(numbers))),
        chains=[et.Chain([], [], [], None)],
        operators=[],
        delegates=[],
        non_const_buffer_sizes=[0],
    )


def place(tensors: list[Planned]) -> int:
    """Give each tensor the lowest offset that is free for its whole life, the largest first; returns bytes in all."""
    placed: list[Planned] = []
    for tensor in sorted(tensors, key=lambda t: -t.size):
        rivals = [p for p in placed if p.first <= tensor.last and tensor.first <= p.last]
        for rival in sorted(rivals, key=lambda p: p.offset):
            if tensor.offset + tensor.size <= rival.offset:
                break
            tensor.offset = max(tensor.offset, align(rival.offset + rival.size))
        placed.append(tensor)
        low, high = tensor.offset & 0xFFFFFFFF, tensor.offset >> 32
        tensor.tensor.allocation_info = et.AllocationDetails(1, low, high)
    return max(t.offset + t.size for t in placed) + SLACK
