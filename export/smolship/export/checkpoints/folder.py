"""A checkpoint as transformers saves it: a folder with config.json, safetensors and tokenizer.json."""

from __future__ import annotations

import os
from pathlib import Path

from smolship.export.checkpoints import advice
from smolship.export.checkpoints.checkpoint import Checkpoint
from smolship.export.checkpoints.files import stored
from smolship.export.checkpoints.matching import as_transformers, match
from smolship.export.checkpoints.multimodal import text_config, text_tensors
from smolship.export.checkpoints.prequantized import QUANTIZATION_KEYS, WHOLE, quantization_of
from smolship.export.families import translate
from smolship.export.tensorfile import Slot
from smolship.runtime.errors import InputError, clip
from smolship.runtime.files import parse_json, read_bytes, read_json

OF_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")  # beside tokenizer.json
SIDE_FILES = ("generation_config.json", *OF_TOKENIZER)


def open_folder(path: Path, revision: str | None = None, tokenizer: str | None = None) -> Checkpoint:
    """A local folder as transformers saves it; its tokenizer from the folder `tokenizer`, where one is given."""
    if not os.path.lexists(path / "config.json"):
        raise advice.no_config(path)
    raw = read_json(path / "config.json", "config.json")
    if foreign := advice.foreign_config(raw, path):
        raise foreign
    text = text_config(raw, path / "config.json")
    config, family, reading = translate(text or raw, path / "config.json")  # whatever the weights are
    weights = stored(path, raw)
    tensors: dict[str, Slot] = weights.tensors
    if text is not None:
        raw, (tensors, left) = text, text_tensors(tensors)
        reading.notes.append(left)
    matched = match(config, as_transformers(tensors, config, family.NAMES, path), family.NAMES, path)
    if matched.config.tied_head != config.tied_head:
        raw = raw | {"tie_word_embeddings": matched.config.tied_head}
    for name, slot in matched.used.items():
        if slot.dtype not in WHOLE:
            raise InputError(
                f"{name} is not stored as floating point",
                got=f"{slot.dtype} in {slot.path}",
                expected="one of " + ", ".join(WHOLE),
                todo=advice.SOURCE,
            )
    home = path if tokenizer is None else Path(tokenizer)
    if not os.path.lexists(home / "tokenizer.json"):
        whose = getattr(family, "TOKENIZER", None)
        raise advice.no_tokenizer(home, advice.names_in(home), whose)
    files = {"tokenizer.json": read_bytes(home / "tokenizer.json", "tokenizer.json")}
    parse_json(files["tokenizer.json"], "tokenizer.json", home)
    for name in SIDE_FILES:
        place = home if name in OF_TOKENIZER else path
        if os.path.lexists(place / name):  # a link to nowhere is not left out, but refused
            files[name] = read_bytes(place / name, name)
            if refusal := advice.not_itself(name, files[name], place):
                raise refusal
    if declared := quantization_of(raw):
        key = next(key for key in QUANTIZATION_KEYS if raw.get(key))
        reading.notes.append(
            f"config.json: {key} ({declared}) is left behind: the weights are plain, and taken as such"
        )
    notes = reading.notes + weights.notes + matched.notes
    if tokenizer is not None:
        notes.append(f"the tokenizer is not the checkpoint's: it was taken from {clip(home.absolute().name)}")
    checkpoint = Checkpoint(raw, matched.config, matched.slots, files, path, revision, notes, weights=weights.files)
    checkpoint.tokenizer = None if tokenizer is None else home
    return checkpoint
