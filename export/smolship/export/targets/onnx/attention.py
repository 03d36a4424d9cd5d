"""Attention in ONNX: one GroupQueryAttention a layer, over a buffer that past and present share.

ONNX Runtime's takes heads of 8, 16, 24, … numbers, and rotates the first 16, 32, … of 16, 32, … by itself. Other rotary
embeddings stand before it as operators of their own. Other heads are filled up with zeros: no score changes by them,
and what comes out in their place is cut off.

S tokens of this step, T = tokens after it, H query heads, G key/value heads, K head_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from smolship.export.config import Attention as Mixer
from smolship.export.config import DecoderConfig
from smolship.export.rotary import Rotary
from smolship.export.targets.onnx.data import DataFile

MICROSOFT = "com.microsoft"
UNIT, TURNED = 8, 16  # of a head's size, and of what is rotated inside


def kept_head(head_dim: int) -> int:
    """The size of a head as it is attended with, and kept in the cache."""
    return -(-head_dim // UNIT) * UNIT


def inside(rotary: Rotary, head_dim: int) -> bool:
    """Whether GroupQueryAttention can rotate by itself."""
    return not head_dim % TURNED and not rotary.width % TURNED


@dataclass
class Stack:
    """The outputs of several matrices computed as one; split only where one is wanted apart."""

    whole: ir.Value
    sizes: list[int]
    split: list[ir.Value] | None = None


@dataclass
class Part:
    """One output of a `Stack`."""

    stack: Stack
    index: int


@dataclass(frozen=True)
class Heads:
    """Queries, keys or values, [1, S, count, size] in the trace, as attention takes them: `flat`, [1, S, count * size].
    `rotary` is the name of the tables that they are to be rotated with."""

    flat: ir.Value | Part
    count: int
    size: int
    rotary: str | None = None


class Attention:
    """Emits it. `op` makes a node, `constant` an int64 vector, `split` a part of a stack by itself; `used` is T - 1 for
    each row of the batch, int32 [1], and `total` T, int32 []."""

    def __init__(
        self,
        config: DecoderConfig,
        context: int,
        data: DataFile,
        inputs: dict[str, ir.Value],
        op: Callable[..., Any],
        constant: Callable[..., ir.Value],
        split: Callable[[Any], ir.Value],
    ):
        self.config, self.context, self.data, self.inputs = config, context, data, inputs
        self.op, self.constant, self.split = op, constant, split
        self.used, self.total = self._lengths()
        self.first: ir.Value | None = None

    def _lengths(self) -> tuple[ir.Value, ir.Value]:
        mask, one = self.inputs["attention_mask"], self.constant(1)
        last = self.op("Sub", self.op("ReduceSum", mask, one, keepdims=0), one)
        total = self.op("Squeeze", self.op("Shape", mask, start=1, end=2))
        int32 = ir.DataType.INT32
        return self.op("Cast", last, to=int32), self.op("Cast", total, to=int32)

    def attend(self, layer: int, query: Heads, key: Heads, value: Heads) -> tuple[ir.Value, ir.Value, ir.Value]:
        """[1, S, H * K], and the keys and values with those of the past. It takes q, k, v stacked, or apart."""
        mixer = self.config.layers[layer].mixer
        assert isinstance(mixer, Mixer) and query.rotary == key.rotary
        rotary = self.config.rotaries[query.rotary] if query.rotary else None
        past = [self.inputs[f"past_key_values.{layer}.{kind}"] for kind in ("key", "value")]
        three = [query, key, value]
        if rotary and not inside(rotary, mixer.head_dim):
            three, rotary = [self.rotated(query), self.rotated(key), value], None
        mixed, keys, values = self.op(
            "GroupQueryAttention",
            *self._taken(three),
            *past,
            self.used,
            self.total,
            *(self.tables(rotary) if rotary else ()),
            domain=MICROSOFT,
            outputs=3,
            num_heads=mixer.heads,
            kv_num_heads=mixer.kv_heads,
            scale=mixer.scale,
            do_rotary=int(rotary is not None),
            rotary_interleaved=0,
            **({"local_window_size": mixer.window} if mixer.window else {}),
        )
        return self._cut(mixed, mixer), keys, values

    def _taken(self, three: list[Heads]) -> list[ir.Value | None]:
        """Queries, keys and values as they go into the operator: stacked, where they are so already."""
        full = all(kept_head(heads.size) == heads.size for heads in three)
        stacks = [heads.flat.stack for heads in three if isinstance(heads.flat, Part)]
        if full and len(stacks) == 3 and stacks[0] is stacks[1] is stacks[2]:
            return [stacks[0].whole, None, None]
        return [self.split(heads.flat) if full else self._filled(heads) for heads in three]

    def rotated(self, heads: Heads) -> Heads:
        """What is to be rotated is so, by an operator that takes the position of the first token, T - S, int64 [1]."""
        if heads.rotary is None:
            return heads
        rotary = self.config.rotaries[heads.rotary]
        if self.first is None:
            lengths = [self.op("Shape", self.inputs[name], start=1, end=2) for name in ("attention_mask", "input_ids")]
            self.first = self.op("Sub", *lengths)
        x, tables = self.split(heads.flat), self.tables(rotary)
        part = {"num_heads": heads.count, "rotary_embedding_dim": rotary.width} if rotary.width < heads.size else {}
        turned = self.op("RotaryEmbedding", x, self.first, *tables, domain=MICROSOFT, interleaved=0, **part)
        return replace(heads, flat=turned, rotary=None)

    def _filled(self, heads: Heads) -> ir.Value:
        """With zeros behind each head."""
        size = kept_head(heads.size)
        apart = self.op("Reshape", self.split(heads.flat), self.constant(0, 0, heads.count, heads.size))
        longer = self.op("Pad", apart, self.constant(0, size - heads.size), None, self.constant(-1))
        return self.op("Reshape", longer, self.constant(0, 0, heads.count * size))

    def _cut(self, mixed: ir.Value, mixer: Mixer) -> ir.Value:
        """Without what `_filled` has added."""
        if kept_head(mixer.head_dim) == mixer.head_dim:
            return mixed
        apart = self.op("Reshape", mixed, self.constant(0, 0, mixer.heads, kept_head(mixer.head_dim)))
        shorter = self.op("Slice", apart, self.constant(0), self.constant(mixer.head_dim), self.constant(-1))
        return self.op("Reshape", shorter, self.constant(0, 0, mixer.heads * mixer.head_dim))

    def tables(self, rotary: Rotary) -> list[ir.Value]:
        """cos and sin, float32 [context, width / 2]: no longer than the cache, or they would outweigh a small model."""
        name, (cos, sin) = self.config.table(rotary), rotary.tables(self.context)
        return [self.data.array(f"{name}.cos", cos), self.data.array(f"{name}.sin", sin)]
