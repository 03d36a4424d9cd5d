"""What a decoder is, as data: its layers, from which names and shapes of tensors and the state follow.

Families translate a config.json into it (families/); the decoder, the targets and the probes go by it alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from smolship.export.rotary import Rotary

T = TypeVar("T")
Placement = Literal["before", "after", "both"]
QkNorm = Literal["head", "full"] | None
Activation = Literal["silu", "gelu_tanh"]  # tanh's approximation of GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415)


@dataclass(frozen=True)
class CacheSpec:
    """The key and value cache of one layer, each [1, length, kv_heads, head_dim]. In which numbers a target keeps it is
    a matter of its arithmetic.

    length  positions that are kept: all of the context, windows or not, so that a cache can be rewound to anywhere
    window  tokens that a token sees of it, itself included; None: all
    """

    length: int
    kv_heads: int
    head_dim: int
    window: int | None = None

    @property
    def kind(self) -> Literal["full", "sliding"]:
        return "full" if self.window is None else "sliding"


@dataclass(frozen=True)
class Attention:
    """Causal attention with grouped queries.

    scale        what q·k is multiplied by before the softmax
    rotary       None: the layer has no position embedding (NoPE)
    window       tokens that a token sees, itself included; None: all
    bias         of q, k and v; `output_bias`: of o
    qk_norm      RMSNorm of queries and keys before they are rotated: "head" over each head, with one gain for all;
                 "full" over all heads at once
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rotary: Rotary | None
    window: int | None = None
    bias: bool = False
    output_bias: bool = False
    qk_norm: QkNorm = None


@dataclass(frozen=True)
class Mlp:
    """down(act(gate x) * up x), or down(act(up x)) where it is not `gated`."""

    width: int
    activation: Activation = "silu"
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True)
class Layer:
    """A mixer, which moves information between tokens, and an MLP, each added to the hidden state.

    norms     where RMSNorm stands: on what the mixer and the MLP take ("before"), on what they give, or on both
    residual  what each is multiplied by before it is added
    """

    mixer: Attention
    mlp: Mlp
    norms: Placement = "before"
    residual: float = 1.0


@dataclass(frozen=True)
class DecoderConfig:
    """Everything that the decoder, the targets and the runtime need to know of a model but its weights.

    architecture     the `model_type` of config.json
    positions        the longest context that the model was made for
    embedding_scale  what the embedding's rows are multiplied by
    logits_scale     what the logits are multiplied by
    """

    architecture: str
    layers: tuple[Layer, ...]
    hidden: int
    vocab: int
    norm_eps: float
    tied_head: bool
    positions: int
    embedding_scale: float = 1.0
    logits_scale: float = 1.0
    bos: int | None = None
    eos: tuple[int, ...] = ()

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """The mixer of each layer."""
        return tuple(layer.mixer for layer in self.layers)

    @property
    def rotaries(self) -> dict[str, Rotary]:
        """The rotary embeddings of the model, each once, by the name that its tables have in every artifact."""
        distinct = dict.fromkeys(mixer.rotary for mixer in self.attentions if mixer.rotary)
        return {f"rotary.{i}": rotary for i, rotary in enumerate(distinct)}

    @property
    def longest(self) -> int:
        """The longest context in which it has these rotary embeddings; a longer one has others throughout."""
        limits = [r.scaling.longest for r in self.rotaries.values() if r.scaling and r.scaling.longest]
        return min([self.positions, *limits])

    def table(self, rotary: Rotary) -> str:
        """The name in `rotaries` of one of them."""
        return next(name for name, other in self.rotaries.items() if other == rotary)

    def cache(self, context: int) -> tuple[CacheSpec, ...]:
        """The cache of each layer for `context` tokens."""
        return tuple(CacheSpec(context, a.kv_heads, a.head_dim, a.window) for a in self.attentions)

    def linears(self) -> dict[str, tuple[int, int]]:
        """Name -> (out, in) of every linear, the head included where it is not the embedding's own table."""
        shapes: dict[str, tuple[int, int]] = {}
        for i, layer in enumerate(self.layers):
            a, width = layer.mixer, layer.mlp.width
            q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
            of = {"q": (q, self.hidden), "k": (kv, self.hidden), "v": (kv, self.hidden), "o": (self.hidden, q)}
            of |= {"gate": (width, self.hidden)} if layer.mlp.gated else {}
            of |= {"up": (width, self.hidden), "down": (self.hidden, width)}
            shapes |= {f"layers.{i}.{kind}": shape for kind, shape in of.items()}
        return shapes if self.tied_head else shapes | {"head": (self.vocab, self.hidden)}

    def vectors(self) -> dict[str, tuple[int]]:
        """Name -> shape of every norm gain and bias."""
        shapes: dict[str, tuple[int]] = {"norm": (self.hidden,)}
        biased: set[str] = set()
        for i, layer in enumerate(self.layers):
            a = layer.mixer
            kinds = {"before": ("attn_norm", "mlp_norm"), "after": ("attn_out_norm", "mlp_out_norm")}
            placed = kinds["before"] + kinds["after"] if layer.norms == "both" else kinds[layer.norms]
            of = dict.fromkeys(placed, self.hidden)
            if a.qk_norm:
                of |= {"q_norm": a.head_dim, "k_norm": a.head_dim}
            if a.qk_norm == "full":
                of |= {"q_norm": a.heads * a.head_dim, "k_norm": a.kv_heads * a.head_dim}
            shapes |= {f"layers.{i}.{kind}": (size,) for kind, size in of.items()}
            named = ["q", "k", "v"] * a.bias + ["o"] * a.output_bias + ["gate", "up", "down"] * layer.mlp.bias
            biased |= {f"layers.{i}.{kind}" for kind in named}
        return shapes | {f"{name}.bias": (out,) for name, (out, _) in self.linears().items() if name in biased}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor, in the order in which they are stored."""
        return {"embed": (self.vocab, self.hidden), **self.linears(), **self.vectors()}

    @property
    def head(self) -> str:
        """Name of the table that makes the logits."""
        return "embed" if self.tied_head else "head"


def only(values: Iterable[T]) -> T | None:
    """The value that all are equal to; None where they differ, or where there is none."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def with_mixers(config: DecoderConfig, **of: Sequence[Any]) -> DecoderConfig:
    """The config with fields of its mixers replaced, each by one value a layer."""
    changes = [dict(zip(of, values, strict=True)) for values in zip(*of.values(), strict=True)]
    layers = zip(config.layers, changes, strict=True)
    return replace(config, layers=tuple(replace(layer, mixer=replace(layer.mixer, **one)) for layer, one in layers))
