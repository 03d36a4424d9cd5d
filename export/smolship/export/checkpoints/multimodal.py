"""The text half of a checkpoint that also sees: its config and its tensors under the names of the text model alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from smolship.runtime.errors import InputError, show

R = TypeVar("R")

TEXT = {"gemma3": "gemma3_text"}  # `model_type` of the whole -> of the text model in it
PREFIXES = {
    "model.language_model.": "model.",
    "language_model.": "",
}  # of names: transformers' own, and until version 4
OTHERS = ("vision_tower.", "multi_modal_projector.")  # what is left out, with and without the prefix "model."
ABOVE = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
    "quantization_config",
    "torch_dtype",
    "dtype",
)


def text_config(raw: dict[str, Any], where: object) -> dict[str, Any] | None:
    """The config.json of the text half; None where the model is none of these."""
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in TEXT:
        return None
    text = raw.get("text_config")
    if not isinstance(text, dict):
        raise InputError(
            "a multimodal config without its text model", got=show(text), expected="text_config: an object"
        )
    if text.get("model_type", TEXT[kind]) != TEXT[kind]:
        got = f"model_type {show(text['model_type'])} in text_config of {where}"
        raise InputError("the text half is of another kind", got=got, expected=TEXT[kind])
    return {key: raw[key] for key in ABOVE if key in raw} | text | {"model_type": TEXT[kind]}


def text_name(name: str) -> str:
    """A tensor's name in the text model alone."""
    for prefix, plain in PREFIXES.items():
        if name.startswith(prefix):
            return plain + name.removeprefix(prefix)
    return name


def text_tensors(stored: Mapping[str, R]) -> tuple[dict[str, R], str]:
    """The tensors of the text half, and what was left out, in words."""
    found = {
        text_name(name): slot for name, slot in stored.items() if not name.removeprefix("model.").startswith(OTHERS)
    }
    count = len(stored) - len(found)
    return found, f"the text half of a multimodal model: {count:,} tensors that see pictures are left out"
