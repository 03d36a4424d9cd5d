"""A model as it comes: an HF folder (safetensors, sharded or not), a Hub id, or a GGUF file. Nothing in it is run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from smolship.export import advice, folder
from smolship.export.config import DecoderConfig
from smolship.export.families import family_of, theirs, translate
from smolship.export.gguffile import GgufSlot
from smolship.export.matching import Rows, as_transformers, match
from smolship.export.prequantized import QUANTIZATION_KEYS, WHOLE, quantization_of, quantized
from smolship.export.quantize import QuantTensor
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.files import parse_json, read_bytes, read_json, regular_file
from smolship.runtime.looks import GGUF, what_is

HUB_TIMEOUT = 10.0  # seconds until the Hub must have answered the first question
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer*"]
SIDE_FILES = ("tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass
class Checkpoint:
    """A checked checkpoint. Tensors are read lazily, by our names, in rows (`read`).

    raw     its config.json
    config  what that says, in our terms
    slots   our tensor name -> where it lies
    files   the tokenizer's and other side files, by name
    path    the folder or GGUF file
    ends    a GGUF file's end tokens, by the keys that name them; None for a folder (see facts.py)
    weights of a folder: the files that hold them, by name; the index, where there is one, comes first
    """

    raw: dict[str, Any]
    config: DecoderConfig
    slots: Mapping[str, Rows]
    files: dict[str, bytes]
    path: Path
    revision: str | None = None
    notes: list[str] = field(default_factory=list)
    ends: dict[str, int] | None = None
    weights: tuple[str, ...] = ()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start…stop of a tensor as float32."""
        return self.slots[name].read(start, stop).astype(np.float32, copy=False)

    def grid(self, name: str) -> tuple[int, int] | None:
        """(bits, group) of a matrix that is quantized already, on a grid that we hold."""
        slot = self.slots[name]
        return slot.grid if isinstance(slot, GgufSlot) else None

    def lift(self, name: str, start: int = 0, stop: int | None = None) -> QuantTensor:
        """Rows of a matrix that has a `grid`, as they are quantized."""
        slot = self.slots[name]
        assert isinstance(slot, GgufSlot)
        return slot.lift(start, stop)


def open_checkpoint(model: str, revision: str | None = None) -> Checkpoint:
    """Open `model`: an existing folder, an existing GGUF file, or else a Hub id such as `HuggingFaceTB/SmolLM3-3B`.

    Reads headers, and a head that is stored although it is tied. Raises InputError where anything is missing,
    malformed, unknown or left over.
    """
    path = Path(model)
    if os.path.isdir(model):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        return open_folder(path)
    if path.suffix.lower() == ".gguf" or what_is(path) == GGUF:
        from smolship.export.gguf_checkpoint import open_gguf

        return open_gguf(path)
    if os.path.lexists(model):
        regular_file(path, "model")
        raise advice.not_a_model(path)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith("."):
        raise InputError("no such checkpoint", got=path, expected=advice.EXPECTED)
    return open_folder(*_download(model, revision))


def _download(model: str, revision: str | None) -> tuple[Path, str | None]:
    """(snapshot folder, commit) of a Hub model; from the local cache where the Hub does not answer."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    offline: Exception | None = None
    try:
        info = hub.model_info(model, revision=revision, timeout=HUB_TIMEOUT)
        revision = info.sha
        if refusal := advice.repository(model, [file.rfilename for file in getattr(info, "siblings", None) or ()]):
            raise refusal
    except errors.HFValidationError as error:
        raise InputError("no such folder, and not a Hub id", got=error, expected="owner/name") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise InputError(
            "no such folder, and not found on the Hub",
            got=f"{model}{f' at {revision}' if revision else ''} ({type(error).__name__})",
            expected="a local folder, a .gguf file or a Hub id",
            todo="check the name and revision, or log in if the model is private",
        ) from None
    except (errors.HTTPError, OSError) as error:
        offline = error
    try:
        folder = hub.snapshot_download(
            model,
            revision=revision,
            allow_patterns=HUB_FILES,
            ignore_patterns=["*/*"],
            local_files_only=offline is not None,
        )
    except (errors.HTTPError, OSError) as error:
        raise SetupError(
            f"{model!r} is no local folder, and the Hub cannot be reached",
            got=f"{type(error).__name__}: {offline or error}",
            todo="check the path, or the network",
        ) from None
    return Path(folder), revision


def open_folder(path: Path, revision: str | None = None) -> Checkpoint:
    """A local folder as transformers saves it."""
    if not os.path.lexists(path / "config.json"):
        raise advice.no_config(path)
    raw = read_json(path / "config.json", "config.json")
    if foreign := advice.foreign_config(raw, path):
        raise foreign
    family_of(raw, path / "config.json")  # an unknown one is no matter of its weights
    weights = folder.stored(path, raw)
    if refusal := quantized(raw, {name: slot.dtype for name, slot in weights.tensors.items()}, path):
        raise refusal
    config, family, reading = translate(raw, path / "config.json")
    matched = match(config, as_transformers(weights.tensors, config, family.NAMES, path), family.NAMES, path)
    if matched.config.tied_head != config.tied_head:
        raw = raw | {"tie_word_embeddings": matched.config.tied_head}
    for name, slot in matched.slots.items():
        if slot.dtype not in WHOLE:
            raise InputError(
                f"{theirs(family.NAMES, name)} is not stored as floating point",
                got=f"{slot.dtype} in {slot.path}",
                expected="one of " + ", ".join(WHOLE),
                todo=advice.SOURCE,
            )
    if not os.path.lexists(path / "tokenizer.json"):
        raise advice.no_tokenizer(path, advice.names_in(path))
    files = {"tokenizer.json": read_bytes(path / "tokenizer.json", "tokenizer.json")}
    parse_json(files["tokenizer.json"], "tokenizer.json", path)
    for name in SIDE_FILES:
        if os.path.lexists(path / name):  # a link to nowhere is not left out, but refused
            files[name] = read_bytes(path / name, name)
            if refusal := advice.not_itself(name, files[name], path):
                raise refusal
    if declared := quantization_of(raw):
        key = next(key for key in QUANTIZATION_KEYS if raw.get(key))
        reading.notes.append(
            f"config.json: {key} ({declared}) is left behind: the weights are plain, and taken as such"
        )
    notes = reading.notes + weights.notes + matched.notes
    return Checkpoint(raw, matched.config, matched.slots, files, path, revision, notes, weights=weights.files)
