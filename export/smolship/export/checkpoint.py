"""A model as it comes: an HF folder (safetensors, sharded or not), a Hub id, or a GGUF file. Nothing in it is run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from smolship.export.config import DecoderConfig
from smolship.export.families import theirs, translate
from smolship.export.gguffile import GgufSlot
from smolship.export.quantize import QuantTensor
from smolship.export.tensorfile import Slot, read_header
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.files import parse_json, read_bytes, read_json

HUB_TIMEOUT = 10.0  # seconds until the Hub must have answered the first question
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer*"]
SIDE_FILES = ("tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "chat_template.jinja")


class Rows(Protocol):
    """A tensor in a file, read in rows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray: ...


FLOATS = ("F32", "F16", "BF16", "F64")

R = TypeVar("R", bound=Rows)


@dataclass
class Checkpoint:
    """A checked checkpoint. Tensors are read lazily, by our names, in rows (`read`).

    raw     its config.json
    config  what that says, in our terms
    slots   our tensor name -> where it lies
    files   the tokenizer's and other side files, by name
    path    the folder or GGUF file
    ends    a GGUF file's end tokens, by the keys that name them; None for a folder (see facts.py)
    """

    raw: dict[str, Any]
    config: DecoderConfig
    slots: Mapping[str, Rows]
    files: dict[str, bytes]
    path: Path
    revision: str | None = None
    notes: list[str] = field(default_factory=list)
    ends: dict[str, int] | None = None

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
    """Open `model`: an existing folder, an existing .gguf file, or else a Hub id such as `HuggingFaceTB/SmolLM3-3B`.

    Reads headers only. Raises InputError where anything is missing, malformed or unknown.
    """
    path = Path(model)
    if path.suffix == ".gguf":
        from smolship.export.gguf_checkpoint import open_gguf

        return open_gguf(path)
    if os.path.lexists(model) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith("."):
        return open_folder(path)
    return open_folder(*_download(model, revision))


def _download(model: str, revision: str | None) -> tuple[Path, str | None]:
    """(snapshot folder, commit) of a Hub model; from the local cache where the Hub does not answer."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    offline: Exception | None = None
    try:
        revision = hub.model_info(model, revision=revision, timeout=HUB_TIMEOUT).sha
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
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        raise InputError("no such checkpoint", got=path, expected="a folder, a .gguf file or a Hub id")
    raw = read_json(path / "config.json", "config.json")
    config, family, reading = translate(raw, path / "config.json")
    slots = match(config, _stored(path), family.NAMES, path)
    for name, slot in slots.items():
        if slot.dtype not in FLOATS:
            raise InputError(
                f"{theirs(family.NAMES, name)} is not stored as floating point",
                got=f"{slot.dtype} in {slot.path}",
                expected="one of " + ", ".join(FLOATS),
                todo="export the original checkpoint, not one that is quantized already",
            )
    files = {"tokenizer.json": read_bytes(path / "tokenizer.json", "tokenizer.json")}
    parse_json(files["tokenizer.json"], "tokenizer.json", path)
    for name in SIDE_FILES:
        if (path / name).exists():
            files[name] = read_bytes(path / name, name)
    return Checkpoint(raw, config, slots, files, path, revision, reading.notes)


def match(config: DecoderConfig, stored: Mapping[str, R], names: dict[str, str], path: Path) -> dict[str, R]:
    """Our tensor names -> the stored tensors, all there and of the shapes that the config says."""
    slots = {}
    for name, shape in config.shapes().items():
        wanted = theirs(names, name)
        if wanted not in stored:
            raise InputError("a tensor is missing", got=f"no {wanted} in {path}", expected=f"shape {list(shape)}",
                             todo="check that every shard is there and the config belongs to it")  # fmt: skip
        if stored[wanted].shape != shape:
            raise InputError(
                f"{wanted} has the wrong shape",
                got=f"{list(stored[wanted].shape)} in {path}",
                expected=f"{list(shape)}, as the config says",
            )
        slots[name] = stored[wanted]
    return slots


def _stored(path: Path) -> dict[str, Slot]:
    """Every tensor in the folder's safetensors files, by the checkpoint's own name."""
    index = path / "model.safetensors.index.json"
    if os.path.lexists(index):
        shards = read_json(index, "shard index").get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(v, str) for v in shards.values()):
            raise InputError("the shard index has no weight_map", got=index, expected="tensor name -> file name")
        stored: dict[str, Slot] = {}
        for shard in sorted(set(shards.values())):
            if Path(shard).name != shard:  # by name only: the Hub's cache holds links to files outside the folder
                raise InputError("a shard lies outside the folder", got=shard, expected=f"a file name in {path}")
            stored |= read_header(path / shard)
        return stored
    if os.path.lexists(path / "model.safetensors"):
        return read_header(path / "model.safetensors")
    pickles = [p.name for p in path.glob("*.bin")] + [p.name for p in path.glob("*.pt*")]
    if pickles:
        raise InputError(
            "the checkpoint is pickled, and a pickle can run any code",
            got=", ".join(sorted(pickles)[:3]),
            expected="model.safetensors",
            todo="load it with transformers where you trust it, and save_pretrained(folder)",
        )
    raise InputError("no weights", got=path, expected="model.safetensors or model.safetensors.index.json")
