"""Dataclasses as JSON and back, read as untrusted input: every field's type is looked at, and a refusal says where.

A dataclass is an object with its fields as keys. Fields may be of dataclasses, of lists, tuples and dictionaries of
such, and of whatever has a `from_json(raw, file, at)` of its own; what is checked beyond types is checked by
`__post_init__`. Arrays are `Annotated[np.ndarray, dtype, dimensions]`: int32 of one dimension is a list of numbers, any
other {"dtype", "shape", "base64"}, little-endian and in C order, so that a NaN and the last bit travel too. A field
with LATER as its metadata is left out where it is None: who wrote or reads records without it need not know it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import math
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
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
EXPORT = "export the bundle again"
LARGEST = 1 << 53  # whole numbers up to it are floats, too
LONGEST = 1 << 1000  # whole numbers above may not even be a float's
LATER = {"later": True}  # metadata of fields


def to_json(record: Any) -> bytes:
    """One line; the same record gives the same bytes."""
    return json.dumps(_plain(record), separators=(",", ":"), sort_keys=True, allow_nan=False).encode() + b"\n"


def read_file(kind: type[T], path: Path, what: str) -> T:
    """The `kind` that `path` holds; `what` is its name in errors. Raises InputError where it is not one, and says so
    where it is one of another `schema`, whose fields may be others."""
    raw = read_json(path, what, LIMIT)
    schema = next((f.default for f in fields(kind) if f.name == "schema"), None)  # type: ignore[arg-type]
    if raw.get("schema") not in (None, schema):
        raise InputError(f"a {what} of another version", got=show(raw["schema"]), expected=schema, todo="make it again")
    return read_record(kind, raw, what, todo="make it again")


def read_record(
    kind: type[T], raw: Any, file: str, at: str = "", lenient: tuple[type, ...] = (), todo: str = EXPORT
) -> T:
    """The JSON value `raw`, which lies `at` some place of `file`, as a `kind`.

    A key that is not there counts as null. Keys that a dataclass does not have are refused; they are left out where it
    is one of `lenient`.
    """
    return _Reader(file, lenient, todo).record(raw, kind, at)


def wrong(where: str, value: object, expected: str, todo: str = EXPORT) -> InputError:
    """The refusal of a value."""
    return InputError(f"{where} cannot be used", got=show(value), expected=expected, todo=todo)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        given = {f.name: (getattr(value, f.name), "later" in f.metadata) for f in fields(value)}
        return {name: _plain(one) for name, (one, later) in given.items() if not (later and one is None)}
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


@dataclass
class _Reader:
    file: str
    lenient: tuple[type, ...]
    todo: str

    def wrong(self, at: str, value: object, expected: str) -> InputError:
        return wrong(self.where(at), value, expected, self.todo)

    def where(self, at: str) -> str:
        return f"{self.file}: {at}" if at else self.file

    def value(self, raw: Any, kind: Any, at: str) -> Any:
        origin, inner = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self.array(raw, inner[1], inner[2], at)
        if origin in (Union, UnionType):  # X | None
            some = [one for one in inner if one is not NoneType]
            return None if raw is None and NoneType in inner else self.value(raw, some[0], at)
        if origin in (list, tuple):
            return origin(self.value(v, inner[0], f"{at}[{i}]") for i, v in enumerate(self.plain(raw, list, at)))
        if origin is dict:
            given = self.plain(raw, dict, at)
            return {self.key(k, inner[0], at): self.value(v, inner[1], f"{at}[{k}]") for k, v in given.items()}
        if hasattr(kind, "from_json"):
            return kind.from_json(raw, self.file, at)
        return self.record(raw, kind, at) if is_dataclass(kind) else self.plain(raw, kind, at)

    def record(self, raw: Any, kind: Any, at: str) -> Any:
        hints = _hints(kind)
        unknown = set(self.plain(raw, dict, at)) - set(hints)
        if unknown and kind not in self.lenient:
            raise InputError(f"{self.where(at)} has unknown keys", got=show(sorted(unknown)), expected=", ".join(hints))
        return kind(**{n: self.value(raw.get(n), hint, f"{at}.{n}" if at else n) for n, hint in hints.items()})

    def plain(self, raw: Any, kind: Any, at: str) -> Any:
        """A number, a text, a list or a dictionary, whatever the latter hold."""
        if kind is Any:
            return raw
        if get_origin(kind) is Literal:
            known = get_args(kind)
            good, expected = any(type(raw) is type(one) and raw == one for one in known), "one of " + _listed(known)
        elif kind is float:
            whole = type(raw) is int and abs(raw) <= LARGEST
            good, expected = whole or (type(raw) is float and math.isfinite(raw)), "a finite number"
        else:
            good, expected = type(raw) is kind, f"a value of type {kind.__name__}"
            if good and kind is int and abs(raw) > LONGEST:
                good, expected = False, "a number below 2^1000"
        if not good:
            raise self.wrong(at, raw, expected)
        return float(raw) if kind is float else raw

    def key(self, key: str, kind: type, at: str) -> Any:
        """A key of a dictionary, which JSON has as text."""
        if kind is int and not (key.isascii() and key.isdecimal() and len(key) < 16):
            raise self.wrong(at, key, "a number as key")
        return kind(key)

    def array(self, raw: Any, dtype: Any, dimensions: int, at: str) -> np.ndarray:
        kind = np.dtype(dtype)
        try:
            if kind == np.int32 and dimensions == 1:
                if any(type(one) is not int for one in self.plain(raw, list, at)):
                    raise ValueError("something in it is no whole number")
                return np.array(raw, kind)
            shape, code = self.plain(raw, dict, at)["shape"], raw["base64"]
            if set(raw) != {"dtype", "shape", "base64"} or raw["dtype"] != kind.name or len(shape) != dimensions:
                raise ValueError(f"a dtype {show(raw['dtype'])} of shape {show(shape)}")
            if any(type(size) is not int or size < 0 for size in shape):
                raise ValueError(f"a shape {show(shape)}")
            data = base64.b64decode(code, validate=True)
            return np.frombuffer(data, kind.newbyteorder("<")).astype(kind).reshape(shape)
        except (ValueError, LookupError, TypeError, OverflowError, binascii.Error) as error:
            raise self.wrong(at, error, f"{kind.name} in {dimensions} dimensions") from None


def _listed(values: tuple[Any, ...]) -> str:
    return ", ".join(map(str, values))
