"""Short convolutions over a state that is written in place, and holds what was given at every position.

Kernels copy the rows that each place of the convolution's kernel meets out of the state; XNNPACK multiplies and adds.

Shapes: S tokens of a call, D hidden, N tokens that an output sees.
"""

from __future__ import annotations

import numpy as np

from smolship.export.config import ConvSpec
from smolship.export.targets.executorch.attention import Call
from smolship.export.targets.executorch.graph import Subgraph, Value
from smolship.export.targets.executorch.light import et
from smolship.export.targets.executorch.program import Program


class Convolution:
    """All convolutions of one program. The row of a position is N - 1 further than its number: zeros come first."""

    def __init__(self, program: Program, call: Call):
        self.program, self.call = program, call
        self.later: dict[tuple[int, int], int] = {}

    def _later(self, number: int, by: int) -> int:
        """A number of the program plus a constant."""
        if not by:
            return number
        if (number, by) not in self.later:
            self.later[number, by] = self.program.variable(et.Int)
            self.program.call("executorch_prim::add.Scalar", number, self.program.scalar(by), self.later[number, by])
        return self.later[number, by]

    def store(self, layer: int, spec: ConvSpec, x: Value) -> list[Value]:
        """Store x [1, S, 1, D], and return what stands before it in the state: of each token the one N - 1 earlier
        first, [1, S, 1, D] each."""
        p, lead, call = self.program, spec.kernel - 1, self.call
        assert x.tensor is not None
        state = p.state((1, lead + spec.length, 1, spec.width), f"inputs.{layer}")
        zeros = p.floats(np.zeros((1, lead, 1, spec.width)))
        assert zeros.tensor is not None
        for new, at in ((zeros.tensor, p.scalar(0)), (x.tensor, self._later(call.start, lead))):
            p.call("llama::update_cache.out", new, state, at, p.tensor((1,), dynamic=False))
        found = []
        for i in range(lead):
            rows = Value(x.dims, p.tensor(x.dims))
            assert rows.tensor is not None
            first, last = self._later(call.start, i), self._later(call.end, i)
            p.call("aten::slice_copy.Tensor_out", state, p.scalar(1), first, last, p.scalar(1), rows.tensor)
            found.append(rows)
        return found

    def sum(self, graph: Subgraph, seen: list[Value], name: str, kernel: np.ndarray, bias: Value | None) -> Value:
        """The rows that each place of the kernel [D, N] meets, [1, S, 1, D], weighted and summed from the oldest on."""
        taps = self.program.floats(kernel.T, f"{name}.taps")  # [N, D]: a place of the kernel lies in one piece
        total: Value | None = None
        for i, rows in enumerate(seen):
            product = graph.multiply(rows, graph.slice(taps, 0, i, i + 1))
            total = product if total is None else graph.add(total, product)
        assert total is not None
        return total if bias is None else graph.add(total, bias)
