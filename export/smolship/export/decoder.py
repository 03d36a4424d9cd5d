"""The decoder, once for every family and target.

It is plain torch over a handful of primitives (`Primitives`), which hold the weights and the cache. `Reference` in
`reference.py` computes them in torch; a target traces the decoder with primitives of its own.

Shapes: S tokens of this step, D hidden, H query heads, G key/value heads, K head_dim, V vocabulary. The batch is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from smolship.export.config import Activation, Attention, DecoderConfig, Layer, Mixer, Mlp, ShortConv
from smolship.export.rotary import Rotary


class Primitives(Protocol):
    """What a target computes in its own way. `name` is a tensor of the weights; a bias is `name.bias`.

    stream  what the hidden state is multiplied by between layers whose norms stand on both sides: fp16 could not hold
            it otherwise. The norms that read it take that away again.
    """

    stream: float

    def embed(self, name: str, ids: Tensor) -> Tensor:
        """Rows of the table: [1, S] int64 -> [1, S, D]."""
        ...

    def linear(self, names: Sequence[str], x: Tensor) -> list[Tensor]:
        """Matrices that share their input: [1, S, in] -> [1, S, out] each."""
        ...

    def rms_norm(
        self, name: str, x: Tensor, residual: Tensor | None, eps: float, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """s = x + residual (s = x where it is None); returns RMSNorm(s) over the last dimension (Zhang and Sennrich
        2019, arXiv:1910.07467) times `scale`, and s, both shaped as x: [1, S, D], or [1, S, heads, K] for queries and
        keys."""
        ...

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        """x * factor, for constants of the model."""
        ...

    def activate(self, kind: Activation, x: Tensor) -> Tensor:
        """An MLP's activation of each number."""
        ...

    def rotary(self, rotary: Rotary, x: Tensor, position: Tensor) -> Tensor:
        """Rotate the first `rotary.width` of K in [1, S, heads, K], whose first token is at `position`."""
        ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
        """Store k, v [1, S, G, K] at `position` and attend with q [1, S, H, K], causally and within the layer's window
        -> [1, S, H * K]."""
        ...

    def convolve(self, layer: int, x: Tensor, position: Tensor) -> Tensor:
        """Store x [1, S, D] at `position` and convolve each token with the `kernel` - 1 before it, which are zeros
        before the first, by the layer's kernel -> [1, S, D]."""
        ...


class Decoder(torch.nn.Module):
    """ids int64 [1, S] and the absolute position int64 [1] of the first of them -> logits [1, S or 1, V]."""

    def __init__(self, config: DecoderConfig, ops: Primitives, last_only: bool = False):
        super().__init__()
        self.config, self.ops, self.last_only = config, ops, last_only
        self.stream = ops.stream if all(layer.norms == "both" for layer in config.layers) else 1.0

    def forward(self, ids: Tensor, position: Tensor) -> Tensor:
        delta, x = self.begin(ids), None
        for i in range(len(self.config.layers)):
            delta, x = self.layer(i, delta, x, position)
        return self.end(delta, x)

    # Between two layers the hidden state is x + delta: the norm that comes next adds them.

    def begin(self, ids: Tensor) -> Tensor:
        """The `delta` that the first layer takes, [1, S, D]; its x is None."""
        return self.scaled(self.ops.embed("embed", ids), self.config.embedding_scale * self.stream)

    def layer(self, i: int, delta: Tensor, x: Tensor | None, position: Tensor) -> tuple[Tensor, Tensor]:
        """delta and x [1, S, D] after layer `i`."""
        layer = self.config.layers[i]
        normed, x = self.before(layer, f"layers.{i}.attn_norm", delta, x)
        delta = self.mix(i, layer.mixer, normed, position)
        delta = self.after(layer, f"layers.{i}.attn_out_norm", delta)
        if self.last_only and i == len(self.config.layers) - 1:
            delta, x = delta[:, -1:], x[:, -1:]  # [1, 1, D]: nothing after this looks at other tokens
        normed, x = self.before(layer, f"layers.{i}.mlp_norm", delta, x)
        return self.after(layer, f"layers.{i}.mlp_out_norm", self.mlp(i, layer.mlp, normed)), x

    def end(self, delta: Tensor, x: Tensor | None) -> Tensor:
        """Logits [1, S, V]."""
        normed, _ = self.ops.rms_norm("norm", delta, x, self.config.norm_eps * self.stream**2)
        return self.scaled(self.ops.linear([self.config.head], normed)[0], self.config.logits_scale)

    def before(self, layer: Layer, name: str, delta: Tensor, x: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the mixer or the MLP takes, and the hidden state with `delta`."""
        if layer.norms != "after":
            return self.ops.rms_norm(name, delta, x, self.config.norm_eps * self.stream**2)
        total = delta if x is None else x + delta
        return total, total

    def after(self, layer: Layer, name: str, delta: Tensor) -> Tensor:
        """What the mixer or the MLP gave, as it is added to the hidden state."""
        if layer.norms != "before":
            delta, _ = self.ops.rms_norm(name, delta, None, self.config.norm_eps, self.stream)
        return self.scaled(delta, layer.residual)

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        """x * factor; no operator where it is 1."""
        return x if factor == 1 else self.ops.scaled(x, factor)

    def mix(self, i: int, mixer: Mixer, x: Tensor, position: Tensor) -> Tensor:
        if isinstance(mixer, ShortConv):
            return self.convolution(i, x, position)
        return self.attention(i, mixer, x, position)

    def convolution(self, i: int, x: Tensor, position: Tensor) -> Tensor:
        at = f"layers.{i}"
        b, c, x = self.ops.linear([f"{at}.conv_in"], x)[0].chunk(3, -1)  # [1, S, D] each
        return self.ops.linear([f"{at}.conv_out"], c * self.ops.convolve(i, b * x, position))[0]

    def attention(self, i: int, a: Attention, x: Tensor, position: Tensor) -> Tensor:
        at = f"layers.{i}"
        q, k, v = self.ops.linear([f"{at}.q", f"{at}.k", f"{at}.v"], x)
        if a.qk_norm == "full":
            q, k = self.norm(f"{at}.q_norm", q), self.norm(f"{at}.k_norm", k)
        q = q.unflatten(-1, (a.heads, a.head_dim))  # [1, S, H, K]
        k = k.unflatten(-1, (a.kv_heads, a.head_dim))  # [1, S, G, K]
        v = v.unflatten(-1, (a.kv_heads, a.head_dim))
        if a.qk_norm == "head":
            q, k = self.norm(f"{at}.q_norm", q), self.norm(f"{at}.k_norm", k)
        if a.rotary:
            q, k = self.ops.rotary(a.rotary, q, position), self.ops.rotary(a.rotary, k, position)
        mixed = self.ops.attend(i, q, k, v, position)  # [1, S, H * K]
        return self.ops.linear([f"{at}.o"], mixed)[0]

    def norm(self, name: str, x: Tensor) -> Tensor:
        return self.ops.rms_norm(name, x, None, self.config.norm_eps)[0]

    def mlp(self, i: int, mlp: Mlp, x: Tensor) -> Tensor:
        at = f"layers.{i}"
        kinds = ("gate", "up") if mlp.gated else ("up",)
        first, *rest = self.ops.linear([f"{at}.{kind}" for kind in kinds], x)
        inner = self.ops.activate(mlp.activation, first)
        return self.ops.linear([f"{at}.down"], inner * rest[0] if rest else inner)[0]


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": torch.nn.functional.silu,
    "gelu_tanh": partial(torch.nn.functional.gelu, approximate="tanh"),
}
