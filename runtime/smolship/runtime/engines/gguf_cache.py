"""Keys and values out of llama.cpp's saved state of a sequence, and into it: the only form in which it shows them.

The layout is not promised; it is that of llama_kv_cache::state_write. What does not add up to it is not read.

    magic, sequence, streams, T cells: 4 numbers of 4 bytes
    T times the cell's position, how many sequences hold it (1), and which
    whether values are transposed, L layers
    L times the keys: type, bytes of a row (8), the rows [T, G * K]
    L times the values: type, bytes of a number, rows, the rows [G * K, T]
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from smolship.runtime.session import over_and_over

F16 = 1  # ggml's number of the type


def read_layer(state: bytes, layer: int, heads: int, interleaved: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """Keys and values float32 [T, G, K] of one layer, by position; None where the state is laid out otherwise.

    interleaved  rotated pairs are neighbours (0, 1), …; ours are halves (0, K/2), …
    """
    if len(state) < 16:
        return None
    _, _, streams, cells = struct.unpack_from("<4I", state)
    at = 16 + 12 * cells
    if streams != 1 or not cells or len(state) < at + 20:
        return None
    positions = np.frombuffer(state, "<i4", 3 * cells, 16).reshape(cells, 3)
    transposed, layers, kind, row = struct.unpack_from("<2IiQ", state, at)
    size = cells * row
    if len(state) != at + 8 + layers * (2 * 12 + 2 * size) or (transposed, kind) != (1, F16) or layer >= layers:
        return None
    first = at + 8 + layer * (12 + size) + 12
    keys = np.frombuffer(state, "<f2", size // 2, first).reshape(cells, heads, -1).astype(np.float32)
    first += layers * (12 + size)
    values = np.frombuffer(state, "<f2", size // 2, first).reshape(heads, -1, cells).astype(np.float32)
    if interleaved:
        keys = keys.reshape(cells, heads, -1, 2).swapaxes(2, 3).reshape(keys.shape)
    order = positions[:, 0].argsort()
    return keys[order], values.transpose(2, 0, 1)[order]


def write_layers(template: bytes, layers: Sequence[np.ndarray], count: int, interleaved: bool) -> bytearray:
    """The state of `count` tokens whose keys and values are those of `layers`, each float32 [2, N, G, K], over and
    over. `template` is a state of one token. Raises ValueError where it is laid out otherwise or for other layers."""
    if len(template) < 48:
        raise ValueError(f"a state of {len(template)} bytes")
    *head, cells = struct.unpack_from("<4I", template)
    transposed, held, kind, row = struct.unpack_from("<2IiQ", template, 28)
    if (cells, transposed, kind, held) != (1, 1, F16, len(layers)):
        raise ValueError(f"{len(layers)} layers, and a state of {held}")
    places = np.zeros((count, 3), "<i4")
    places[:] = np.frombuffer(template, "<i4", 3, 16)
    places[:, 0] = np.arange(count)
    size = count * row
    state = bytearray(16 + places.nbytes + 8 + held * (12 + size) + held * (12 + size))
    struct.pack_into("<4I", state, 0, *head, count)
    at = 16 + places.nbytes
    state[16:at] = places.tobytes()
    struct.pack_into("<2I", state, at, transposed, held)
    at += 8
    for keys, _ in layers:
        if interleaved:
            keys = keys.reshape(*keys.shape[:2], 2, -1).swapaxes(2, 3).reshape(keys.shape)
        struct.pack_into("<iQ", state, at, kind, row)
        over_and_over(_wide(keys, row), np.frombuffer(state, "<f2", size // 2, at + 12).reshape(count, 1, -1))
        at += 12 + size
    for _, values in layers:
        struct.pack_into("<i2I", state, at, kind, 2, row // 2)
        out = np.frombuffer(state, "<f2", size // 2, at + 12).reshape(-1, count)
        over_and_over(_wide(values, row), out.T[:, None])
        at += 12 + size
    return state


def _wide(rows: np.ndarray, size: int) -> np.ndarray:
    """[N, G, K] -> [N, 1, G * K], which must take `size` bytes in fp16."""
    if rows.ndim != 3 or rows[0].size * 2 != size:
        raise ValueError(f"keys of shape {list(rows.shape)} where llama.cpp has rows of {size} bytes")
    return rows.reshape(len(rows), 1, -1)
