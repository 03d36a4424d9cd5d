"""The decoder, once for every family and target.

It is plain torch over a handful of primitives (`Primitives`), which hold the weights and the cache. `Reference` in
`reference.py` computes them in torch; a target traces the decoder with primitives of its own.

Shapes: S tokens of this step, D hidden, H query heads, G key/value heads, K head_dim, V vocabulary. The batch is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from smolship.export.config import DecoderConfig


class Primitives(Protocol):
    """What a target computes in its own way. `name` is a tensor of the weights; a bias is `name.bias`."""

    def embed(self, name: str, ids: Tensor) -> Tensor:
        """Rows of the table: [1, S] int64 -> [1, S, D]."""
        ...

    def linear(self, names: Sequence[str], x: Tensor) -> list[Tensor]:
        """Matrices that share their input: [1, S, in] -> [1, S, out] each."""
        ...

    def rms_norm(self, name: str, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """s = x + residual (s = x where it is None); returns RMSNorm(s) (Zhang and Sennrich 2019,
        arXiv:1910.07467) and s, both [1, S, D]."""
        ...

    def rotary(self, x: Tensor, position: Tensor) -> Tensor:
        """Rotate [1, S, heads, K], whose first token is at `position`."""
        ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
        """Store k, v [1, S, G, K] at `position` and attend causally with q [1, S, H, K] -> [1, S, H * K]."""
        ...


class Decoder(torch.nn.Module):
    """ids int64 [1, S] and the absolute position int64 [1] of the first of them -> logits [1, S or 1, V]."""

    def __init__(self, config: DecoderConfig, ops: Primitives, last_only: bool = False):
        super().__init__()
        self.config, self.ops, self.last_only = config, ops, last_only

    def forward(self, ids: Tensor, position: Tensor) -> Tensor:
        ops = self.ops
        x: Tensor | None = None
        delta = ops.embed("embed", ids)  # [1, S, D]
        for layer in range(self.config.layers):
            normed, x = ops.rms_norm(f"layers.{layer}.attn_norm", delta, x)
            delta = self.attention(layer, normed, position)
            if self.last_only and layer == self.config.layers - 1:
                delta, x = delta[:, -1:], x[:, -1:]  # [1, 1, D]: nothing after this looks at other tokens
            normed, x = ops.rms_norm(f"layers.{layer}.mlp_norm", delta, x)
            delta = self.mlp(layer, normed)
        normed, _ = ops.rms_norm("norm", delta, x)
        return ops.linear([self.config.head], normed)[0]  # [1, S or 1, V]

    def attention(self, layer: int, x: Tensor, position: Tensor) -> Tensor:
        c, at = self.config, f"layers.{layer}"
        q, k, v = self.ops.linear([f"{at}.q", f"{at}.k", f"{at}.v"], x)
        q = q.unflatten(-1, (c.heads, c.head_dim))  # [1, S, H, K]
        k = k.unflatten(-1, (c.kv_heads, c.head_dim))  # [1, S, G, K]
        v = v.unflatten(-1, (c.kv_heads, c.head_dim))
        if c.rotary_layers[layer]:
            q, k = self.ops.rotary(q, position), self.ops.rotary(k, position)
        mixed = self.ops.attend(layer, q, k, v, position)  # [1, S, H * K]
        return self.ops.linear([f"{at}.o"], mixed)[0]

    def mlp(self, layer: int, x: Tensor) -> Tensor:
        at = f"layers.{layer}"
        gate, up = self.ops.linear([f"{at}.gate", f"{at}.up"], x)
        return self.ops.linear([f"{at}.down"], torch.nn.functional.silu(gate) * up)[0]
