"""Caches of layers that see a window, no longer than it needs.

The file asks for caches of all positions, as onnxruntime-genai and apps give them. ONNX Runtime's GroupQueryAttention
takes shorter ones where its attribute `sliding_window_cache` is set, which is done to the bytes of the graph before
they are opened. Of T tokens it then keeps the last in a cache of C rows, in their order from the first row on, and
gives up G = C - window + 1 at once where the next would not fit: what is left follows from T alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smolship.runtime.errors import InputError

# Of onnx.proto: numbers of fields, and the type of an attribute that is a whole number.
GRAPH, NODE = 7, 1
INPUT, OP_TYPE, ATTRIBUTE = 1, 4, 5
NAME, INT, TYPE, INT_TYPE = 1, 3, 20, 2
VARINT, LENGTH = 0, 2  # ways in which a field is written
SIZES = {1: 8, 5: 4}  # of the others
PAST_KEY = 3  # its place among the inputs of GroupQueryAttention
WINDOW, EVICTS = b"local_window_size", b"sliding_window_cache"


@dataclass(frozen=True)
class Kept:
    """What a layer keeps: `rows`, C, for a window of `window` tokens."""

    window: int
    rows: int

    def first(self, tokens: int) -> int:
        """The position in row 0 behind so many tokens."""
        step = self.rows - self.window + 1
        return max(-(-(tokens - self.rows) // step), 0) * step

    def reach(self, tokens: int) -> int:
        """The earliest position, besides 0, behind which the same row is the first."""
        first = self.first(tokens)
        return first + self.window if first else 0


def evicting(model: bytes, most: int) -> tuple[bytes, dict[str, int]]:
    """The model whose layers with a window of at most `most` tokens evict, and those windows by the name of the keys'
    input. What already says whether it evicts stays as it is."""
    windows: dict[str, int] = {}
    if WINDOW not in model:
        return model, windows
    try:
        return b"".join(_field(model, *at, _graph(model, at, most, windows)) for at in _fields(model)), windows
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise InputError("not an ONNX model", got=error, todo="export it again") from None


Place = tuple[int, int, int, int]  # a field's number, where it begins, where its value does, and where that ends


def _graph(model: bytes, at: Place, most: int, windows: dict[str, int]) -> bytes | None:
    if at[0] != GRAPH:
        return None
    graph = model[at[2] : at[3]]
    return b"".join(_field(graph, *part, _node(graph, part, most, windows)) for part in _fields(graph))


def _node(graph: bytes, at: Place, most: int, windows: dict[str, int]) -> bytes | None:
    """A node with the attribute; None where it stays as it is."""
    if at[0] != NODE:
        return None
    node = graph[at[2] : at[3]]
    parts = [(number, node[start:stop]) for number, _, start, stop in _fields(node)]
    if (OP_TYPE, b"GroupQueryAttention") not in parts:
        return None
    numbers = dict(_attribute(value) for number, value in parts if number == ATTRIBUTE)
    inputs = [value.decode() for number, value in parts if number == INPUT]
    window = numbers.get(WINDOW, 0)
    if not 1 <= window <= most or EVICTS in numbers:
        return None
    windows[inputs[PAST_KEY]] = window
    attribute = _written(NAME, EVICTS) + _varint(INT << 3) + _varint(1) + _varint(TYPE << 3) + _varint(INT_TYPE)
    return node + _written(ATTRIBUTE, attribute)


def _attribute(raw: bytes) -> tuple[bytes, int]:
    """Its name, and its value where that is a whole number."""
    name, number = b"", 0
    for field, _, start, stop in _fields(raw):
        if field == NAME:
            name = raw[start:stop]
        elif field == INT:
            number, _ = _number(raw, start)
    return name, number


def _field(message: bytes, number: int, begin: int, start: int, stop: int, value: bytes | None) -> bytes:
    """A field as it stands, or with another value."""
    return message[begin:stop] if value is None else _written(number, value)


def _fields(message: bytes) -> Iterator[Place]:
    at = 0
    while at < len(message):
        key, start = _number(message, at)
        kind = key & 7
        if kind == VARINT:
            _, stop = _number(message, start)
        elif kind == LENGTH:
            size, start = _number(message, start)
            stop = start + size
        elif kind in SIZES:
            stop = start + SIZES[kind]
        else:
            raise ValueError(f"a field of kind {kind}")
        if stop > len(message):
            raise ValueError(f"a field that ends at {stop:,} of {len(message):,} bytes")
        yield key >> 3, at, start, stop
        at = stop


def _number(message: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    number = 0
    for i in range(10):
        byte = message[at + i]
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number, at + i + 1
    raise ValueError("a number of more than ten bytes")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _written(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | LENGTH) + _varint(len(value)) + value
