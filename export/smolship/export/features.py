"""What a decoder may have beyond the plain one, by name: a target lists those that it holds, and refuses the others.

The plain decoder: full attention in all layers, rotary embedding of halves over whole heads and one for all layers, a
gated MLP with silu, RMSNorm before both, no biases, layers of one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from smolship.export.config import Attention, DecoderConfig, Mlp, only


def _mixer(has: Callable[[Attention], object]) -> Callable[[DecoderConfig], bool]:
    return lambda config: any(has(mixer) for mixer in config.attentions)


def _mlp(has: Callable[[Mlp], bool]) -> Callable[[DecoderConfig], bool]:
    return lambda config: any(has(layer.mlp) for layer in config.layers)


def _norms(placement: str) -> Callable[[DecoderConfig], bool]:
    return lambda config: any(layer.norms == placement for layer in config.layers)


def _scaled(config: DecoderConfig) -> bool:
    return {config.embedding_scale, config.logits_scale, *(layer.residual for layer in config.layers)} != {1.0}


FEATURES: dict[str, tuple[str, Callable[[DecoderConfig], bool]]] = {  # name -> what a refusal calls it, whether it is
    "nope": ("layers without rotary embedding", _mixer(lambda m: m.rotary is None)),
    "rotaries": ("several rotary embeddings", lambda config: len(config.rotaries) > 1),
    "partial": ("rotary embedding of a part of each head", _mixer(lambda m: m.rotary and m.rotary.width < m.head_dim)),
    "interleaved": ("rotary embedding of neighbours", _mixer(lambda m: m.rotary and m.rotary.interleaved)),
    "scaling": ("a scaled rotary embedding", _mixer(lambda m: m.rotary and m.rotary.scaling)),
    "window": ("attention over a sliding window", _mixer(lambda m: m.window)),
    "scale": (
        "scores that are scaled otherwise than by the head's size",
        _mixer(lambda m: m.scale != m.head_dim**-0.5),
    ),
    "qk_norm.head": ("a norm of each query and key", _mixer(lambda m: m.qk_norm == "head")),
    "qk_norm.full": ("a norm over all queries and one over all keys", _mixer(lambda m: m.qk_norm == "full")),
    "bias": ("biases of q, k and v", _mixer(lambda m: m.bias)),
    "output_bias": ("a bias of o", _mixer(lambda m: m.output_bias)),
    "mlp_bias": ("biases of the MLP", _mlp(lambda mlp: mlp.bias)),
    "convolution": ("layers that convolve over neighbouring tokens", lambda config: bool(config.convolutions)),
    "conv_bias": ("biases of a convolution", lambda config: any(mixer.bias for mixer in config.convolutions)),
    "gelu_tanh": ("an MLP with tanh's approximation of GELU", _mlp(lambda mlp: mlp.activation == "gelu_tanh")),
    "ungated": ("an MLP without a gate", _mlp(lambda mlp: not mlp.gated)),
    "norms.after": ("norms after the attention and the MLP, not before", _norms("after")),
    "norms.both": ("norms before and after the attention and the MLP", _norms("both")),
    "scales": ("a scaled embedding, residual or logits", _scaled),
    "heads": (
        "layers whose heads differ",
        lambda config: only((m.heads, m.kv_heads, m.head_dim) for m in config.attentions) is None,
    ),
    "widths": ("layers whose MLPs differ in width", lambda config: only(x.mlp.width for x in config.layers) is None),
}


# What every target holds whose graph is written out by us.
COMMON = frozenset(FEATURES) - {"interleaved", "heads"}


def features(config: DecoderConfig) -> set[str]:
    """The names of what this decoder has."""
    return {name for name, (_, has) in FEATURES.items() if has(config)}


def beyond(config: DecoderConfig, held: Collection[str]) -> list[str]:
    """What it has and a target does not hold, as refusals."""
    assert set(held) <= set(FEATURES)
    missing = features(config) - set(held)
    return [f"cannot hold {text}, which this model has" for name, (text, _) in FEATURES.items() if name in missing]
