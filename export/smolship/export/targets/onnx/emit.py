"""From the opaque trace to an ONNX graph, node by node, in the operators that ONNX Runtime's CPU provider has fused.

Inputs and outputs have the names and shapes that onnxruntime-genai and optimum know. The batch is 1:
GroupQueryAttention gives silently wrong rows for left-padded batches.

S tokens of this step, P tokens that the past holds (or its capacity, where past and present share a buffer),
T = tokens after this step, D hidden, G key/value heads, K head_dim, V vocabulary.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from smolship.export.config import CacheSpec, ShortConv
from smolship.export.opaque import trace
from smolship.export.targets import Job
from smolship.export.targets.onnx.attention import MICROSOFT, Attention, Heads, Part, Stack, kept_head
from smolship.export.targets.onnx.data import DataFile, block_of
from smolship.export.targets.walk import handler

OPSET, IR_VERSION = 21, 10
INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level: activations in int8, one scale a block

SMOLSHIP, ATEN = torch.ops.smolship, torch.ops.aten
UNFLATTEN = ATEN.unflatten.int


def emit(job: Job, data: DataFile) -> ir.Model:
    """The model of `job`; its weights go to `data`."""
    return Emitter(job, data).model()


class Emitter:
    """Walks a trace. `values` maps each of its nodes to what stands for it in ONNX: a value, or a list of them."""

    def __init__(self, job: Job, data: DataFile):
        self.job, self.config, self.data = job, job.config, data
        self.nodes: list[ir.Node] = []
        self.constants: dict[str, ir.Value] = {}
        self.places: dict[int, tuple[ir.Value, ir.Value]] = {}
        self.values: dict[torch.fx.Node, Any] = {}
        self.inputs, self.outputs = self._interface()
        self.attention = Attention(
            self.config, job.context, data, self.inputs, op=self.op, constant=self.constant, split=self.split
        )
        self.handlers: dict[Any, Callable[..., Any]] = {
            operator.getitem: lambda outputs, index: outputs[index],
            ATEN.silu.default: lambda x: self.op("QuickGelu", x, domain=MICROSOFT, alpha=1.0),
            ATEN.gelu.default: self.gelu,
            ATEN.mul.Tensor: lambda a, b: self.op("Mul", a, self.number(b) if isinstance(b, float) else b),
            ATEN.add.Tensor: lambda a, b: self.op("Add", a, b),
            ATEN.slice.Tensor: self.last_token,
            ATEN.chunk.default: lambda x, count, dim: self.op("Split", x, outputs=count, axis=dim, num_outputs=count),
            UNFLATTEN: lambda x, dim, sizes: Heads(x, *sizes),
            SMOLSHIP.embed.default: self.embed,
            SMOLSHIP.linear.default: self.linear,
            SMOLSHIP.rms_norm.default: self.rms_norm,
            SMOLSHIP.add_rms_norm.default: self.add_rms_norm,
            SMOLSHIP.rotary.default: lambda x, position, table: replace(x, rotary=table),
            SMOLSHIP.attend.default: self.attend,
            SMOLSHIP.convolve.default: self.convolve,
        }

    def model(self) -> ir.Model:
        """Emit every node of the trace."""
        for node in trace(self.config, self.job.context).graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self.inputs["input_ids"] if node.name == "ids" else None
            elif node.op == "output":
                (logits,) = (self.value(arg) for arg in node.args[0])
                logits.name = "logits"
                logits.shape, logits.dtype = ir.Shape(["batch", 1, self.config.vocab]), ir.DataType.FLOAT
            else:
                # Attention may take a stack whole: there it is not split into its parts.
                get: Callable[[torch.fx.Node], Any] = self.values.get if node.target is UNFLATTEN else self.value
                args = [get(a) if isinstance(a, torch.fx.Node) else a for a in node.args]
                self.values[node] = handler(self.handlers, node, "onnx")(*args, **node.kwargs)
        graph = ir.Graph(
            list(self.inputs.values()),
            [logits, *self.outputs.values()],
            nodes=self.nodes,
            initializers=[*self.constants.values(), *self.data.initializers.values()],
            opset_imports={"": OPSET, MICROSOFT: 1},
            name=self.config.architecture,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="smolship")

    def value(self, node: torch.fx.Node) -> Any:
        """What stands for `node`; a part of a stack is split off."""
        return self.split(self.values[node])

    def split(self, value: Any) -> Any:
        """A part of a stack by itself."""
        if not isinstance(value, Part):
            return value
        stack = value.stack
        if stack.split is None:
            sizes = self.constant(*stack.sizes)
            stack.split = self.op("Split", stack.whole, sizes, outputs=len(stack.sizes), axis=-1)
        return stack.split[value.index]

    def op(self, kind: str, *inputs: ir.Value | None, domain: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """One node; its output, or the list of them."""
        node = ir.node(kind, inputs, attributes, domain=domain, num_outputs=outputs, name=f"{kind}.{len(self.nodes)}")
        for i, value in enumerate(node.outputs):
            value.name = f"{node.name}.{i}"
        self.nodes.append(node)
        return node.outputs[0] if outputs == 1 else list(node.outputs)

    def constant(self, *numbers: int) -> ir.Value:
        """An int64 vector, held in the model itself: shape inference reads no external data."""
        name = ",".join(map(str, numbers))
        if name not in self.constants:
            tensor = ir.tensor(np.array(numbers, np.int64), name=name)
            self.constants[name] = ir.val(name, tensor.dtype, [len(numbers)], const_value=tensor)
        return self.constants[name]

    def number(self, value: float) -> ir.Value:
        """A float32 scalar, held in the model itself."""
        name = f"{value!r}"
        if name not in self.constants:
            tensor = ir.tensor(np.array(value, np.float32), name=name)
            self.constants[name] = ir.val(name, tensor.dtype, [], const_value=tensor)
        return self.constants[name]

    def gelu(self, x: ir.Value, *, approximate: str) -> ir.Value:
        return self.op("Gelu", x, approximate=approximate)

    def _interface(self) -> tuple[dict[str, ir.Value], dict[str, ir.Value]]:
        """The graph's inputs, and its outputs but for the logits."""
        inputs = {
            "input_ids": ir.val("input_ids", ir.DataType.INT64, ["batch", "sequence"]),
            "attention_mask": ir.val("attention_mask", ir.DataType.INT64, ["batch", "total"]),
        }
        outputs = {}
        for layer, spec in enumerate(self.config.cache(self.job.context)):
            for kind in ("key", "value") if isinstance(spec, CacheSpec) else ("conv_state",):
                past, present = f"past_key_values.{layer}.{kind}", f"present.{layer}.{kind}"
                if isinstance(spec, CacheSpec):
                    size = kept_head(spec.head_dim)
                    shapes = [["batch", spec.kv_heads, length, size] for length in ("past", "present")]
                else:  # zeros before the first position, which nothing writes
                    shapes = [["batch", spec.kernel - 1 + spec.length, spec.width]] * 2
                inputs[past] = ir.val(past, ir.DataType.FLOAT, shapes[0])
                outputs[present] = ir.val(present, ir.DataType.FLOAT, shapes[1])
        return inputs, outputs

    def last_token(self, x: ir.Value, dim: int, start: int, stop: int) -> ir.Value:
        """The slice of the last token. Taking it before the head saves V * (S - 1) dot products of prefill."""
        assert (dim, start) == (1, -1) and stop > self.job.context
        return self.op("Gather", x, self.constant(-1), axis=1)

    def embed(self, ids: ir.Value, name: str, dim: int) -> ir.Value:
        entry = self.job.weights.entries[name]
        if entry.bits == 16:
            return self.op("Gather", self.data.floats([name]), ids)
        codes, scales = self.data.codes([name]), self.data.scales([name])
        rows, blocks, size = codes.shape.numpy()  # type: ignore[union-attr]
        table = self.data.view(codes, f"{name}.rows", [rows, blocks * size])
        x = self.op(
            "GatherBlockQuantized",
            table,
            ids,
            scales,
            domain=MICROSOFT,
            bits=entry.bits,
            block_size=block_of(entry),
            gather_axis=0,
            quantize_axis=1,
        )
        if blocks * block_of(entry) == dim:
            return x
        # Rows of the table are padded to whole blocks.
        return self.op("Slice", x, self.constant(0), self.constant(dim), self.constant(-1))

    def linear(self, x: ir.Value, names: str, outs: list[int]) -> list[ir.Value] | list[Part]:
        """Matrices of one kind that share their input are stacked into one."""
        listed = names.split()
        kinds = {(entry.bits, entry.group) for entry in (self.job.weights.entries[name] for name in listed)}
        if len(listed) == 1 or len(kinds) > 1:
            return [self.matrix(x, [name]) for name in listed]
        stack = Stack(self.matrix(x, listed), outs)
        return [Part(stack, i) for i in range(len(outs))]

    def matrix(self, x: ir.Value, names: list[str]) -> ir.Value:
        """x times one matrix, or several that are stacked."""
        entry = self.job.weights.entries[names[0]]
        biased = f"{names[0]}.bias" in self.job.weights.entries
        bias = self.data.floats([f"{name}.bias" for name in names]) if biased else None
        if entry.bits == 16:
            y = self.op("FusedMatMul", x, self.data.floats(names), domain=MICROSOFT, transB=1)
            return self.op("Add", y, bias) if bias else y
        optional = [None, None, bias] if bias else []
        rows = sum(self.job.weights.entries[name].shape[0] for name in names)
        return self.op(
            "MatMulNBits",
            x,
            self.data.codes(names),
            self.data.scales(names),
            *optional,
            domain=MICROSOFT,
            N=rows,
            K=entry.shape[1],
            bits=entry.bits,
            block_size=block_of(entry),
            accuracy_level=INT8_ACTIVATIONS,
        )

    def rms_norm(self, x: ir.Value | Heads, name: str, eps: float, scale: float) -> ir.Value | Heads:
        assert scale == 1
        gain = self.data.floats([name])
        if isinstance(x, Heads):
            x = self.attention.rotated(x)  # attention would rotate it later, behind this norm
            apart = self.op("Reshape", self.split(x.flat), self.constant(0, 0, x.count, x.size))
            normed = self.norm(apart, gain, eps)
            return replace(x, flat=self.op("Reshape", normed, self.constant(0, 0, x.count * x.size)))
        return self.norm(x, gain, eps)

    def norm(self, x: ir.Value, gain: ir.Value, eps: float) -> ir.Value:
        return self.op("SimplifiedLayerNormalization", x, gain, axis=-1, epsilon=eps, stash_type=1)

    def add_rms_norm(self, x: ir.Value, residual: ir.Value, name: str, eps: float) -> tuple[ir.Value, ir.Value]:
        normed, *_, summed = self.op(
            "SkipSimplifiedLayerNormalization",
            x,
            residual,
            self.data.floats([name]),
            domain=MICROSOFT,
            outputs=4,
            epsilon=eps,
        )
        return normed, summed

    def attend(self, query: Heads, key: Heads, value: Heads, position: None, layer: int) -> ir.Value:
        mixed, *present = self.attention.attend(layer, query, key, value)
        for kind, made in zip(("key", "value"), present, strict=True):
            self.present(f"present.{layer}.{kind}", made)
        return mixed

    def present(self, name: str, made: ir.Value) -> None:
        """Let a value be the output of that name."""
        declared = self.outputs[name]
        made.name, made.type, made.shape = declared.name, declared.type, declared.shape
        self.outputs[name] = made

    def convolve(self, x: ir.Value, position: None, layer: int) -> ir.Value:
        """Rows of the state before this step's, and this step's, by the kernel's columns; then they are written.

        Nothing reads a row that is written in the same step, so that past and present may share a buffer: there nothing
        else is copied.
        """
        mixer, name = self.config.layers[layer].mixer, f"layers.{layer}.conv"
        assert isinstance(mixer, ShortConv)
        before, new = self.rows(mixer.kernel)
        past, kernel = self.inputs[f"past_key_values.{layer}.conv_state"], mixer.kernel
        seen = self.op("Concat", self.op("Gather", past, before, axis=1), x, axis=1)  # [1, kernel - 1 + S, D]
        turned = self.op("Transpose", self.data.floats([name]), perm=[1, 0])  # a constant to ONNX Runtime
        taps = self.op("Split", turned, outputs=kernel, axis=0, num_outputs=kernel)  # [1, D] each
        total: ir.Value | None = None
        for i, tap in enumerate(taps):
            part = x
            if i < kernel - 1:
                part = self.op("Slice", seen, self.constant(i), self.constant(i - kernel + 1), self.constant(1))
            product = self.op("Mul", part, tap)
            total = product if total is None else self.op("Add", total, product)
        if f"{name}.bias" in self.job.weights.entries:
            total = self.op("Add", total, self.data.floats([f"{name}.bias"]))
        self.present(f"present.{layer}.conv_state", self.op("ScatterND", past, new, x))
        assert total is not None
        return total

    def rows(self, kernel: int) -> tuple[ir.Value, ir.Value]:
        """Of a convolution's state: those before this step, int64 [kernel - 1], and the places of this step's, int64
        [1, S, 2] (batch, row). The row of a position is `kernel` - 1 further."""
        if kernel not in self.places:
            one, lead = self.constant(1), self.constant(kernel - 1)
            length = self.op("Shape", self.inputs["input_ids"], start=1, end=2)
            end = self.op("Shape", self.inputs["attention_mask"], start=1, end=2)
            start = self.op("Sub", end, length)  # [1]
            before = self.op("Add", start, self.constant(*range(kernel - 1)))
            scalars = [self.op("Squeeze", self.op("Add", x, lead)) for x in (start, end)]
            rows = self.op("Range", *scalars, self.op("Squeeze", one))  # [S]
            rows = self.op("Unsqueeze", rows, self.constant(0, 2))
            new = self.op("Concat", self.op("Mul", rows, self.constant(0)), rows, axis=-1)
            self.places[kernel] = before, new
        return self.places[kernel]
