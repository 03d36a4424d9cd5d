"""The weights in an .mlpackage: what the functions of its ML program name as constants.

A quantized matrix is the result of `constexpr_blockwise_shift_scale` (data, scale): code * scale, without an offset,
each scale for an equal part of a row. What is not quantized is a `const` of fp16. Functions that share a constant point
at the same bytes; where they did not, both are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.mil.package import Package, declaration
from smolship.runtime.readback.stored import Shapes, StoredTensor, reading
from smolship.runtime.tensors import KINDS, Name

NAME = re.compile(rf"(?:layers_(\d{{1,6}})_)?({'|'.join(KINDS)})(_bias)?")
BITS = {"int4": 4, "int8": 8}


def read(folder: Path, file: str, shapes: Shapes) -> Iterator[StoredTensor]:
    """Every tensor of the package, every copy of it."""
    with reading(folder / file):
        package = Package(folder / file)
        done: set[Any] = set()
        for function in package.program.functions.values():
            operations = function.block_specializations[function.opset].operations
            consts = {o.outputs[0].name: o for o in operations if o.type == "const"}
            for operation in operations:
                if operation.type not in ("const", "constexpr_blockwise_shift_scale"):
                    continue
                label, values = operation.outputs[0].name, _values(operation, consts)
                name = our_name(label)
                where = label, *(v.SerializeToString() for v in values)  # the place in a file, or the numbers
                if where in done or (name is None and len(values) == 1):
                    continue  # another function's, or no weight: rotary tables, positions, zeros in place of a bias
                done.add(where)
                yield _stored(package, name or label, values)


def our_name(label: str) -> str | None:
    """Ours for MIL's; None where it is none of a weight."""
    if not (found := NAME.fullmatch(label)):
        return None
    layer, kind, bias = found.groups()
    return str(Name(int(layer) if layer else None, kind, bias is not None))


def _values(operation: Any, consts: dict[str, Any]) -> list[Any]:
    """What a constant is made of: its value, or those of its codes and its scales."""
    if operation.type == "const":
        return [operation.attributes["val"]]
    if extra := set(operation.inputs) - {"data", "scale"}:
        raise ValueError(f"{operation.outputs[0].name} with {', '.join(sorted(extra))}")
    found = []
    for key in ("data", "scale"):
        (binding,) = operation.inputs[key].arguments
        found.append(
            consts[binding.name].attributes["val"] if binding.WhichOneof("binding") == "name" else binding.value
        )
    return found


def _stored(package: Package, name: str, values: list[Any]) -> StoredTensor:
    kinds = [declaration(value.type).dtype for value in values]
    arrays = [package.value(value) for value in values]
    if len(values) == 1:
        if kinds != ["fp16"]:
            raise ValueError(f"{name} is {kinds[0]}")
        return StoredTensor(name, arrays[0].shape, 16, 0, lambda start, stop: (arrays[0][start:stop], None))
    codes, scales = arrays
    (rows, width), bits = codes.shape, BITS[kinds[0]]
    if kinds[1] != "fp16" or scales.shape[0] != rows or width % scales.shape[1]:
        raise ValueError(f"{name} has {kinds[1]} scales of shape {scales.shape} for {rows} x {width} codes")

    def read(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return codes[start:stop], scales[start:stop]

    return StoredTensor(name, codes.shape, bits, width // scales.shape[1], read)
