"""A model as it comes: an HF folder (safetensors, sharded or not), a Hub id, or a GGUF file. Nothing in it is run."""

from __future__ import annotations

import os
import re
from pathlib import Path

from smolship.export.checkpoints import advice
from smolship.export.checkpoints.checkpoint import Checkpoint
from smolship.export.checkpoints.folder import open_folder
from smolship.export.checkpoints.gguf import open_gguf
from smolship.export.checkpoints.hub import download
from smolship.runtime.errors import InputError
from smolship.runtime.files import regular_file
from smolship.runtime.looks import GGUF, what_is

__all__ = ["Checkpoint", "open_checkpoint"]


def open_checkpoint(model: str, revision: str | None = None, tokenizer: str | None = None) -> Checkpoint:
    """Open `model`: an existing folder, an existing GGUF file, or else a Hub id such as `HuggingFaceTB/SmolLM3-3B`.
    `tokenizer` is a folder whose tokenizer is taken, with the chat template beside it, and not the model's own.

    Reads headers, and a head that is stored although it is tied. Raises InputError where anything is missing,
    malformed, unknown or left over.
    """
    path = Path(model)
    if os.path.isdir(model):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        return open_folder(path, tokenizer=tokenizer)
    if path.suffix.lower() == ".gguf" or what_is(path) == GGUF:
        if tokenizer is not None:
            raise InputError(
                "a GGUF file brings its own tokenizer", got=f"--tokenizer {tokenizer}", todo="leave it out"
            )
        return open_gguf(path)
    if os.path.lexists(model):
        regular_file(path, "model")
        raise advice.not_a_model(path)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith("."):
        raise InputError("no such checkpoint", got=path, expected=advice.EXPECTED)
    return open_folder(*download(model, revision), tokenizer=tokenizer)
