"""What a decoder is, as data: sizes, rotary embedding, cache. Families translate their config.json into it."""

from __future__ import annotations

import builtins
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from smolship.runtime.errors import InputError, show


@dataclass(frozen=True)
class CacheSpec:
    """The key and value cache of one layer, each [1, length, kv_heads, head_dim]."""

    kind: Literal["full", "sliding"]
    length: int
    kv_heads: int
    head_dim: int
    dtype: Literal["float32", "float16", "int8"] = "float32"


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864), in the half-split layout.

    `scaling` is None or Llama 3's frequency smoothing: (factor, low_freq_factor, high_freq_factor,
    original_positions), from the Llama 3.1 reference implementation.
    """

    theta: float
    dim: int
    scaling: tuple[float, float, float, float] | None = None

    def frequencies(self) -> np.ndarray:
        """Radians per position, float32 [dim / 2], bit for bit those of transformers.

        Computed as it does, in float32 and by torch, for each step's rounding is part of the model: a float64 power
        rounded once is up to 4e-3 rad away at position 65,000, and numpy's float32 power is another one too. (llama.cpp
        makes its own from theta by repeated multiplication in float32, which a GGUF file cannot change: with 64 or 128
        dimensions it is up to 2e-4 rad away at position 2,048, 1e-3 at 8,192 and 8e-3 at 65,000.)
        """
        import torch

        freq = 1.0 / (self.theta ** (torch.arange(0, self.dim, 2, dtype=torch.float32) / self.dim))
        if self.scaling is not None:
            factor, low, high, original = self.scaling
            wavelength = 2 * math.pi / freq  # positions to a full turn
            smooth = (original / wavelength - low) / (high - low)
            between = (1 - smooth) * freq / factor + smooth * freq
            stretched = torch.where(wavelength > original / low, freq / factor, freq)
            freq = torch.where((wavelength < original / high) | (wavelength > original / low), stretched, between)
        return np.asarray(freq.numpy())

    def tables(self, positions: int) -> tuple[np.ndarray, np.ndarray]:
        """cos and sin, float32 [positions, dim / 2], those of transformers too: the angles are rounded to float32, and
        numpy's cosine is sometimes another neighbour of the true one than torch's."""
        import torch

        angle = torch.arange(positions, dtype=torch.float32)[:, None] * torch.from_numpy(self.frequencies())
        return angle.cos().numpy(), angle.sin().numpy()


@dataclass(frozen=True)
class DecoderConfig:
    """Everything that the decoder, the targets and the runtime need to know of a model but its weights."""

    architecture: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    norm_eps: float
    rotary: Rotary
    rotary_layers: tuple[bool, ...]  # True: the layer HAS rotary embedding
    tied_head: bool
    positions: int  # the longest context that the model was made for
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    bos: int | None = None
    eos: tuple[int, ...] = ()
    model_type: str = field(default="llama")

    @property
    def attention_scale(self) -> float:
        """What q·k is multiplied by before the softmax."""
        return self.head_dim**-0.5

    def cache(self, context: int) -> tuple[CacheSpec, ...]:
        """The cache of each layer for `context` tokens."""
        return (CacheSpec("full", context, self.kv_heads, self.head_dim),) * self.layers

    def linears(self) -> dict[str, tuple[int, int]]:
        """Name -> (out, in) of every linear, the head included where it is not the embedding's own table."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, int]] = {}
        for i in range(self.layers):
            shapes |= {
                f"layers.{i}.q": (q, self.hidden),
                f"layers.{i}.k": (kv, self.hidden),
                f"layers.{i}.v": (kv, self.hidden),
                f"layers.{i}.o": (self.hidden, q),
                f"layers.{i}.gate": (self.intermediate, self.hidden),
                f"layers.{i}.up": (self.intermediate, self.hidden),
                f"layers.{i}.down": (self.hidden, self.intermediate),
            }
        if not self.tied_head:
            shapes["head"] = (self.vocab, self.hidden)
        return shapes

    def vectors(self) -> dict[str, tuple[int]]:
        """Name -> shape of every norm gain and bias."""
        shapes: dict[str, tuple[int]] = {"norm": (self.hidden,)}
        for i in range(self.layers):
            shapes |= {f"layers.{i}.attn_norm": (self.hidden,), f"layers.{i}.mlp_norm": (self.hidden,)}
        has_bias = {
            "q": self.attention_bias,
            "k": self.attention_bias,
            "v": self.attention_bias,
            "o": self.output_bias,
            "gate": self.mlp_bias,
            "up": self.mlp_bias,
            "down": self.mlp_bias,
        }
        for name, (out, _) in self.linears().items():
            if has_bias.get(name.rpartition(".")[2]):
                shapes[f"{name}.bias"] = (out,)
        return shapes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor, in the order in which they are stored."""
        return {"embed": (self.vocab, self.hidden), **self.linears(), **self.vectors()}

    @property
    def head(self) -> str:
        """Name of the table that makes the logits."""
        return "embed" if self.tied_head else "head"


ABSENT: Any = object()  # what a key that is not there holds


class Fields:
    """Checked reads from an untrusted config.json: type and range first, so that nothing is sized by a lie.

    A key that is absent takes the default. Null is refused, as transformers refuses it, where it is not `nullable`;
    there it is as good as absent.

    seen   the keys that were asked for: nothing depends on the others
    notes  what a reader wants said of values that nothing depends on
    """

    def __init__(self, raw: dict[str, Any], where: Path | str):
        self.raw, self.where = raw, str(where)
        self.seen: set[str] = set()
        self.notes: list[str] = []

    def _get(self, key: str, nullable: bool = False) -> Any:
        self.seen.add(key)
        value = self.raw.get(key, ABSENT)
        return ABSENT if nullable and value is None else value

    def wrong(self, key: str, expected: str) -> InputError:
        """The refusal of what the key holds."""
        value = self._get(key)
        got = "nothing" if value is ABSENT else show(value)
        return InputError(f"config value {key!r} cannot be used", got=f"{got} in {self.where}", expected=expected)

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self._get(key, nullable=True) is not ABSENT

    def int(self, key: str, low: int, high: int, default: int | None = None, nullable: bool = False) -> int:
        value = self._get(key, nullable)
        if value is ABSENT and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low:,} to {high:,}")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None, whole: bool = True) -> float:
        """`whole`: whether transformers takes a number without a point there, too."""
        value = self._get(key)
        if value is ABSENT and default is not None:
            return default
        known = isinstance(value, float) or (whole and isinstance(value, int) and not isinstance(value, bool))
        if not known or not low <= value <= high:
            raise self.wrong(key, f"a number from {low:g} to {high:g}" + ("" if whole else ", with a point"))
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key)
        if value is ABSENT:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def choice(self, key: str, known: tuple[str, ...], default: str) -> str:
        value = self._get(key)
        if value is ABSENT:
            return default
        if not isinstance(value, str) or value not in known:
            raise self.wrong(key, "one of " + ", ".join(known))
        return value

    def ids(self, key: str, vocab: builtins.int) -> tuple[builtins.int, ...]:
        """A token id or a list of them; empty where the key is absent."""
        value = self._get(key, nullable=True)
        values = [] if value is ABSENT else value if isinstance(value, list) else [value]
        if len(values) > 64 or any(isinstance(v, bool) or not isinstance(v, int) or not 0 <= v < vocab for v in values):
            raise self.wrong(key, f"a token id below {vocab:,}, or up to 64 of them")
        return tuple(values)

    def sub(self, key: str) -> Fields:
        """An object; empty where the key is absent. What is noted there is noted here."""
        value = self._get(key, nullable=True)
        if value is not ABSENT and not isinstance(value, dict):
            raise self.wrong(key, "an object")
        found = Fields({} if value is ABSENT else value, f"{key} of {self.where}")
        found.notes = self.notes
        return found

    def only(self, key: str, *allowed: object) -> None:
        """Refuse what would change the computation in a way that is not known: all but null and these values."""
        value = self._get(key, nullable=True)
        if value is not ABSENT and not any(type(value) is type(one) and value == one for one in allowed):
            raise self.wrong(key, " or ".join(["null", *map(show, allowed)]))

    def unseen(self) -> list[str]:
        """The keys that nobody asked for."""
        return sorted(set(self.raw) - self.seen)
