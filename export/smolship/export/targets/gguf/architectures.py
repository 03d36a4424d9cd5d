"""llama.cpp's architectures: what each can hold, and what its files say beside what all say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from smolship.export.config import Attention, DecoderConfig, only
from smolship.export.features import beyond
from smolship.export.rotary import LinearScaling, LongRope, Rotary, Scaling, YarnScaling

NOPE_STEP = 4  # llama.cpp's smollm3: every fourth layer has no rotary embedding
CONTEXT_UNIT = 256  # to a multiple of which llama.cpp lengthens a context
GEMMA3_STEP, GEMMA3_THETA, GEMMA3_27B = 6, 10_000.0, 62  # its windows and their theta, where a file says nothing


def in_keys(scaling: Scaling) -> bool:
    """Whether it is one that llama.cpp has keys for, in every architecture: YaRN with its usual ramp."""
    if isinstance(scaling, YarnScaling):
        return (scaling.fast, scaling.slow, scaling.whole) == (32, 1, True) and scaling.original.is_integer()
    return isinstance(scaling, LinearScaling)


def yarn_amplitude(factor: float) -> float:
    """llama.cpp's, where a file says nothing."""
    return 1 + 0.1 * math.log(max(factor, 1))


@dataclass(frozen=True)
class Architecture:
    """One of llama.cpp's.

    holds   of features.py
    scales  whether it holds such a scaling of a rotary embedding
    lacks   why it cannot express such a decoder, beyond that
    rotary  the embedding that the file's general keys describe
    keys    what the file says besides, by key after the architecture's name
    """

    name: str
    holds: frozenset[str] = frozenset()
    lacks: Callable[[DecoderConfig], list[str]] = lambda config: []
    scales: Callable[[Scaling], bool] = in_keys
    rotary: Callable[[DecoderConfig], Rotary] = lambda config: next(iter(config.rotaries.values()))
    keys: Callable[[DecoderConfig], dict[str, Any]] = lambda config: {}

    def problems(self, config: DecoderConfig) -> list[str]:
        scalings = {rotary.scaling for rotary in config.rotaries.values()} if "scaling" in self.holds else set()
        other = any(scaling is not None and not self.scales(scaling) for scaling in scalings)
        kind = [f"a scaling of the rotary embedding, which llama.cpp's {self.name} has no keys for"] * other
        return beyond(config, self.holds) + kind + self.lacks(config)

    def metadata(self, config: DecoderConfig) -> dict[str, Any]:
        """What it says of the rotary embedding's scaling, and its own keys."""
        scaling, said = self.rotary(config).scaling, {}
        if isinstance(scaling, LinearScaling):
            said = {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
        elif isinstance(scaling, YarnScaling) and in_keys(scaling):
            said = {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": scaling.factor,
                "rope.scaling.original_context_length": int(scaling.original),
            }
            if not math.isclose(times := scaling.amount / yarn_amplitude(scaling.factor), 1, rel_tol=1e-7):
                said["rope.scaling.attn_factor"] = times
        elif scaling is not None and scaling.amplitude != 1:
            said = {"rope.scaling.attn_factor": scaling.amplitude}
        return said | self.keys(config)


def _smollm3(config: DecoderConfig) -> list[str]:
    rotated = [mixer.rotary is not None for mixer in config.attentions]
    if rotated == [(i + 1) % NOPE_STEP != 0 for i in range(len(rotated))]:
        return []
    return ["no_rope_layers other than every fourth, which is all that llama.cpp's smollm3 knows"]


def _qwen2(config: DecoderConfig) -> list[str]:
    found = _divided(config, "qwen2")
    if not all(mixer.bias for mixer in config.attentions):
        found.append("no biases of q, k and v, which llama.cpp's qwen2 always has")
    return found


def _windows(config: DecoderConfig) -> Rotary | None:
    """The rotary embedding of the layers that see a window; None where all have one, and none sees a window."""
    windowed = dict.fromkeys(mixer.rotary for mixer in config.attentions if mixer.window)
    if not windowed and len(config.rotaries) > 1:  # windows of the whole context; their embedding is another still
        windowed = dict.fromkeys(rotary for rotary in config.rotaries.values() if rotary.scaling is None)
    return next(iter(windowed), None)


def _everywhere(config: DecoderConfig) -> Rotary:
    """The rotary embedding of the layers that see everything."""
    local = _windows(config)
    return next((rotary for rotary in config.rotaries.values() if rotary != local), local) or Rotary(GEMMA3_THETA, 2)


def _slides(config: DecoderConfig) -> list[bool]:
    local = _windows(config)
    return [local is not None and mixer.rotary == local for mixer in config.attentions]


def _gemma3(config: DecoderConfig) -> list[str]:
    mixer, local, slides = config.attentions[0], _windows(config), _slides(config)
    size = config.hidden // mixer.heads if len(config.layers) == GEMMA3_27B else mixer.head_dim
    found = []
    if {mixer.scale for mixer in config.attentions} != {size**-0.5}:
        found.append(f"scores that are not scaled by {size}^-0.5, as llama.cpp's gemma3 scales them")
    others = {config.logits_scale, *(layer.residual for layer in config.layers)}
    if config.embedding_scale != np.float32(config.hidden**0.5) or others != {1.0}:
        found.append("a scaled embedding, residual or logits other than an embedding times the root of its width")
    windows = {mixer.window for mixer, slide in zip(config.attentions, slides, strict=True) if slide}
    if len(config.rotaries) > 2 or len(windows) > 1 or (local and local.scaling):
        found.append("windows that differ, or a scaled rotary embedding in them")
    if any(mixer.window for mixer, slide in zip(config.attentions, slides, strict=True) if not slide):
        found.append("windows in layers with and without a rotary embedding of their own")
    return found


def _gemma3_keys(config: DecoderConfig) -> dict[str, Any]:
    local, slides = _windows(config), _slides(config)
    if local is None:
        return {}
    window = next((mixer.window for mixer in config.attentions if mixer.window), config.positions)
    keys: dict[str, Any] = {"attention.sliding_window": window}
    if slides != [(i + 1) % GEMMA3_STEP != 0 for i in range(len(slides))]:
        keys["attention.sliding_window_pattern"] = slides
    return keys | ({"rope.freq_base_swa": local.theta} if local.theta != GEMMA3_THETA else {})


def _granite_keys(config: DecoderConfig) -> dict[str, Any]:
    return {
        "embedding_scale": config.embedding_scale,
        "residual_scale": config.layers[0].residual,
        "attention.scale": config.attentions[0].scale,
        "logit_scale": 1 / config.logits_scale,
    }


def _lfm2(config: DecoderConfig) -> list[str]:
    found = _divided(config, "lfm2")
    if not config.convolutions:  # the process would end
        found.append("no convolutions, which llama.cpp's lfm2 always has")
    if len({one.kernel for one in config.convolutions}) > 1:
        found.append("convolutions whose kernels differ, where llama.cpp's lfm2 has one size of them")
    return found


def _lfm2_keys(config: DecoderConfig) -> dict[str, Any]:
    """llama.cpp takes layers without heads for keys for convolutions."""
    mixers = (layer.mixer for layer in config.layers)
    heads = [mixer.kv_heads if isinstance(mixer, Attention) else 0 for mixer in mixers]
    return {"attention.head_count_kv": heads, "shortconv.l_cache": config.convolutions[0].kernel}


def _divided(config: DecoderConfig, name: str) -> list[str]:
    """Why an architecture cannot hold heads that are not what the hidden size divides into."""
    mixer = config.attentions[0]
    if mixer.heads * mixer.head_dim == config.hidden:
        return []
    return [f"{mixer.heads} heads of {mixer.head_dim}, where llama.cpp's {name} divides {config.hidden} into heads"]


def _olmo2(config: DecoderConfig) -> list[str]:
    tied = ["a head that is the embedding's table, which llama.cpp's olmo2 never has"] * config.tied_head
    return tied + _divided(config, "olmo2")


def _openelm(config: DecoderConfig) -> list[str]:
    found = [] if config.tied_head else ["a head of its own, which llama.cpp's openelm never has"]
    if not all(mixer.qk_norm for mixer in config.attentions):
        found.append("no norms of queries and keys, which llama.cpp's openelm always has")
    if only(mixer.head_dim for mixer in config.attentions) is None:
        found.append("heads of several sizes, where llama.cpp's openelm has one")
    return found


def _phi3(config: DecoderConfig) -> list[str]:
    found, longest = _divided(config, "phi3"), config.longest
    if longest < config.positions and longest % CONTEXT_UNIT:
        found.append(
            f"another rotary embedding for more than {longest:,} positions, where llama.cpp goes by a context that it "
            f"lengthens to a multiple of {CONTEXT_UNIT}"
        )
    return found


def _phi3_keys(config: DecoderConfig) -> dict[str, Any]:
    scaling = next(iter(config.rotaries.values())).scaling
    return {"rope.scaling.original_context_length": scaling.original} if isinstance(scaling, LongRope) else {}


ARCHITECTURES = {  # config.json's `model_type` -> llama.cpp's
    "gemma3_text": Architecture(
        "gemma3",
        frozenset(("rotaries", "scaling", "window", "scale", "qk_norm.head", "gelu_tanh", "norms.both", "scales")),
        _gemma3,
        lambda scaling: isinstance(scaling, LinearScaling),  # YaRN would be in the windows, too
        _everywhere,
        _gemma3_keys,
    ),
    "granite": Architecture(
        "granite", frozenset(("scaling", "bias", "output_bias", "mlp_bias", "scale", "scales")), keys=_granite_keys
    ),
    "lfm2": Architecture("lfm2", frozenset(("scaling", "qk_norm.head", "convolution")), _lfm2, keys=_lfm2_keys),
    "llama": Architecture(
        "llama",
        frozenset(("scaling", "bias", "output_bias", "mlp_bias")),
        scales=lambda scaling: not isinstance(scaling, LongRope),  # any divisors, as a tensor
    ),
    "olmo2": Architecture("olmo2", frozenset(("scaling", "qk_norm.full", "norms.after")), _olmo2),
    "openelm": Architecture("openelm", frozenset(("qk_norm.head", "heads", "widths")), _openelm),
    "phi3": Architecture(
        "phi3",
        frozenset(("partial", "scaling")),
        _phi3,
        scales=lambda scaling: isinstance(scaling, LongRope),
        keys=_phi3_keys,
    ),
    "qwen2": Architecture("qwen2", frozenset(("scaling", "bias")), _qwen2),
    "qwen3": Architecture("qwen3", frozenset(("scaling", "qk_norm.head"))),
    "smollm3": Architecture("smollm3", frozenset(("scaling", "nope")), _smollm3),
}
