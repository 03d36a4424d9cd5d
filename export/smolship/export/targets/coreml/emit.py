"""From the opaque trace to a Core ML program, node by node, in coremltools' builder.

S tokens of a call (a chunk, or 1), T tokens that the cache holds, L layers of a kind, H query heads, G key/value heads,
R = H / G query heads that share one, K head_dim, D hidden, N tokens that a convolution sees, V vocabulary. The batch
is 1.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smolship.export.config import Attention, ConvSpec, DecoderConfig
from smolship.export.opaque import trace
from smolship.export.targets import Job
from smolship.export.targets.coreml.arithmetic import MIN_ROOT, stream_of
from smolship.export.targets.coreml.data import Constants, identifier
from smolship.export.targets.coreml.light import Function, Program, Var, ct, mb, mil_convert, types
from smolship.export.targets.walk import handler

SMOLSHIP, ATEN = torch.ops.smolship, torch.ops.aten
KEYS, INPUTS = ("keys", "values"), ("inputs",)
HIDDEN = np.float16(30_000)  # taken from the score of what a token must not see; scores stay within fp16


def emit(job: Job, chunk: int, path: Path) -> None:
    """Write the package of `job`, whose prefill takes `chunk` tokens."""
    nodes = list(trace(job.config, job.context, stream=stream_of(job.weights)).graph.nodes)
    constants, program = Constants(job), Program()
    for name, tokens in (("prefill", chunk), ("decode", 1)):
        program.add_function(name, Emitter(job, constants, tokens).function(nodes))
    program.default_function_name = "decode"
    program.export_as_multifunction = True
    program.skip_all_passes = True  # the program is as it should be; an empty list alone leaves the backend's own
    mil_convert(
        program,
        convert_from="milinternal",
        convert_to="mlprogram",
        compute_units=ct.ComputeUnit.CPU_AND_GPU,
        specification_version=ct.target.iOS18.value,
        skip_model_load=True,
        package_dir=str(path),
        pass_pipeline=ct.PassPipeline.EMPTY,
    )
    constants.check()


@dataclass(frozen=True)
class State:
    """The states of layers of one kind, stacked: `keys` and `values`, or what convolutions were given, `inputs`; with a
    suffix where there are several kinds of shapes."""

    layers: tuple[int, ...]
    names: tuple[str, ...]
    shape: tuple[int, int, int, int]  # [L, G, T, K]; of convolutions [L, 1, N - 1 + T, D]: zeros come first
    suffix: str


def states(config: DecoderConfig, context: int) -> list[State]:
    """One for each size of heads, and one for each size of kernels."""
    kinds: dict[tuple[tuple[str, ...], tuple[int, int, int]], list[int]] = {}
    for layer, spec in enumerate(config.cache(context)):
        kind: tuple[tuple[str, ...], tuple[int, int, int]]
        if isinstance(spec, ConvSpec):
            kind = INPUTS, (1, spec.kernel - 1 + spec.length, spec.width)
        else:
            kind = KEYS, (spec.kv_heads, spec.length, spec.head_dim)
        kinds.setdefault(kind, []).append(layer)
    found: list[State] = []
    for (names, shape), layers in kinds.items():
        before = sum(state.names == names for state in found)
        found.append(State(tuple(layers), names, (len(layers), *shape), f"_{before}" if before else ""))
    return found


class Emitter:
    """Walks a trace for one function. `values` maps each of its nodes to what stands for it: a Var, or a list."""

    def __init__(self, job: Job, constants: Constants, tokens: int):
        self.job, self.config, self.constants, self.tokens = job, job.config, constants, tokens
        self.values: dict[torch.fx.Node, Any] = {}
        self.weights: dict[str, Var] = {}
        self.states = states(job.config, job.context)
        self.turns: dict[str, tuple[Var, Var]] = {}
        self.masks: dict[tuple[int, int | None], Var] = {}
        self.handlers: dict[Any, Callable[..., Any]] = {
            operator.getitem: lambda outputs, index: outputs[index],
            ATEN.silu.default: lambda x: mb.silu(x=x),
            ATEN.gelu.default: self.gelu,
            ATEN.mul.Tensor: lambda a, b: mb.mul(x=a, y=np.float16(b) if isinstance(b, float) else b),
            ATEN.add.Tensor: lambda a, b: mb.add(x=a, y=b),
            ATEN.slice.Tensor: self.last_token,
            ATEN.chunk.default: lambda x, count, dim: mb.split(x=x, num_splits=count, axis=dim),
            ATEN.unflatten.int: lambda x, dim, sizes: mb.reshape(x=x, shape=[1, self.tokens, *sizes]),
            SMOLSHIP.embed.default: self.embed,
            SMOLSHIP.linear.default: self.linear,
            SMOLSHIP.rms_norm.default: self.rms_norm,
            SMOLSHIP.add_rms_norm.default: self.add_rms_norm,
            SMOLSHIP.rotary.default: self.rotary,
            SMOLSHIP.attend.default: self.attend,
            SMOLSHIP.convolve.default: self.convolve,
        }

    def function(self, nodes: Sequence[torch.fx.Node]) -> Function:
        """The whole function: input_ids int32 [1, S], position int32 [1] -> logits fp16 [1, 1, V]."""
        inputs = {
            "input_ids": mb.placeholder((1, self.tokens), types.int32),
            "position": mb.placeholder((1,), types.int32),
        } | {
            f"{kind}{state.suffix}": mb.state_tensor_placeholder(state.shape, types.fp16)
            for state in self.states
            for kind in state.names
        }
        with Function(inputs, opset_version=ct.target.iOS18) as function:
            self.inputs = function.inputs
            self.end = mb.add(x=self.inputs["position"], y=np.int32(self.tokens))
            for node in nodes:
                if node.op == "placeholder":
                    self.values[node] = self.inputs["input_ids" if node.name == "ids" else "position"]
                elif node.op == "output":
                    (logits,) = node.all_input_nodes
                    function.set_outputs([mb.identity(x=self.values[logits], name="logits")])
                else:
                    args = [self.values[a] if isinstance(a, torch.fx.Node) else a for a in node.args]
                    self.values[node] = handler(self.handlers, node, "coreml")(*args, **node.kwargs)
        return function

    def weight(self, name: str) -> Var:
        """A tensor of the weights, once a function: a tied head is the embedding's own table."""
        if name not in self.weights:
            self.weights[name] = self.constants.weight(name)
        return self.weights[name]

    def embed(self, ids: Var, name: str, dim: int) -> Var:
        return mb.gather(x=self.weight(name), indices=ids, axis=0)

    def linear(self, x: Var, names: str, outs: list[int]) -> list[Var]:
        return [
            mb.linear(x=x, weight=self.weight(name), bias=self.bias(name, out))
            for name, out in zip(names.split(), outs, strict=True)
        ]

    def bias(self, name: str, out: int) -> Var:
        """The bias, or the zeros that the operator is otherwise given for each matrix anew."""
        if f"{name}.bias" in self.job.weights.entries:
            return self.weight(f"{name}.bias")
        return self.array(f"zeros_{out}", np.zeros(out, np.float16))

    def array(self, name: str, values: np.ndarray) -> Var:
        """A small array of our own, once a function."""
        if name not in self.weights:
            self.weights[name] = self.constants.array(identifier(name), values)
        return self.weights[name]

    def last_token(self, x: Var, dim: int, start: int, stop: int) -> Var:
        """The slice of the last token."""
        assert (dim, start) == (1, -1) and stop > self.job.context
        if self.tokens == 1:
            return x
        return mb.slice_by_index(x=x, begin=[0, self.tokens - 1, 0], end=[1, self.tokens, x.shape[-1]])

    def gelu(self, x: Var, *, approximate: str) -> Var:
        assert approximate == "tanh"
        return mb.gelu(x=x, mode="TANH_APPROXIMATION")

    def rms_norm(self, x: Var, name: str, eps: float, factor: float = 1.0) -> Var:
        """RMSNorm that fp16 cannot overflow: x reaches tens of thousands in some tokens, and x² would be infinite.

        With m = max|x|, x / sqrt(mean(x²) + eps) = y / sqrt(mean(y²) + eps / m²) for y = x / m, which is at most 1.
        m is at least sqrt(eps), so that the last term is at most 1 too, and zeros give zeros.
        """
        root = np.float16(max(eps**0.5, MIN_ROOT))
        peak = mb.maximum(x=mb.reduce_max(x=mb.abs(x=x), axes=[-1], keep_dims=True), y=root)
        y, t = mb.real_div(x=x, y=peak), mb.real_div(x=root, y=peak)
        mean = mb.reduce_mean(x=mb.mul(x=y, y=y), axes=[-1], keep_dims=True)
        scale = mb.rsqrt(x=mb.add(x=mean, y=mb.mul(x=t, y=t)))
        if factor != 1:
            scale = mb.mul(x=scale, y=np.float16(factor))
        return mb.mul(x=mb.mul(x=y, y=scale), y=self.weight(name))

    def add_rms_norm(self, x: Var, residual: Var, name: str, eps: float) -> tuple[Var, Var]:
        total = mb.add(x=x, y=residual)
        return self.rms_norm(total, name, eps), total

    def turns_of(self, rotary: str) -> tuple[Var, Var]:
        """What the halves of a head are turned by: (cos, cos) and (-sin, sin) of this call's tokens, [S, 1, K]."""
        if rotary not in self.turns:
            offsets = self.array(f"tokens_{self.tokens}", np.arange(self.tokens, dtype=np.int32))
            rows = mb.add(x=self.inputs["position"], y=offsets)
            cos, sin = (
                mb.gather(x=self.array(f"{rotary}.{name}", table.astype(np.float16)), indices=rows, axis=0)
                for name, table in zip(
                    ("cos", "sin"), self.config.rotaries[rotary].tables(self.job.context), strict=True
                )
            )
            cos, sin = mb.expand_dims(x=cos, axes=[1]), mb.expand_dims(x=sin, axes=[1])
            minus = mb.mul(x=sin, y=np.float16(-1))
            self.turns[rotary] = mb.concat(values=[cos, cos], axis=-1), mb.concat(values=[minus, sin], axis=-1)
        return self.turns[rotary]

    def rotary(self, x: Var, position: Var, rotary: str) -> Var:
        """[1, S, heads, K], of which the embedding's width is rotated."""
        width, size = self.config.rotaries[rotary].width, x.shape[-1]
        cos, sin = self.turns_of(rotary)
        turned, *rest = [x] if width == size else mb.split(x=x, split_sizes=[width, size - width], axis=-1)
        first, second = mb.split(x=turned, num_splits=2, axis=-1)
        swapped = mb.concat(values=[second, first], axis=-1)
        turned = mb.add(x=mb.mul(x=turned, y=cos), y=mb.mul(x=swapped, y=sin))
        return mb.concat(values=[turned, *rest], axis=-1) if rest else turned

    def visible(self, repeats: int, window: int | None) -> Var:
        """What is added to the scores, [1, 1, R * S, T]: 0 where a token sees another, -HIDDEN where it must not."""
        if (repeats, window) not in self.masks:
            tokens = np.tile(np.arange(self.tokens, dtype=np.int32), repeats).reshape(1, 1, -1, 1)
            cached = np.arange(self.job.context, dtype=np.int32).reshape(1, 1, 1, -1)
            rows = mb.add(x=self.inputs["position"], y=self.array(f"queries_{self.tokens}_{repeats}", tokens))
            keys = self.array("cached", cached)
            seen = mb.cast(x=mb.less_equal(x=keys, y=rows), dtype="fp16")
            if window is not None:
                near = mb.less(x=mb.sub(x=rows, y=keys), y=np.int32(window))
                seen = mb.mul(x=seen, y=mb.cast(x=near, dtype="fp16"))
            self.masks[repeats, window] = mb.add(x=mb.mul(x=seen, y=HIDDEN), y=-HIDDEN)
        return self.masks[repeats, window]

    def attend(self, q: Var, k: Var, v: Var, position: Var, layer: int) -> Var:
        """Query heads that share keys and values are laid end to end as rows of one."""
        a, s = self.config.layers[layer].mixer, self.tokens
        assert isinstance(a, Attention)
        state, index = self.state_of(layer)
        begin = mb.concat(values=[[index], [0], position, [0]], axis=0)
        end = mb.concat(values=[[index + 1], [a.kv_heads], self.end, [a.head_dim]], axis=0)
        keys = self.store(f"keys{state.suffix}", self.heads_first(k), index, begin, end)
        values = self.store(f"values{state.suffix}", self.heads_first(v), index, begin, end)
        if a.scale != a.head_dim**-0.5:  # by which the operator scales
            q = mb.mul(x=q, y=np.float16(a.scale / a.head_dim**-0.5))
        repeats = a.heads // a.kv_heads
        rows = mb.reshape(x=self.heads_first(q), shape=[1, a.kv_heads, repeats * s, a.head_dim])
        mask = self.visible(repeats, a.window)
        mixed = mb.scaled_dot_product_attention(query=rows, key=keys, value=values, attn_mask=mask)
        if s > 1:
            mixed = mb.transpose(x=mb.reshape(x=mixed, shape=[1, a.heads, s, a.head_dim]), perm=[0, 2, 1, 3])
        return mb.reshape(x=mixed, shape=[1, s, a.heads * a.head_dim])

    def state_of(self, layer: int) -> tuple[State, int]:
        """Where a layer's state is, and its place there."""
        state = next(state for state in self.states if layer in state.layers)
        return state, state.layers.index(layer)

    def convolve(self, x: Var, position: Var, layer: int) -> Var:
        """[1, S, D] is written into the state behind the N - 1 rows that the first of it sees too; windows of S rows,
        each times its column of the kernel, are summed from the oldest on."""
        (state, index), s, name = self.state_of(layer), self.tokens, f"layers.{layer}.conv"
        width, kernel = x.shape[-1], self.job.weights.entries[name].shape[1]
        first = mb.add(x=position, y=np.int32(kernel - 1))
        begin = mb.concat(values=[[index], [0], first, [0]], axis=0)
        end = mb.concat(values=[[index + 1], [1], mb.add(x=self.end, y=np.int32(kernel - 1)), [width]], axis=0)
        rows = self.store(f"inputs{state.suffix}", mb.reshape(x=x, shape=[1, 1, s, width]), index, begin, end)
        start = mb.concat(values=[[0], [0], position, [0]], axis=0)
        seen = mb.slice_by_size(x=rows, begin=start, size=[1, 1, kernel - 1 + s, width])
        seen = mb.reshape(x=seen, shape=[1, kernel - 1 + s, width])
        taps = mb.split(x=mb.transpose(x=self.weight(name), perm=[1, 0]), num_splits=kernel, axis=0)  # [1, D] each
        total = None
        for i, tap in enumerate(taps):
            window = mb.slice_by_index(x=seen, begin=[0, i, 0], end=[1, i + s, width])
            product = mb.mul(x=window, y=tap)
            total = product if total is None else mb.add(x=total, y=product)
        if f"{name}.bias" in self.job.weights.entries:
            total = mb.add(x=total, y=self.weight(f"{name}.bias"))
        return total

    def store(self, name: str, new: Var, index: int, begin: Var, end: Var) -> Var:
        """Write [1, G, S, K] into a state, and return the whole part of it at `index`, [1, G, T, K]."""
        state = self.inputs[name]
        updated = mb.slice_update(x=mb.read_state(input=state), update=new, begin=begin, end=end)
        whole = mb.coreml_update_state(state=state, value=updated)
        return mb.slice_by_index(x=whole, begin=[index, 0, 0, 0], end=[index + 1, *whole.shape[1:]])

    def heads_first(self, x: Var) -> Var:
        """[1, S, heads, K] -> [1, heads, S, K]."""
        if self.tokens == 1:
            return mb.reshape(x=x, shape=[1, x.shape[2], 1, x.shape[3]])
        return mb.transpose(x=x, perm=[0, 2, 1, 3])
