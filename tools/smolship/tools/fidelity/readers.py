"""Weights out of a finished artifact, as float32 by our names, and the bytes that it holds them in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from smolship.export.checkpoints import Checkpoint, open_checkpoint
from smolship.export.checkpoints.gguf_file import read_gguf, row_bytes
from smolship.export.config import DecoderConfig
from smolship.export.families import family_of
from smolship.export.transforms import theirs
from smolship.export.weights import Source
from smolship.runtime.errors import InputError
from smolship.runtime.readback.hashing import Entry
from smolship.runtime.tensors import parse
from smolship.tools.fidelity import rows, torchao8da4w

FUSED = {"q": "qkv_proj", "k": "qkv_proj", "v": "qkv_proj"}  # genai's builder stores these as one matrix


@dataclass(frozen=True)
class Stored:
    """bytes  of codes, scales and minima, and of what is not quantized; without tokenizer and graph"""

    config: DecoderConfig
    source: Source
    bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Over the parameters of the model; a head that is the table counts once, however it is stored."""
        return 8 * self.bytes / parameters(self.config)


def parameters(config: DecoderConfig) -> int:
    """Of the model, with the table counted once."""
    return sum(int(np.prod(shape)) for name, shape in config.shapes().items() if name != "head")


@dataclass
class Arrays:
    """Tensors in memory, by our names."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.arrays[name][start:stop]


def read(row: str, folder: Path, checkpoint: Checkpoint) -> Stored:
    """What a row's artifact in `folder` holds; `row` names who made it."""
    return READERS[row](folder, checkpoint)


def ours(folder: Path, checkpoint: Checkpoint) -> Stored:
    """The values of the GGUF file; the bytes of the set, since GGUF repeats the scales of wide groups."""
    (path,) = folder.glob("bundle/gguf/*.gguf")
    listed = json.loads((folder / "bundle" / "weights.json").read_text())["tensors"].values()
    entries = [Entry(**{**entry, "shape": tuple(entry["shape"])}) for entry in listed]
    return Stored(checkpoint.config, open_checkpoint(str(path)), sum(map(entry_bytes, entries)))


def entry_bytes(entry: Entry) -> int:
    """Of one tensor of a set: codes, and scales in fp16."""
    count = int(np.prod(entry.shape))
    return 2 * count if entry.bits == 16 else count * entry.bits // 8 + 2 * count // entry.group


def llama(folder: Path, checkpoint: Checkpoint) -> Stored:
    path = folder / "model.gguf"
    slots = read_gguf(path)[1].values()
    return Stored(
        checkpoint.config, open_checkpoint(str(path)), sum(s.shape[0] * row_bytes(s.kind, s.shape) for s in slots)
    )


def torchao(folder: Path, checkpoint: Checkpoint) -> Stored:
    """Codes at the bits that they need, scales in two bytes, as ExecuTorch's files have them."""
    found, size, config = Arrays(), 0, checkpoint.config
    with np.load(folder / torchao8da4w.FILE, allow_pickle=False) as file:
        names = [name.removesuffix(".codes") for name in file.files if name.endswith(".codes")]
        for name in names:
            codes, scales = file[f"{name}.codes"], file[f"{name}.scales"]
            found.arrays[name] = _values(codes, scales)
            size += codes.size * (4 if scales.shape[1] > 1 else 8) // 8 + 2 * scales.size
    config = replace(config, tied_head="head" not in names)
    for name in config.vectors():
        found.arrays[name] = checkpoint.read(name)
        size += 4 * found.arrays[name].size
    return Stored(config, found, size)


def genai(folder: Path, checkpoint: Checkpoint) -> Stored:
    """MatMulNBits' matrices, and the rest as it is; q, k and v may be one matrix. The table is the head's where the
    graph looks tokens up in that."""
    import onnx
    from onnx.numpy_helper import to_array

    model = onnx.load(str(folder / "model.onnx"))
    stored = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    names, config, used = family_of(checkpoint.raw, checkpoint.path).NAMES, checkpoint.config, set[str]()
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    if zeros := [node.name for node in products if len(node.input) > 3 and node.input[3]]:
        raise InputError("genai's matrices have zero points", got=zeros[0], expected="a symmetric grid")
    bits = {node.input[1]: next(a.i for a in node.attribute if a.name == "bits") for node in products}

    def take(name: str) -> np.ndarray:
        if name not in stored:
            raise InputError(
                f"genai's graph has no {name}", got=sorted(stored)[:8], expected="the names of its builder"
            )
        used.add(name)
        return stored[name]

    def matrix(name: str) -> np.ndarray:
        """A matrix by its name before `.MatMul.weight`, float32."""
        packed = next((other for other in bits if other.startswith(f"{name}.MatMul.weight_")), None)
        if packed is None:
            return np.ascontiguousarray(take(f"{name}.MatMul.weight").T)
        scales = next(other for other in stored if other.startswith(f"{name}.MatMul.weight_scale"))
        return unpacked(take(packed), take(scales), bits[packed])

    found = Arrays()
    for name, shape in config.shapes().items():
        ours, theirs_name = parse(name), theirs(names, name).removesuffix(".weight").replace("self_attn", "attn")
        if name in ("embed", "head"):
            continue
        if ours.bias or len(shape) == 1:
            last = f"model.layers.{len(config.layers)}.final_norm_layernorm.weight"
            found.arrays[name] = take(last if name == "norm" else f"{theirs_name}.weight").reshape(-1)
            continue
        whole = theirs_name.rpartition(".")[0] + f".{FUSED.get(ours.kind, '')}"
        if ours.kind in FUSED and any(other.startswith(f"{whole}.MatMul") for other in stored):
            sizes = [config.shapes()[str(ours._replace(kind=kind))][0] for kind in FUSED]
            first = sum(sizes[: list(FUSED).index(ours.kind)])
            found.arrays[name] = matrix(whole)[first : first + shape[0]]
        else:
            found.arrays[name] = matrix(theirs_name)
    found.arrays["head"] = matrix("lm_head")[: config.vocab]
    tied = any(node.op_type == "GatherBlockQuantized" for node in model.graph.node)
    found.arrays["embed"] = found.arrays["head"] if tied else take("model.embed_tokens.weight").astype(np.float32)
    return Stored(replace(config, tied_head=False), found, sum(stored[name].nbytes for name in used))


def unpacked(packed: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    """MatMulNBits' blocks uint8 [out, blocks, bytes], the even index in the low nibble, zero in the middle -> float32
    [out, in]."""
    codes = packed.reshape(len(packed), -1)
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), -1)
    return _values(codes.astype(np.int16) - (1 << bits - 1), scales.reshape(len(codes), -1))


def _values(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """codes [out, in] * scales [out, groups], float32."""
    grouped = codes.reshape(*scales.shape, -1) * scales[..., None].astype(np.float32)
    return np.asarray(grouped.reshape(codes.shape), np.float32)


READERS: dict[str, Callable[[Path, Checkpoint], Stored]] = {
    rows.OURS: ours,
    rows.TORCHAO: torchao,
    "llamacpp": llama,
    "genai": genai,
}
