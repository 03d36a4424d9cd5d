"""Operators that move numbers, look them up, count them or make them; and states."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from smolship.runtime.mil.package import MAX_ELEMENTS

Array = np.ndarray


def ints(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(np.asarray(values).reshape(-1).tolist())


def room(shape: Sequence[int]) -> tuple[int, ...]:
    """`shape`, refused where such a tensor would be too large."""
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"a tensor of shape {list(shape)} is too large")
    return tuple(shape)


def reshape(x: Array, shape: Any) -> Array:
    """A length of 0 stands for that of x; if there are more lengths than x has, x has ones before its own."""
    wanted = ints(shape)
    have = (1,) * (len(wanted) - x.ndim) + x.shape
    return x.reshape([have[i] if length == 0 else length for i, length in enumerate(wanted)])


def _region(rank: int, begin: Any, end: Any, stride: Any, begin_mask: Any, end_mask: Any, squeeze_mask: Any) -> Any:
    """MIL's begin, end, stride and masks as an index."""
    begins, ends = ints(begin), ints(end)
    strides = (1,) * rank if stride is None else ints(stride)
    masks = [(False,) * rank if mask is None else ints(mask) for mask in (begin_mask, end_mask, squeeze_mask)]
    if len(begins) != rank or len(ends) != rank:
        raise ValueError(f"{len(begins)} begins and {len(ends)} ends for {rank} dimensions")
    return tuple(
        b if point else slice(None if open_begin else b, None if open_end else e, s)
        for b, e, s, open_begin, open_end, point in zip(begins, ends, strides, *masks, strict=True)
    )


def slice_by_index(
    x: Array,
    begin: Any,
    end: Any,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Array:
    return np.asarray(x[_region(x.ndim, begin, end, stride, begin_mask, end_mask, squeeze_mask)])


def slice_by_size(x: Array, begin: Any, size: Any) -> Array:
    """A size of -1 reaches to the end."""
    starts = [b % n if b < 0 else b for b, n in zip(ints(begin), x.shape, strict=True)]
    return x[tuple(slice(b, None if s == -1 else b + s) for b, s in zip(starts, ints(size), strict=True))]


def slice_update_in_place(
    x: Array,
    update: Array,
    begin: Any,
    end: Any,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Array:
    region = _region(x.ndim, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    if x[region].shape != update.shape:  # numpy would repeat a smaller update
        raise ValueError(f"an update of shape {update.shape} for a region of shape {x[region].shape}")
    x[region] = update
    return x


def concat(values: Sequence[Array], axis: Any, interleave: Any = False) -> Array:
    axis = int(axis)
    if not interleave:
        return np.concatenate(values, axis)
    axis %= values[0].ndim
    shape = list(values[0].shape)
    shape[axis] *= len(values)
    return np.stack(values, axis + 1).reshape(shape)


def split(x: Array, axis: Any, num_splits: Any = None, split_sizes: Any = None) -> list[Array]:
    if split_sizes is None:
        return np.split(x, int(num_splits), int(axis))
    sizes = ints(split_sizes)
    if sum(sizes) != x.shape[int(axis)]:
        raise ValueError(f"sizes {sizes} of {x.shape[int(axis)]}")
    return np.split(x, np.cumsum(sizes)[:-1], int(axis))


def pad(x: Array, pad: Any, mode: Any = "constant", constant_val: Any = 0) -> Array:
    """`pad` holds (before, after) of the last dimensions."""
    widths = np.reshape(pad, (-1, 2)).tolist()
    widths = [[0, 0]] * (x.ndim - len(widths)) + widths
    room([n + before + after for n, (before, after) in zip(x.shape, widths, strict=True)])
    if str(mode) == "constant":
        return np.pad(x, widths, constant_values=constant_val)
    return np.pad(x, widths, mode={"reflect": "reflect", "replicate": "edge"}[str(mode)])  # type: ignore[call-overload]


def band_part(x: Array, lower: Any = -1, upper: Any = -1) -> Array:
    """Zero below the `lower` and above the `upper` diagonals; -1 keeps them all."""
    below = np.arange(x.shape[-2])[:, None] - np.arange(x.shape[-1])
    keep = ((int(lower) < 0) | (below <= int(lower))) & ((int(upper) < 0) | (-below <= int(upper)))
    return np.where(keep, x, np.zeros((), x.dtype))


def cumsum(x: Array, axis: Any = 0, exclusive: Any = False, reverse: Any = False) -> Array:
    axis = int(axis)
    x = np.flip(x, axis) if reverse else x
    out = np.cumsum(x, axis, dtype=x.dtype)
    out = out - x if exclusive else out
    return np.flip(out, axis) if reverse else out


def topk(
    x: Array,
    k: Any = 1,
    axis: Any = -1,
    ascending: Any = False,
    sort: Any = True,
    return_indices: Any = True,
    output_indices_dtype: Any = "int32",
) -> Any:
    order = np.argsort(x if ascending else -x, axis=int(axis), kind="stable")
    order = order if int(k) == -1 else np.take(order, range(int(k)), axis=int(axis))
    values = np.take_along_axis(x, order, int(axis))
    return (values, order) if return_indices else values


def gather(x: Array, indices: Array, axis: Any = 0, batch_dims: Any = 0, validate_indices: Any = False) -> Array:
    axis, batch = int(axis) % x.ndim, int(batch_dims)
    if not batch:
        return np.take(x, indices, axis)
    lead = x.shape[:batch]
    rows = [np.take(x[i], indices[i], axis - batch) for i in np.ndindex(lead)]
    return np.stack(rows).reshape(lead + rows[0].shape)


def gather_nd(x: Array, indices: Array, batch_dims: Any = 0, validate_indices: Any = False) -> Array:
    batch = int(batch_dims)
    if not batch:
        return x[tuple(np.moveaxis(indices, -1, 0))]
    lead = x.shape[:batch]
    rows = [x[i][tuple(np.moveaxis(indices[i], -1, 0))] for i in np.ndindex(lead)]
    return np.stack(rows).reshape(lead + rows[0].shape)


SCATTER: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}


def _scattered(data: Array, where: Any, updates: Array, mode: Any) -> Array:
    out = data.copy()
    if str(mode) == "update":
        out[where] = updates
    else:
        SCATTER[str(mode)].at(out, where, updates)
    return out


def scatter(
    data: Array, indices: Array, updates: Array, axis: Any = 0, mode: Any = "add", validate_indices: Any = False
) -> Array:
    """What coremltools makes of `cache[:, :, begin:end] = k` for iOS 17 and before."""
    where = (slice(None),) * (int(axis) % data.ndim) + (indices,)
    return _scattered(data, where, updates, mode)


def scatter_nd(data: Array, indices: Array, updates: Array, mode: Any = "add", validate_indices: Any = False) -> Array:
    return _scattered(data, tuple(np.moveaxis(indices, -1, 0)), updates, mode)


def range_1d(start: Any, end: Any, step: Any) -> Array:
    room([max(math.ceil((float(end) - float(start)) / float(step)), 0)])
    return np.arange(start, end, step, dtype=np.asarray(start).dtype)


def write_state(input: Array, data: Array) -> None:
    if data is not input:
        input[...] = data


OPERATORS: dict[str, Callable[..., Any]] = {
    "identity": lambda x: x,
    "reshape": reshape,
    "transpose": lambda x, perm: x.transpose(ints(perm)),
    "expand_dims": lambda x, axes: np.expand_dims(x, ints(axes)),
    "squeeze": lambda x, axes=None: np.squeeze(x, None if axes is None else ints(axes)),
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "slice_update": lambda x, **how: slice_update_in_place(x.copy(), **how),
    "concat": concat,
    "split": split,
    "stack": lambda values, axis: np.stack(values, int(axis)),
    "tile": lambda x, reps: np.tile(x, ints(reps)) if room([math.prod(ints(reps)) * x.size]) else x,
    "pad": pad,
    "gather": gather,
    "gather_along_axis": lambda x, indices, axis=0, validate_indices=False: np.take_along_axis(x, indices, int(axis)),
    "gather_nd": gather_nd,
    "scatter": scatter,
    "scatter_nd": scatter_nd,
    "band_part": band_part,
    "cumsum": cumsum,
    "fill": lambda shape, value=np.float32(0): np.full(room(ints(shape)), value),
    "fill_like": lambda ref_tensor, value=np.float32(0): np.full(ref_tensor.shape, value),
    "range_1d": range_1d,
    "shape": lambda x: np.array(x.shape, np.int32),
    "topk": topk,
    "read_state": lambda input: input,
    "write_state": write_state,
}
# Their results may be views of what they were given.
VIEWS = {
    "identity",
    "reshape",
    "transpose",
    "expand_dims",
    "squeeze",
    "slice_by_index",
    "slice_by_size",
    "split",
    "tile",
    "read_state",
}
# They make no numbers: there is nothing to round, and nothing that was not there before.
MOVES = VIEWS | {
    "slice_update",
    "concat",
    "stack",
    "gather",
    "gather_along_axis",
    "gather_nd",
    "shape",
    "select",
    "write_state",
}
