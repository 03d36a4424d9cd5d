"""The tensors of a checkpoint folder: which of its files transformers would take, in its order, and what they hold."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from smolship.export.checkpoints import advice
from smolship.export.checkpoints.prequantized import quantized
from smolship.export.checkpoints.twice import together
from smolship.export.tensorfile import Slot, read_header
from smolship.runtime.errors import InputError, show
from smolship.runtime.files import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHTS = (".safetensors", ".safetensors.index.json")
OTHERS = re.compile(r"\.safetensors(\.index\.json)?$|\.gguf$|^pytorch_model.*\.bin$|^consolidated.*\.pth$")
DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")  # transformers' own, taken before any other


@dataclass
class Stored:
    """Every tensor in the files that transformers would load, by the checkpoint's own name; those files, by name, the
    index first; and notes of what it passes over."""

    tensors: dict[str, Slot]
    files: tuple[str, ...]
    notes: list[str]


def stored(path: Path, raw: dict[str, Any]) -> Stored:
    """What a folder holds. `raw` is config.json, which may name the file.

    The order is that of `_get_resolved_checkpoint_files` in transformers 5.24: a distributed checkpoint, the file that
    `transformers_weights` names, model.safetensors, model.safetensors.index.json.
    """
    names = advice.names_in(path)
    if ranks := [name for name in names if DISTRIBUTED.fullmatch(name)]:
        raise InputError(
            "a distributed checkpoint, which transformers takes before any other file",
            got=f"{advice.some(ranks)} in {path}",
            expected=SINGLE,
            todo=advice.RESAVE,
        )
    file = raw.get("transformers_weights")
    if file is None:
        there = [name for name in (SINGLE, INDEX) if name in names]
        if not there:
            raise advice.no_weights(path, names)
        whole = [name for name in there if (path / name).is_file()]  # else it is refused where it is read
        file = (whole or there)[0]
    elif not isinstance(file, str) or not _below(file) or not file.endswith(WEIGHTS):
        raise InputError(
            "config value 'transformers_weights' cannot be used",
            got=show(file),
            expected="the name of a safetensors file, or of an index, in the folder",
        )
    if not os.path.lexists(path / file):
        raise advice.named_and_absent(path, names, file)
    if "adapter_config.json" in names:
        raise advice.adapter_beside(path)
    where = _listed(path, file) if file.endswith(".json") else None
    shards = [file] if where is None else sorted(set(where.values()))
    tensors = together({shard: read_header(path / shard) for shard in shards}, path)
    if refusal := quantized(raw, {name: slot.dtype for name, slot in tensors.items()}, path):
        raise refusal
    notes = []
    if lost := [name for name in where or () if name not in tensors]:
        notes.append(f"{file} names tensors that no shard holds: {advice.some(lost)}")
    files = (file,) if where is None else (file, *shards)
    taken = {str(PurePosixPath(name)) for name in files}
    if left := [name for name in names if OTHERS.search(name) and name not in taken]:
        notes.append(f"not read, as transformers takes {file} and not these: {advice.some(left)}")
    return Stored(tensors, files, notes)


def _below(name: str) -> bool:
    """Whether a path stays in its folder by its words alone: the Hub's cache holds links to files outside of it."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _listed(path: Path, file: str) -> dict[str, str]:
    """The shards of an index, by the tensors that it lists. As in transformers, all that lies in one counts, listed or
    not."""
    index = read_json(path / file, "shard index")
    where = index.get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(shard, str) for shard in where.values()):
        raise InputError("the shard index has no weight_map", got=path / file, expected="tensor name -> file name")
    if not isinstance(index.get("metadata"), dict):
        raise InputError(
            "the shard index has no metadata, and transformers wants one",
            got=path / file,
            expected="an object, be it empty",
            todo='add "metadata": {} to it',
        )
    shards = sorted(set(where.values()))
    if outside := [shard for shard in shards if not _below(shard)]:
        raise InputError("a shard lies outside the folder", got=advice.some(outside), expected=f"a file in {path}")
    if not shards[0].endswith(".safetensors"):
        raise InputError(
            "the shards are not safetensors files",
            got=f"{advice.some(shards)} in {path / file}",
            expected="names that end in .safetensors",
            todo=advice.RESAVE,
        )
    if absent := [shard for shard in shards if not os.path.lexists(path / shard)]:
        raise advice.absent_shards(path, absent, len(shards))
    return where
