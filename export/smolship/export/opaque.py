"""Primitives as opaque operators: the trace of a decoder whose nodes are exactly our primitives, by name.

A trace holds no weights (it names them) and costs no memory whatever the model's size. A target walks its nodes and
maps `smolship.linear`, `smolship.attend`, … to what its engine has; between them lie only a few plain aten operators
(silu, mul, reshapes, the slice of the last token).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from smolship.export.config import Activation, DecoderConfig
from smolship.export.decoder import ACTIVATIONS, Decoder
from smolship.export.rotary import Rotary


@torch.library.custom_op("smolship::embed", mutates_args=())
def embed(ids: Tensor, name: str, dim: int) -> Tensor:
    raise RuntimeError("smolship::embed is opaque: it is traced, never run")


@embed.register_fake
def _(ids: Tensor, name: str, dim: int) -> Tensor:
    return torch.empty(*ids.shape, dim, device=ids.device)


@torch.library.custom_op("smolship::linear", mutates_args=())
def linear(x: Tensor, names: str, outs: list[int]) -> list[Tensor]:
    """`names` are separated by spaces: operator schemas know no list of strings."""
    raise RuntimeError("smolship::linear is opaque: it is traced, never run")


@linear.register_fake
def _(x: Tensor, names: str, outs: list[int]) -> list[Tensor]:
    return [x.new_empty(*x.shape[:-1], out) for out in outs]


@torch.library.custom_op("smolship::rms_norm", mutates_args=())
def rms_norm(x: Tensor, name: str, eps: float, scale: float) -> Tensor:
    raise RuntimeError("smolship::rms_norm is opaque: it is traced, never run")


@rms_norm.register_fake
def _(x: Tensor, name: str, eps: float, scale: float) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("smolship::add_rms_norm", mutates_args=())
def add_rms_norm(x: Tensor, residual: Tensor, name: str, eps: float) -> tuple[Tensor, Tensor]:
    """RMSNorm(x + residual) and x + residual."""
    raise RuntimeError("smolship::add_rms_norm is opaque: it is traced, never run")


@add_rms_norm.register_fake
def _(x: Tensor, residual: Tensor, name: str, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


@torch.library.custom_op("smolship::rotary", mutates_args=())
def rotary(x: Tensor, position: Tensor, table: str) -> Tensor:
    """`table` is the name of the rotary embedding in the config."""
    raise RuntimeError("smolship::rotary is opaque: it is traced, never run")


@rotary.register_fake
def _(x: Tensor, position: Tensor, table: str) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("smolship::attend", mutates_args=())
def attend(q: Tensor, k: Tensor, v: Tensor, position: Tensor, layer: int) -> Tensor:
    raise RuntimeError("smolship::attend is opaque: it is traced, never run")


@attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, position: Tensor, layer: int) -> Tensor:
    return q.new_empty(*q.shape[:2], q.shape[2] * q.shape[3])


@torch.library.custom_op("smolship::convolve", mutates_args=())
def convolve(x: Tensor, position: Tensor, layer: int) -> Tensor:
    raise RuntimeError("smolship::convolve is opaque: it is traced, never run")


@convolve.register_fake
def _(x: Tensor, position: Tensor, layer: int) -> Tensor:
    return torch.empty_like(x)


class Opaque:
    """`Primitives` that leave one node each in the trace."""

    def __init__(self, config: DecoderConfig, stream: float):
        self.config, self.stream = config, stream
        self.shapes = config.shapes()

    def embed(self, name: str, ids: Tensor) -> Tensor:
        return torch.ops.smolship.embed(ids, name, self.shapes[name][1])

    def linear(self, names: Sequence[str], x: Tensor) -> list[Tensor]:
        return torch.ops.smolship.linear(x, " ".join(names), [self.shapes[name][0] for name in names])

    def rms_norm(
        self, name: str, x: Tensor, residual: Tensor | None, eps: float, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        if residual is None:
            return torch.ops.smolship.rms_norm(x, name, eps, scale), x
        assert scale == 1
        return torch.ops.smolship.add_rms_norm(x, residual, name, eps)

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        return x * factor

    def activate(self, kind: Activation, x: Tensor) -> Tensor:
        return ACTIVATIONS[kind](x)

    def rotary(self, rotary: Rotary, x: Tensor, position: Tensor) -> Tensor:
        return torch.ops.smolship.rotary(x, position, self.config.table(rotary))

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
        return torch.ops.smolship.attend(q, k, v, position, layer)

    def convolve(self, layer: int, x: Tensor, position: Tensor) -> Tensor:
        return torch.ops.smolship.convolve(x, position, layer)


def trace(
    config: DecoderConfig, context: int, last_only: bool = True, stream: float = 1.0
) -> torch.export.ExportedProgram:
    """The decoder's graph, ids [1, S] with 1 <= S <= context and position [1], on the meta device."""
    with torch.device("meta"):
        args = torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        decoder = Decoder(config, Opaque(config, stream), last_only)
        length = torch.export.Dim("S", min=1, max=max(context, 2))
        return torch.export.export(decoder, args, dynamic_shapes=({1: length}, None), strict=False)
