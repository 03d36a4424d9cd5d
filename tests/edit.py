"""Damage done to finished artifacts, as bytes of the file: what a parity check must see."""

from __future__ import annotations

import mmap
from pathlib import Path

import gguf
import numpy as np
import onnx

from smolship.export.checkpoints.gguf import NAMES
from smolship.export.transforms import theirs
from smolship.export.weights import Weights


def double_scales_pte(path: Path, weights: Weights, name: str) -> None:
    """Double every scale of the linear `name` inside a finished .pte. A tied head is also the embedding: both are
    changed."""
    scales = weights.tensor(name).scales.astype("<f4")
    doubled = scales * 2
    if weights.entries[name].bits == 4:  # XNNPACK keeps the scales of int4 as bf16
        scales, doubled = (scale.view("<u2")[..., 1::2] for scale in (scales, doubled))
    replace_bytes(path, np.ascontiguousarray(scales).tobytes(), np.ascontiguousarray(doubled).tobytes())


def replace_bytes(path: Path, old: bytes, new: bytes) -> None:
    """Put `new` wherever the file holds `old`, which it must."""
    assert len(old) == len(new)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        at = data.find(old)
        assert at >= 0, f"{path} does not hold those {len(old)} bytes"
        while at >= 0:
            data[at : at + len(new)] = new
            at = data.find(old, at + len(new))


def double_scales_onnx(folder: Path, weights: Weights, name: str) -> None:
    """Double every scale of the linear `name` in the external data of the model.onnx in `folder`. A tied head is also
    the embedding: both are changed."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    stacks = {t.name.removesuffix(".scales"): t for t in model.graph.initializer if t.name.endswith(".scales")}
    stack = next(stack for stack in stacks if name in stack.split("+"))
    above = stack.split("+")[: stack.split("+").index(name)]  # matrices whose rows come first
    where = {entry.key: entry.value for entry in stacks[stack].external_data}
    width = stacks[stack].dims[1]
    with (folder / where["location"]).open("r+b") as file:
        start = int(where["offset"]) + 4 * width * sum(weights.entries[other].shape[0] for other in above)
        file.seek(start)
        scales = np.fromfile(file, np.float32, width * weights.entries[name].shape[0])
        file.seek(start)
        (scales * 2).tofile(file)


def double_scales_coreml(package: Path, weights: Weights, name: str) -> None:
    """Double every scale of the linear `name` in the weight.bin of a finished .mlpackage. A tied head is also the
    embedding: both are changed."""
    scales = weights.scales(name).astype("<f2")
    file = package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    replace_bytes(file, scales.tobytes(), (scales * np.float16(2)).tobytes())


def double_scales_gguf(path: Path, weights: Weights, name: str) -> None:
    """Double every scale of the linear `name` in a finished .gguf. A tied head is also the embedding: both are
    changed."""
    tensor = next(t for t in gguf.GGUFReader(path, "r").tensors if t.name == theirs(NAMES, name))
    size = {4: 18, 8: 34}[weights.entries[name].bits]
    with path.open("r+b") as file:
        file.seek(tensor.data_offset)
        blocks = np.fromfile(file, np.uint8, tensor.n_bytes).reshape(-1, size)
        blocks[:, :2] = (np.ascontiguousarray(blocks[:, :2]).view("<f2") * np.float16(2)).view(np.uint8)
        file.seek(tensor.data_offset)
        blocks.tofile(file)
