"""Dataclasses as JSON and back: the files by which a plan and its result travel. Read as untrusted input.

A dataclass is an object with its fields as keys, no more and no fewer; what is checked beyond types is checked by its
`__post_init__`. Arrays are `Annotated[np.ndarray, dtype, dimensions]`: int32 of one dimension is a list of numbers, any
other {"dtype", "shape", "base64"}, little-endian and in C order, so that a NaN and the last bit travel too.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import math
import types
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from smolship.runtime.errors import InputError, show
from smolship.runtime.files import read_json

T = TypeVar("T")

Ids = Annotated[np.ndarray, np.int32, 1]
Table = Annotated[np.ndarray, np.int32, 2]
Numbers = Annotated[np.ndarray, np.float32, 1]
Doubles = Annotated[np.ndarray, np.float64, 1]
Rows = Annotated[np.ndarray, np.float32, 2]
Blocks = Annotated[np.ndarray, np.float32, 4]

LIMIT = 1 << 29  # bytes of a file


def to_json(record: Any) -> bytes:
    """One line; the same record gives the same bytes."""
    return json.dumps(_plain(record), separators=(",", ":"), sort_keys=True, allow_nan=False).encode() + b"\n"


def read_record(kind: type[T], path: Path, what: str) -> T:
    """The `kind` that `path` holds. Raises InputError where it is not one."""
    return from_json(kind, read_json(path, what, LIMIT), what)


def from_json(kind: type[T], raw: Any, what: str) -> T:
    """The `kind` that JSON made of; `what` is its name in errors."""
    found: T = _read(kind, raw, what)
    return found


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, np.ndarray):
        if value.dtype == np.int32 and value.ndim == 1:
            return value.tolist()
        little = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        code = base64.b64encode(little.tobytes()).decode()
        return {"dtype": value.dtype.name, "shape": list(value.shape), "base64": code}
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _read(kind: Any, raw: Any, where: str) -> Any:
    """`raw` as a value of type `kind`, for the types that our records have."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints, given = _hints(kind), _typed(raw, dict, where)  # type: ignore[arg-type]
        if set(given) != set(hints):
            wrong = sorted({*given} ^ {*hints})
            raise InputError(f"{where} has keys that are unknown or missing", got=show(wrong), expected=[*hints])
        return kind(**{name: _read(hint, given[name], f"{where}.{name}") for name, hint in hints.items()})  # type: ignore[operator]
    if origin is Annotated:
        return _array(raw, inner[1], inner[2], where)
    if origin in (Union, types.UnionType):  # X | None
        return None if raw is None else _read(inner[0], raw, where)
    if origin is Literal:
        if raw not in inner:
            raise _wrong(where, raw, "one of " + ", ".join(map(str, inner)))
        return raw
    if origin in (list, tuple):
        return origin(_read(inner[0], one, f"{where}[{i}]") for i, one in enumerate(_typed(raw, list, where)))
    if origin is dict:
        given = _typed(raw, dict, where)
        return {_key(inner[0], key, where): _read(inner[1], given[key], where) for key in given}
    return raw if kind is Any else _typed(raw, kind, where)


def _typed(raw: Any, kind: Any, where: str) -> Any:
    if kind is float and type(raw) is int and abs(raw) < 1 << 53:
        raw = float(raw)
    if type(raw) is not kind or (kind is float and not math.isfinite(raw)):
        raise _wrong(where, raw, f"a value of type {kind.__name__}")
    return raw


def _key(kind: type, key: str, where: str) -> Any:
    if kind is int and not (key.isascii() and key.isdecimal() and len(key) < 16):
        raise _wrong(where, key, "a number as key")
    return kind(key)


def _array(raw: Any, dtype: Any, dimensions: int, where: str) -> np.ndarray:
    kind = np.dtype(dtype)
    try:
        if kind == np.int32 and dimensions == 1:
            if any(type(one) is not int for one in _typed(raw, list, where)):
                raise ValueError("something in it is no whole number")
            return np.array(raw, kind)
        shape, code = _typed(raw, dict, where)["shape"], raw["base64"]
        if set(raw) != {"dtype", "shape", "base64"} or raw["dtype"] != kind.name or len(shape) != dimensions:
            raise ValueError(f"a dtype {show(raw['dtype'])} of shape {show(shape)}")
        if any(type(size) is not int or size < 0 for size in shape):
            raise ValueError(f"a shape {show(shape)}")
        data = base64.b64decode(code, validate=True)
        return np.frombuffer(data, kind.newbyteorder("<")).astype(kind).reshape(shape)
    except (ValueError, LookupError, TypeError, OverflowError, binascii.Error) as error:
        raise _wrong(where, error, f"{kind.name} in {dimensions} dimensions") from None


def _wrong(where: str, got: object, expected: str) -> InputError:
    return InputError(f"{where} cannot be used", got=show(got), expected=expected)
