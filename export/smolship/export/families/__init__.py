"""Model families: one small module each, stating how its config.json and tensor names translate to ours."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from smolship.export.config import DecoderConfig, Fields
from smolship.runtime.errors import InputError, show

FAMILIES = {  # transformers class in config.json's `architectures` -> module
    "LlamaForCausalLM": "smolship.export.families.llama",
    "SmolLM3ForCausalLM": "smolship.export.families.smollm3",
}


class Family(Protocol):
    """What a family module holds."""

    NAMES: dict[str, str]  # our tensor name -> the checkpoint's, with {} for the layer

    def translate(self, fields: Fields) -> DecoderConfig: ...


def family_of(raw: dict[str, Any], where: Path | str) -> Family:
    """The family of a config.json, by its `architectures`."""
    names = raw.get("architectures")
    name = names[0] if isinstance(names, list) and len(names) == 1 else names
    if not isinstance(name, str) or name not in FAMILIES:
        raise InputError(
            "unknown architecture",
            got=f"{show(name)} in {where}",
            expected="one of " + ", ".join(sorted(FAMILIES)),
            todo="export one of these, or add a family file (see export/smolship/export/families)",
        )
    return import_module(FAMILIES[name])


def theirs(names: dict[str, str], ours: str) -> str:
    """The checkpoint's name of our tensor `ours`, from a table such as `Family.NAMES`."""
    parts = ours.split(".")
    if parts[0] != "layers":
        return names[ours]
    kind = parts[2]
    name = names[kind].format(parts[1])
    return name.removesuffix(".weight") + ".bias" if parts[-1] == "bias" else name
