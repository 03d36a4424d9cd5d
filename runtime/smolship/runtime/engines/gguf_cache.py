"""Keys and values out of llama.cpp's saved state of a sequence, the only form in which it gives them away.

The layout is not promised; it is that of llama_kv_cache::state_write. What does not add up to it is not read.

    magic, sequence, streams, T cells: 4 numbers of 4 bytes
    T times the cell's position, how many sequences hold it (1), and which
    whether values are transposed, L layers
    L times the keys: type, bytes of a row (8), the rows [T, G * K]
    L times the values: type, bytes of a number, rows, the rows [G * K, T]
"""

from __future__ import annotations

import struct

import numpy as np

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
