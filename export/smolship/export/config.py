"""What a decoder is, as data: its layers, from which names and shapes of tensors and the state follow.

Families translate a config.json into it (families/); the decoder, the targets and the probes go by it alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

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

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Of keys and values, [T, G, K] each."""
        return ((self.length, self.kv_heads, self.head_dim),) * 2


@dataclass(frozen=True)
class ConvSpec:
    """The state of one short convolution: what it was given at each position, [1, length, width].

    length  positions that are kept: all of the context, though the next output needs `kernel` - 1 of them. So it can be
            rewound to anywhere, as a cache can, at the price of `width` numbers a token
    kernel  tokens that an output sees, its own included
    """

    length: int
    kernel: int
    width: int
    kind: ClassVar[Literal["convolution"]] = "convolution"

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Of the inputs, [T, 1, width]."""
        return ((self.length, 1, self.width),)


State = CacheSpec | ConvSpec


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
class ShortConv:
    """A causal convolution over neighbouring tokens, each number of the hidden size by itself, between two gates: with
    B, C and x out of one matrix, the output's matrix times C * conv(B * x).

    kernel  tokens that an output sees, its own included
    bias    of both matrices and of the convolution
    """

    kernel: int
    bias: bool = False


Mixer = Attention | ShortConv


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

    mixer: Mixer
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
        """The mixers of the layers that attend."""
        return tuple(layer.mixer for layer in self.layers if isinstance(layer.mixer, Attention))

    @property
    def convolutions(self) -> tuple[ShortConv, ...]:
        """The mixers of the layers that convolve."""
        return tuple(layer.mixer for layer in self.layers if isinstance(layer.mixer, ShortConv))

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

    def cache(self, context: int) -> tuple[State, ...]:
        """The state of each layer for `context` tokens."""

        def state(mixer: Mixer) -> State:
            if isinstance(mixer, ShortConv):
                return ConvSpec(context, mixer.kernel, self.hidden)
            return CacheSpec(context, mixer.kv_heads, mixer.head_dim, mixer.window)

        return tuple(state(layer.mixer) for layer in self.layers)

    def linears(self) -> dict[str, tuple[int, int]]:
        """Name -> (out, in) of every linear, the head included where it is not the embedding's own table."""
        shapes: dict[str, tuple[int, int]] = {}
        for i, layer in enumerate(self.layers):
            a, width = layer.mixer, layer.mlp.width
            if isinstance(a, ShortConv):
                of = {"conv_in": (3 * self.hidden, self.hidden), "conv_out": (self.hidden, self.hidden)}
            else:
                q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
                of = {"q": (q, self.hidden), "k": (kv, self.hidden), "v": (kv, self.hidden), "o": (self.hidden, q)}
            of |= {"gate": (width, self.hidden)} if layer.mlp.gated else {}
            of |= {"up": (width, self.hidden), "down": (self.hidden, width)}
            shapes |= {f"layers.{i}.{kind}": shape for kind, shape in of.items()}
        return shapes if self.tied_head else shapes | {"head": (self.vocab, self.hidden)}

    def vectors(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of what is never quantized: norm gains, kernels of convolutions [hidden, kernel], biases."""
        shapes: dict[str, tuple[int, ...]] = {"norm": (self.hidden,)}
        biased: set[str] = set()
        for i, layer in enumerate(self.layers):
            a = layer.mixer
            kinds = {"before": ("attn_norm", "mlp_norm"), "after": ("attn_out_norm", "mlp_out_norm")}
            placed = kinds["before"] + kinds["after"] if layer.norms == "both" else kinds[layer.norms]
            of: dict[str, tuple[int, ...]] = dict.fromkeys(placed, (self.hidden,))
            named = ["gate", "up", "down"] * layer.mlp.bias
            if isinstance(a, ShortConv):
                of |= {"conv": (self.hidden, a.kernel)} | ({"conv.bias": (self.hidden,)} if a.bias else {})
                named += ["conv_in", "conv_out"] * a.bias
            else:
                heads = (a.heads, a.kv_heads) if a.qk_norm == "full" else (1, 1)
                if a.qk_norm:
                    of |= {"q_norm": (heads[0] * a.head_dim,), "k_norm": (heads[1] * a.head_dim,)}
                named += ["q", "k", "v"] * a.bias + ["o"] * a.output_bias
            shapes |= {f"layers.{i}.{kind}": shape for kind, shape in of.items()}
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
    """The config with fields of its attentions replaced, each by one value an attention."""
    changes = [dict(zip(of, values, strict=True)) for values in zip(*of.values(), strict=True)]
    changed = (replace(mixer, **one) for mixer, one in zip(config.attentions, changes, strict=True))
    mixers = [next(changed) if isinstance(layer.mixer, Attention) else layer.mixer for layer in config.layers]
    assert next(changed, None) is None
    layers = zip(config.layers, mixers, strict=True)
    return replace(config, layers=tuple(replace(layer, mixer=mixer) for layer, mixer in layers))
