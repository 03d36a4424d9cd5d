"""Keys and values out of llama.cpp's saved state of a sequence, and into it: the only form in which it shows them.

The layout is not promised; it is that of llama_kv_cache::state_write. What does not add up to it is not read.

    magic, sequence: 2 numbers of 4 bytes
    a cache, or two: of the layers that see everything, and of those that see a window

A cache:

    streams, T cells: 2 numbers of 4 bytes
    T times the cell's position, how many sequences hold it (1), and which
    whether values are transposed, L layers
    L times the keys: type, bytes of a row (8), the rows [T, G * K]
    L times the values: type, bytes of a number, rows, the rows [G * K, T]
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smolship.runtime.session import over_and_over

F16 = 1  # ggml's number of the type
HEAD = 8  # bytes before the first cache


@dataclass(frozen=True)
class Held:
    """One cache of a state.

    cells   [T, 3]: position, number of sequences, sequence
    rows    bytes of a row of keys, by layer
    first   where the first layer's keys begin
    end     behind the last layer's values
    """

    cells: np.ndarray
    rows: tuple[int, ...]
    first: int
    end: int

    def part(self, index: int, values: bool) -> tuple[int, int]:
        """Where a layer's keys or values begin, and their bytes."""
        count = len(self.cells)
        before = (*self.rows, *self.rows[:index]) if values else self.rows[:index]
        return self.first + 12 * (len(before) + 1) + count * sum(before), count * self.rows[index]


def read_layer(
    state: bytes, slides: Sequence[bool], layer: int, count: int, heads: int, interleaved: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Keys and values float32 [count, G, K] of one layer, by position; None where the state is laid out otherwise, or
    does not hold all of them: of layers that see a window it has no more than that.

    slides       which layers see a window
    heads        G of the first layer; the size of a head is the same in all
    interleaved  rotated pairs are neighbours (0, 1), …; ours are halves (0, K/2), …
    """
    try:
        caches = _caches(state, slides)
        held, index = caches[_of(slides, layer)], _index(slides, layer)
        (first, size), (behind, _) = held.part(index, values=False), held.part(index, values=True)
        width = caches[_of(slides, 0)].rows[0] // heads // 2  # K
    except (ValueError, IndexError, struct.error):
        return None
    order = held.cells[:, 0].argsort()
    if not np.array_equal(held.cells[order, 0], np.arange(count)):
        return None
    keys = np.frombuffer(state, "<f2", size // 2, first).reshape(count, -1, width).astype(np.float32)
    values = np.frombuffer(state, "<f2", size // 2, behind).reshape(-1, width, count).astype(np.float32)
    if interleaved:
        keys = keys.reshape(*keys.shape[:2], -1, 2).swapaxes(2, 3).reshape(keys.shape)
    return keys[order], values.transpose(2, 0, 1)[order]


def write_layers(
    template: bytes, slides: Sequence[bool], layers: Sequence[np.ndarray], count: int, window: int, interleaved: bool
) -> bytearray:
    """The state of `count` tokens whose keys and values are those of `layers`, each float32 [2, N, G, K], over and
    over; of layers that see a window, of that alone. `template` is a state of one token. Raises ValueError where it is
    laid out otherwise or for other layers."""
    if len(slides) != len(layers):
        raise ValueError(f"{len(layers)} layers, and a model of {len(slides)}")
    try:
        caches = _caches(template, slides)
    except (IndexError, struct.error) as error:
        raise ValueError(f"a state of {len(template)} bytes: {error}") from None
    state = bytearray(template[:HEAD])
    for i, held in enumerate(caches):
        first = max(count - window, 0) if i else 0
        state += _cache(held, [rows for j, rows in enumerate(layers) if _of(slides, j) == i], first, count, interleaved)
    return state


def _of(slides: Sequence[bool], layer: int) -> int:
    """In which cache of the state a layer is."""
    return int(slides[layer])


def _index(slides: Sequence[bool], layer: int) -> int:
    """Which layer of its cache it is."""
    return sum(slide == slides[layer] for slide in slides[:layer])


def _caches(state: bytes, slides: Sequence[bool]) -> list[Held]:
    """The caches of a state, which must end with the last of them."""
    found, at = [], HEAD
    for slide in (False, True) if any(slides) else (False,):
        held = _held(state, at)
        if len(held.rows) != sum(one == slide for one in slides):
            raise ValueError(f"a cache of {len(held.rows)} layers")
        found.append(held)
        at = held.end
    if at != len(state):
        raise ValueError(f"{len(state) - at} bytes behind its caches")
    return found


def _held(state: bytes, at: int) -> Held:
    streams, count = struct.unpack_from("<2I", state, at)
    first = at + 8 + 12 * count + 8
    if streams != 1 or not count or first > len(state):
        raise ValueError(f"{streams} streams of {count} cells")
    cells = np.frombuffer(state, "<i4", 3 * count, at + 8).reshape(count, 3)
    transposed, layers = struct.unpack_from("<2I", state, first - 8)
    rows: list[int] = []
    at = first
    for _ in range(layers):
        kind, row = struct.unpack_from("<iQ", state, at)
        if kind != F16:
            raise ValueError(f"a layer of type {kind}")
        rows.append(row)
        at += 12 + count * row
    end = at + 12 * layers + count * sum(rows)
    if transposed != 1 or end > len(state):
        raise ValueError(f"{layers} layers")
    return Held(cells, tuple(rows), first, end)


def _cache(held: Held, layers: Sequence[np.ndarray], start: int, stop: int, interleaved: bool) -> bytearray:
    """One cache of positions `start` to `stop`, laid out as `held`."""
    if len(held.cells) != 1:
        raise ValueError(f"a state of {len(held.cells)} tokens")
    count = stop - start
    places = np.repeat(held.cells, count, axis=0)
    places[:, 0] = np.arange(start, stop)
    state = bytearray(16 + places.nbytes + 2 * sum(12 + count * row for row in held.rows))
    struct.pack_into("<2I", state, 0, 1, count)
    at = 8 + places.nbytes
    state[8:at] = places.tobytes()
    struct.pack_into("<2I", state, at, 1, len(layers))
    at += 8
    for (keys, _), row in zip(layers, held.rows, strict=True):
        if interleaved:
            keys = keys.reshape(*keys.shape[:2], 2, -1).swapaxes(2, 3).reshape(keys.shape)
        struct.pack_into("<iQ", state, at, F16, row)
        out = np.frombuffer(state, "<f2", count * row // 2, at + 12).reshape(count, 1, -1)
        _fill(_wide(keys, row), out, start)
        at += 12 + count * row
    for (_, values), row in zip(layers, held.rows, strict=True):
        struct.pack_into("<i2I", state, at, F16, 2, row // 2)
        columns = np.frombuffer(state, "<f2", count * row // 2, at + 12).reshape(-1, count)
        _fill(_wide(values, row), columns.T[:, None], start)
        at += 12 + count * row
    return state


def _fill(rows: np.ndarray, out: np.ndarray, start: int) -> None:
    """Fill `out` with the rows, over and over, from position `start` on."""
    whole = np.empty((start + len(out), *out.shape[1:]), np.float16) if start else out
    over_and_over(rows, whole)
    if start:
        out[:] = whole[start:]


def _wide(rows: np.ndarray, size: int) -> np.ndarray:
    """[N, G, K] -> [N, 1, G * K], which must take `size` bytes in fp16."""
    if rows.ndim != 3 or rows[0].size * 2 != size:
        raise ValueError(f"keys of shape {list(rows.shape)} where llama.cpp has rows of {size} bytes")
    return rows.reshape(len(rows), 1, -1)
