"""What a model's files say about generating with it, resolved once at export (export/facts.py) and kept in the
manifest: the tokens that end an answer, the sampling that its makers recommend, the chat template. Read as untrusted
input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from smolship.runtime.errors import InputError, show
from smolship.runtime.generate import Sampling

WHERE = "manifest.json"
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
MOST_ENDS = 512  # more than any model has

# Plain facts for people and reports, and the size of the vocabulary, which ids are checked against.
MODEL = {
    "source": str,
    "architecture": str,
    "layers": int,
    "hidden": int,
    "heads": int,
    "kv_heads": int,
    "head_dim": int,
    "vocab": int,
    "parameters": int,
}


@dataclass(frozen=True)
class EndToken:
    """A token that ends an answer. `text` is empty where the tokenizer does not know the id; `origins` are what names
    it, such as "generation_config.json"."""

    id: int
    text: str
    origins: tuple[str, ...]


@dataclass(frozen=True)
class Recommended:
    """The sampling that the model's makers recommend, as transformers reads it, defaults filled in. Without `do_sample`
    it is greedy, and the others hold for whoever asks for a temperature."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def sampling(self) -> Sampling:
        return Sampling(
            self.temperature if self.do_sample else 0.0, self.top_p, self.top_k, self.min_p, self.repetition_penalty
        )


@dataclass(frozen=True)
class Facts:
    """See the module.

    ends            every token that ends an answer, the first one transformers would name first
    adds_bos        the tokenizer puts `bos` in front of a raw text
    special_tokens  what the chat template sees as bos_token and so on
    template        where the bundle's chat_template.jinja comes from; None where it has none
    """

    ends: tuple[EndToken, ...] = ()
    bos: int | None = None
    pad: int | None = None
    adds_bos: bool = False
    sampling: Recommended = Recommended()
    special_tokens: dict[str, str] = field(default_factory=dict)
    template: str | None = None

    @property
    def end_ids(self) -> tuple[int, ...]:
        return tuple(end.id for end in self.ends)


def check_model(raw: dict[str, Any]) -> None:
    """Refuse a manifest whose `model` lacks what tables and reports show."""
    for key, kind in MODEL.items():
        _typed(raw.get(key), kind, f"model.{key}")
    if raw.get("revision") is not None:
        _typed(raw["revision"], str, "model.revision")
    if not 1 <= raw["vocab"] <= 1 << 24:
        raise _wrong("model.vocab", raw["vocab"], "1 to 16,777,216")


def read_facts(raw: dict[str, Any], vocab: int) -> Facts:
    """The manifest's `generation`, every type and range checked."""
    _only(raw, Facts, "generation")
    ends = _typed(raw.get("ends"), list, "generation.ends")
    if len(ends) > MOST_ENDS:
        raise _wrong("generation.ends", f"{len(ends):,} tokens", f"up to {MOST_ENDS}")
    template = raw.get("template")
    if template is not None:
        _typed(template, str, "generation.template")
    special = _typed(raw.get("special_tokens"), dict, "generation.special_tokens")
    for role, text in special.items():
        if role not in ROLES:
            raise _wrong("generation.special_tokens", role, "only " + ", ".join(ROLES))
        _typed(text, str, f"generation.special_tokens.{role}")
    return Facts(
        ends=tuple(_end(entry, vocab, f"generation.ends[{i}]") for i, entry in enumerate(ends)),
        bos=_token(raw.get("bos"), vocab, "generation.bos"),
        pad=_token(raw.get("pad"), vocab, "generation.pad"),
        adds_bos=_typed(raw.get("adds_bos"), bool, "generation.adds_bos"),
        sampling=_recommended(_typed(raw.get("sampling"), dict, "generation.sampling")),
        special_tokens=special,
        template=template,
    )


def _end(raw: Any, vocab: int, key: str) -> EndToken:
    _only(_typed(raw, dict, key), EndToken, key)
    origins = _typed(raw.get("origins"), list, f"{key}.origins")
    for origin in origins:
        _typed(origin, str, f"{key}.origins")
    number = _token(_typed(raw.get("id"), int, f"{key}.id"), vocab, f"{key}.id")
    assert number is not None
    return EndToken(number, _typed(raw.get("text"), str, f"{key}.text"), tuple(origins))


def _token(value: Any, vocab: int, key: str) -> int | None:
    if value is not None and not 0 <= _typed(value, int, key) < vocab:
        raise _wrong(key, value, f"a token id below {vocab:,}")
    return value


def _recommended(raw: dict[str, Any]) -> Recommended:
    _only(raw, Recommended, "generation.sampling")
    found: dict[str, Any] = {}
    for name, default in vars(Recommended()).items():
        kind = int | float if isinstance(default, float) else type(default)
        value = _typed(raw.get(name), kind, f"generation.sampling.{name}")
        if isinstance(default, float) and not (abs(value) <= 1 << 64 and math.isfinite(value)):
            raise _wrong(f"generation.sampling.{name}", value, "a finite number")
        found[name] = float(value) if isinstance(default, float) else value
    recommended = Recommended(**found)
    recommended.sampling()  # which refuses what is out of range
    return recommended


def _only(raw: dict[str, Any], kind: type, key: str) -> None:
    if unknown := set(raw) - set(kind.__dataclass_fields__):  # type: ignore[attr-defined]
        raise InputError(f"{WHERE}: {key} has unknown keys", got=sorted(unknown))


def _typed(value: Any, kind: Any, key: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        expected = "number" if kind == int | float else kind.__name__
        raise _wrong(key, value, f"a value of type {expected}")
    return value


def _wrong(key: str, value: object, expected: str) -> InputError:
    return InputError(
        f"{WHERE}: {key} cannot be used", got=show(value), expected=expected, todo="export the bundle again"
    )
