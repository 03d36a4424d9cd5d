"""Reading an `.mlpackage`: its manifest, its program and the blobs of weight.bin. Nothing in it is trusted."""

from __future__ import annotations

import math
import struct
import sys
import weakref
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.errors import InputError, clip, missing_engine
from smolship.runtime.files import inside, read_bytes, read_json, regular_file

PROTO_LIMIT = 512 << 20  # bytes of the program; weights lie beside it
MAX_ELEMENTS = 1 << 30  # of one tensor
MAX_STATE = 1 << 32  # and of a state: 1.2e9 for a 3B model and 65,536 tokens; memory is taken as it is written
PROTOS = "smolship_coreml_proto"  # the name that coremltools' protobuf classes are imported under

# The type of array for a declared type: fp16 is float32 (rounded or not, as the arithmetic says), small integers bytes.
ARRAY_TYPES: dict[str, type] = {
    "fp16": np.float32,
    "fp32": np.float32,
    "fp64": np.float64,
    "bool": np.bool_,
    "string": np.str_,
    "int4": np.int8,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint1": np.uint8,
    "uint2": np.uint8,
    "uint3": np.uint8,
    "uint4": np.uint8,
    "uint6": np.uint8,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
}
TYPES = {
    1: "bool",
    2: "string",
    10: "fp16",
    11: "fp32",
    12: "fp64",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
    36: "uint2",
    37: "uint1",
    38: "uint6",
    39: "uint3",
}  # MIL's DataType
STORED: dict[str, Any] = {
    "fp16": "<f2",
    "fp32": "<f4",
    "fp64": "<f8",
    "bool": "?",
    "int8": "i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "uint8": "u1",
    "uint16": "<u2",
    "uint32": "<u4",
    "uint64": "<u8",
}
BITS = {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}
# weight.bin: a header of 64 bytes, and for each blob 64 bytes of metadata and then, elsewhere, its data.
BLOB_TYPES = {
    1: "fp16",
    2: "fp32",
    3: "uint8",
    4: "int8",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
}
HEADER, METADATA, SENTINEL, VERSION = struct.Struct("<II"), struct.Struct("<IIQQQ"), 0xDEADBEEF, 2
RECORD = 64  # bytes of the header, and of a blob's metadata


@dataclass(frozen=True)
class Declared:
    """The type that a program gives a value. A length of None is not known before it runs; neither is the rank where
    `shape` is None."""

    dtype: str
    shape: tuple[int | None, ...] | None

    def fits(self, shape: tuple[int, ...]) -> bool:
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(w in (None, g) for w, g in zip(self.shape, shape, strict=True))

    def __str__(self) -> str:
        return f"{self.dtype} {'of any shape' if self.shape is None else list(self.shape)}"


class Package:
    """An opened package.

    model   the protobuf message `Model`
    root    the folder that "@model_path" stands for
    """

    def __init__(self, path: Path):
        message = _message()
        model = _model_file(path)
        self.path, self.root = path, model.parent
        self.model = _parse(model, message)
        self.files: dict[str, np.ndarray] = {}  # blob files, as mapped bytes
        # Those that somebody holds: a model's int4 codes take a byte each once they are unpacked.
        self.blobs: weakref.WeakValueDictionary[tuple[str, int], np.ndarray] = weakref.WeakValueDictionary()
        self._places: dict[int, tuple[str, int]] = {}  # by id, which another array may have taken over

    @property
    def program(self) -> Any:
        """The protobuf message `Program`."""
        if self.model.WhichOneof("Type") != "mlProgram":
            raise InputError("the model is no ML program", got=self.model.WhichOneof("Type"), expected="mlProgram")
        return self.model.mlProgram

    def value(self, value: Any) -> np.ndarray:
        """A protobuf `Value` as an array of its type in `ARRAY_TYPES`. The same blob is the same array for as long as
        somebody holds it."""
        if value.WhichOneof("value") == "immediateValue" and value.immediateValue.WhichOneof("value") == "list":
            return np.array([self.value(item) for item in value.immediateValue.list.values])
        declared = declaration(value.type)
        if declared.shape is None or None in declared.shape:
            raise ValueError("a constant's shape is not known")
        shape = tuple(length for length in declared.shape if length is not None)
        if value.WhichOneof("value") == "blobFileValue":
            where = value.blobFileValue.fileName, value.blobFileValue.offset
            blob = self.blobs.get(where)
            if blob is None:
                blob = self.blobs[where] = _as_array(self._blob(*where, declared, shape), declared)
                self._places[id(blob)] = where
            if blob.shape != shape or blob.dtype != ARRAY_TYPES[declared.dtype]:
                raise ValueError("one blob is read as two types")
            return blob
        return _as_array(_immediate(value.immediateValue.tensor, declared.dtype, shape), declared)

    def place(self, value: np.ndarray) -> tuple[str, int] | None:
        """File and offset of the blob that `value` is; None of any other array."""
        where = self._places.get(id(value))
        return where if where is not None and self.blobs.get(where) is value else None

    def _blob(self, name: str, offset: int, declared: Declared, shape: tuple[int, ...]) -> np.ndarray:
        """The blob whose metadata lies at `offset`; sizes are checked before anything is made."""
        data = self._file(name)
        if offset % RECORD or not RECORD <= offset <= len(data) - RECORD:
            raise ValueError(f"no blob can lie at {offset} of {len(data)} bytes")
        sentinel, kind, size, start, _ = METADATA.unpack_from(data.data, offset)
        if sentinel != SENTINEL or BLOB_TYPES.get(kind) != declared.dtype:
            raise ValueError(
                f"the blob at {offset} is {BLOB_TYPES.get(kind, 'of no known type')}, not {declared.dtype}"
            )
        bits = BITS.get(declared.dtype) or 8 * np.dtype(STORED[declared.dtype]).itemsize
        if size != -(-math.prod(shape) * bits // 8) or start > len(data) or size > len(data) - start:
            raise ValueError(f"the blob at {offset} claims {size} bytes from {start} of {len(data)} for {declared}")
        return _unpacked(data[start : start + size], declared.dtype, shape)

    def _file(self, name: str) -> np.ndarray:
        if name not in self.files:
            path = inside(self.root, name.removeprefix("@model_path/"))
            if regular_file(path, "weight file") < RECORD:
                raise ValueError(f"{name} is too short")
            self.files[name] = np.memmap(path, np.uint8, "r")
            if (version := HEADER.unpack_from(self.files[name].data)[1]) != VERSION:
                raise ValueError(f"{name} is of version {version}, not {VERSION}")
        return self.files[name]


def declaration(kind: Any) -> Declared:
    """A protobuf `ValueType`, of a tensor or a state."""
    limit = MAX_ELEMENTS
    if kind.WhichOneof("type") == "stateType":
        kind, limit = kind.stateType.wrappedType, MAX_STATE
    if kind.WhichOneof("type") != "tensorType":
        raise ValueError(f"a {kind.WhichOneof('type')} is not supported")
    tensor = kind.tensorType
    if tensor.dataType not in TYPES:
        raise ValueError(f"data type {tensor.dataType} is not supported")
    shape: list[int | None] = []
    for length in tensor.dimensions:
        if length.WhichOneof("dimension") == "constant":
            shape.append(length.constant.size)
        elif length.unknown.variadic:
            return Declared(TYPES[tensor.dataType], None)
        else:
            shape.append(None)
    if math.prod(length or 1 for length in shape) > limit:
        raise ValueError(f"a tensor of shape {shape} is too large")
    return Declared(TYPES[tensor.dataType], tuple(shape))


def protos() -> Any:
    """coremltools' protobuf classes alone: coremltools itself would import torch, and take seconds."""
    if PROTOS not in sys.modules:
        found = (
            util.find_spec("coremltools") if "coremltools" not in sys.modules else sys.modules["coremltools"].__spec__
        )
        if found is None or found.origin is None:
            raise ImportError("No module named 'coremltools'")
        folder = Path(found.origin).parent / "proto"
        spec = util.spec_from_file_location(PROTOS, folder / "__init__.py", submodule_search_locations=[str(folder)])
        assert spec is not None and spec.loader is not None
        module = util.module_from_spec(spec)
        sys.modules[PROTOS] = module
        spec.loader.exec_module(module)
    return import_module(f"{PROTOS}.Model_pb2")


def _model_file(path: Path) -> Path:
    """Where Manifest.json says that the model lies."""
    manifest = read_json(path / "Manifest.json", "package's Manifest.json")
    try:
        item = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
        return inside(path / "Data", item["path"])
    except (KeyError, TypeError):
        raise InputError(
            "the package's manifest names no model",
            got=clip(manifest),
            expected="rootModelIdentifier and its itemInfoEntries",
        ) from None


def _message() -> Any:
    """An empty `Model`."""
    try:
        return protos().Model()
    except ImportError as error:
        raise missing_engine("coremltools", "coreml", error) from None


def _parse(path: Path, model: Any) -> Any:
    from google.protobuf.message import DecodeError

    content = read_bytes(path, "Core ML program", PROTO_LIMIT)
    try:
        model.ParseFromString(content)
    except (DecodeError, RecursionError) as error:
        raise InputError(
            "the Core ML program cannot be read",
            got=f"{error} in {path}",
            expected="a Model message",
            todo="export it again",
        ) from None
    return model


def _unpacked(data: np.ndarray, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Bytes as numbers. Those of less than a byte follow one another from the lowest bit on."""
    if dtype not in BITS:
        return data.view(STORED[dtype]).reshape(shape)
    bits, count = BITS[dtype], math.prod(shape)
    if bits == 4:
        codes = np.empty((len(data), 2), np.uint8)
        codes[:, 0], codes[:, 1] = data & 15, data >> 4
    else:
        ones = np.unpackbits(data, count=count * bits, bitorder="little").reshape(-1, bits)
        codes = (ones << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)
    codes = codes.reshape(-1)[:count].reshape(shape)
    return ((codes ^ 8).view(np.int8) - np.int8(8)) if dtype == "int4" else codes


def _immediate(tensor: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """A value that lies in the program itself."""
    field = tensor.WhichOneof("value")
    if field is None:
        return np.zeros(shape, STORED.get(dtype, ARRAY_TYPES[dtype]))
    values = getattr(tensor, field).values
    if field == "bytes":
        return _unpacked(np.frombuffer(values, np.uint8), dtype, shape)
    if len(values) != math.prod(shape):
        raise ValueError(f"a constant has {len(values)} values for shape {shape}")
    return np.array(list(values), ARRAY_TYPES[dtype]).reshape(shape)


def _as_array(array: np.ndarray, declared: Declared) -> np.ndarray:
    wanted = ARRAY_TYPES[declared.dtype]
    return array if wanted is np.str_ else np.asarray(array, wanted)
