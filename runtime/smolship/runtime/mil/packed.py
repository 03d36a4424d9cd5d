"""Compressed constants, and quantized numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from smolship.runtime.mil.package import ARRAY_TYPES
from smolship.runtime.mil.tensors import ints, room

Array = np.ndarray


def _spread(blocks: Array, shape: Sequence[int]) -> Array:
    """Repeat the leading dimensions of `blocks` until they have that shape."""
    for axis, length in enumerate(shape):
        times, rest = divmod(length, blocks.shape[axis])
        if rest:
            raise ValueError(f"{blocks.shape[axis]} blocks do not divide {length}")
        blocks = np.repeat(blocks, times, axis) if times > 1 else blocks
    return blocks


def blockwise(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """scale * (data - offset); scale and offset hold one number for each block of data, in every dimension."""
    if any(n % b for n, b in zip(data.shape, scale.shape, strict=True)) or scale.size == 0:
        raise ValueError(f"scales {scale.shape} for data {data.shape}")
    # [n, m] as [n / b, b, m / c, c]: the scales broadcast, nothing is repeated in memory.
    apart = [part for n, b in zip(data.shape, scale.shape, strict=True) for part in (b, n // b)]
    between = [part for b in scale.shape for part in (b, 1)]
    values = data.reshape(apart).astype(np.float32)
    if offset is not None:
        values -= offset.reshape(between).astype(np.float32)
    values *= scale.reshape(between)
    return values.reshape(data.shape)


def sparse(nonzero_data: Array, mask: Array, shape: Any = None) -> Array:
    """The numbers in turn where the mask is 1. In iOS 16 the mask is packed and the shape is given."""
    if shape is not None:
        shape = room(ints(shape))
        mask = np.unpackbits(mask, count=math.prod(shape), bitorder="little").reshape(shape)
    out = np.zeros(mask.shape, nonzero_data.dtype)
    out[mask != 0] = nonzero_data
    return out


def palette(indices: Array, lut: Array, vector_axis: Any = None, shape: Any = None) -> Array:
    """A palette entry for each index. In iOS 16 indices are packed and the palette is flat; in iOS 18 the palette is
    [blocks of each dimension..., entries, vector], and vectors are laid along `vector_axis`."""
    if shape is not None:
        shape, bits = room(ints(shape)), max(int(math.log2(len(lut))), 1)
        ones = np.unpackbits(indices, count=math.prod(shape) * bits, bitorder="little").reshape(-1, bits)
        return lut[(ones.astype(np.int64) << np.arange(bits)).sum(1)].reshape(shape)
    palettes = _spread(lut, indices.shape)  # [indices..., entries, vector]
    chosen = np.take_along_axis(palettes, indices[..., None, None].astype(np.int64), -2)[..., 0, :]
    if lut.shape[-1] == 1:
        return chosen[..., 0]
    axis = int(vector_axis) % indices.ndim
    chosen = np.moveaxis(chosen, -1, axis + 1)
    return chosen.reshape([n * lut.shape[-1] if i == axis else n for i, n in enumerate(indices.shape)])


def lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: Any = None
) -> tuple[Array, Array]:
    dense = palette(sparse(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask if lut.shape[-1] == 1 else np.repeat(indices_mask, lut.shape[-1], int(vector_axis))
    return mask, dense[mask != 0]


def sparse_blockwise(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    return data_mask, blockwise(sparse(nonzero_data, data_mask), scale, offset)[data_mask != 0]


def _along(values: Array | None, axis: Any, rank: int) -> Any:
    """Numbers for each channel of `axis`, to be broadcast."""
    if values is None or values.ndim == 0 or axis is None:
        return values
    return values.reshape([-1 if i == int(axis) % rank else 1 for i in range(rank)])


def dequantize(input: Array, scale: Array, zero_point: Array | None = None, axis: Any = None) -> Array:
    zero, step = _along(zero_point, axis, input.ndim), _along(scale, axis, input.ndim)
    return (input.astype(np.float32) - np.float32(0 if zero is None else zero)) * step


OPERATORS: dict[str, Callable[..., Any]] = {
    "constexpr_affine_dequantize": lambda quantized_data, zero_point, scale, axis: dequantize(
        quantized_data, scale, zero_point, axis
    ),
    "constexpr_blockwise_shift_scale": blockwise,
    "constexpr_cast": lambda source_val, output_dtype: source_val.astype(ARRAY_TYPES[str(output_dtype)]),
    "constexpr_lut_to_dense": palette,
    "constexpr_lut_to_sparse": lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": sparse_blockwise,
    "constexpr_sparse_to_dense": sparse,
}
