"""Products, norms, reductions and attention. fp16 operands are held in float32, so that sums are float32's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

Array = np.ndarray


WORTH_SHARING = 2_000_000  # products, below which handing a half to another thread costs more than it saves
PIECE = 1 << 18  # numbers of a float16 weight that are converted at a time: a megabyte, which the caches hold
_helper: ContextVar[Executor | None] = ContextVar("helper", default=None)


@contextmanager
def shared_with(helper: Executor | None) -> Iterator[None]:
    """Within, and in this thread, `helper` (of one thread) takes half of the rows of large matrices."""
    token = _helper.set(helper)
    try:
        yield
    finally:
        _helper.reset(token)


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x [..., I], weight [O, I] (of float16 too), bias [O] -> [..., O]."""
    rows = x.reshape(-1, x.shape[-1])
    helper = _helper.get()
    out = np.empty((len(rows), len(weight)), np.result_type(rows, weight))
    if helper is None or len(rows) * weight.size < WORTH_SHARING:
        _product(rows, weight, out)
    else:
        half = len(weight) // 2
        other = helper.submit(_product, rows, weight[half:], out[:, half:])
        _product(rows, weight[:half], out[:, :half])
        other.result()
    out = out.reshape(*x.shape[:-1], len(weight))
    return out if bias is None else out + bias


def _product(rows: Array, weight: Array, out: Array) -> None:
    """rows [N, I] and weight [O, I] -> out [N, O]."""
    if weight.dtype != np.float16:
        np.matmul(rows, weight.T, out)
        return
    step = max(PIECE // weight.shape[1], 1)
    for i in range(0, len(weight), step):
        np.matmul(rows, weight[i : i + step].astype(np.float32).T, out[:, i : i + step])


def matmul(x: Array, y: Array, transpose_x: Any = False, transpose_y: Any = False) -> Array:
    x = x.swapaxes(-1, -2) if transpose_x and x.ndim > 1 else x
    y = y.swapaxes(-1, -2) if transpose_y and y.ndim > 1 else y
    return np.matmul(x, y)


def attention(query: Array, key: Array, value: Array, attn_mask: Array | None = None) -> Array:
    """query [..., L, E], key [..., S, E], value [..., S, F], attn_mask broadcast to [..., L, S] -> [..., L, F].

    Head by head: the scores of all heads of a layer would take hundreds of megabytes where the cache is long.
    """
    lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    given = [np.broadcast_to(x, lead + x.shape[-2:]) for x in (query, key, value)]
    if attn_mask is not None:
        given.append(np.broadcast_to(attn_mask, lead + attn_mask.shape[-2:]))
    out = np.empty((*lead, query.shape[-2], value.shape[-1]), np.result_type(query, key, value))
    for at in np.ndindex(*lead):
        out[at] = _head(*(x[at] for x in given))
    return out


def _head(query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
    """[L, E], [S, E], [S, F], and what broadcasts to [L, S] -> [L, F]."""
    scaled = query * np.float32(1 / math.sqrt(query.shape[-1]))
    # The tall matrix first: BLAS takes a third of the time for a few queries and thousands of keys.
    scores = np.ascontiguousarray(np.matmul(key, scaled.T).T)
    if mask is not None and mask.dtype == np.bool_:
        scores = np.where(mask, scores, np.float32(-np.inf))
    elif mask is not None:
        scores += mask
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return np.matmul(scores, value)


def layer_norm(
    x: Array, axes: Any = None, gamma: Array | None = None, beta: Array | None = None, epsilon: Any = np.float32(1e-5)
) -> Array:
    over = tuple(range(x.ndim)) if axes is None else tuple(int(axis) % x.ndim for axis in axes)
    shape = [length if axis in over else 1 for axis, length in enumerate(x.shape)]
    centred = x - x.mean(axis=over, keepdims=True)
    out = centred / np.sqrt(np.square(centred).mean(axis=over, keepdims=True) + epsilon)
    out = out if gamma is None else out * gamma.reshape(shape)
    return out if beta is None else out + beta.reshape(shape)


def einsum(values: list[Array], equation: Any) -> Array:
    return np.einsum(str(equation), *values, optimize=True)


def reduction(function: Callable[..., Array]) -> Callable[..., Array]:
    """`function(x, axis, keepdims)` with MIL's names; no axes are all of them."""

    def reduce(x: Array, axes: Any = None, keep_dims: Any = False) -> Array:
        over = None if axes is None else tuple(int(axis) for axis in np.ravel(axes))
        return np.asarray(function(x, axis=over, keepdims=bool(keep_dims)))

    return reduce


def arg_reduction(function: Callable[..., Array]) -> Callable[..., Array]:
    def reduce(x: Array, axis: Any = -1, keep_dims: Any = False, output_dtype: Any = "int32") -> Array:
        return np.asarray(function(x, axis=int(axis), keepdims=bool(keep_dims)))

    return reduce


OPERATORS: dict[str, Callable[..., Any]] = {
    "linear": linear,
    "matmul": matmul,
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
    "layer_norm": layer_norm,
    "reduce_sum": reduction(lambda x, **how: x.sum(dtype=x.dtype, **how)),
    "reduce_mean": reduction(lambda x, **how: x.mean(**how) if x.dtype.kind == "f" else x.mean(**how).astype(x.dtype)),
    "reduce_max": reduction(lambda x, **how: x.max(**how)),
    "reduce_min": reduction(lambda x, **how: x.min(**how)),
    "reduce_prod": reduction(lambda x, **how: x.prod(dtype=x.dtype, **how)),
    "reduce_l2_norm": reduction(lambda x, **how: np.sqrt(np.square(x).sum(**how)).astype(x.dtype)),
    "reduce_sum_square": reduction(lambda x, **how: np.square(x).sum(dtype=x.dtype, **how)),
    "reduce_argmax": arg_reduction(np.argmax),
    "reduce_argmin": arg_reduction(np.argmin),
}
