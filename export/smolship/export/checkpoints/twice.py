"""Tensors that a checkpoint holds twice: in two of its files, or as a head beside the embedding that it is tied to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from smolship.export.slots import Rows, row_chunks
from smolship.export.tensorfile import Slot
from smolship.runtime.errors import InputError


def same(one: Rows, other: Rows) -> bool:
    """Whether two tensors hold the same values, whatever their types; read in rows, to the first that differ."""
    if one is other or one.shape != other.shape:
        return one is other
    rows, *rest = one.shape or (1,)
    pieces = row_chunks(rows, int(np.prod(rest, dtype=np.int64)))
    return all(np.array_equal(one.read(*piece), other.read(*piece)) for piece in pieces)


def together(files: Mapping[str, Mapping[str, Slot]], path: Path) -> dict[str, Slot]:
    """The tensors of several files of a folder, by name. One that two of them hold must be the same in both."""
    tensors: dict[str, Slot] = {}
    for file, held in files.items():
        for name, slot in held.items():
            if name in tensors and not same(tensors[name], slot):
                raise InputError(
                    f"two shards hold {name}, and they differ",
                    got=f"{tensors[name].path.name} and {file} in {path}",
                    expected="each tensor once",
                    todo="take out the shard that belongs to another save of the model, in the index, too",
                )
            tensors[name] = slot
    return tensors
