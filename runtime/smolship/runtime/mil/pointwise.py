"""Operators that work number by number. fp16 is held in float32: rounding is the caller's."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from smolship.runtime.mil.package import ARRAY_TYPES

Array = np.ndarray
SQRT_HALF, SQRT_2_BY_PI = math.sqrt(0.5), math.sqrt(2 / math.pi)
ERF_END, ERF_STEPS = 6.0, 256  # erf is 1 in float64 beyond the end; steps a unit


def sigmoid(x: Array) -> Array:
    return 0.5 * np.tanh(0.5 * x) + np.float32(0.5)


@cache
def _erf_table() -> tuple[Array, Array]:
    """erf and its slope (a step's worth) at every node."""
    nodes = np.arange(-ERF_END, ERF_END + 2 / ERF_STEPS, 1 / ERF_STEPS)
    return np.array([math.erf(x) for x in nodes]), 2 / math.sqrt(math.pi) * np.exp(-nodes * nodes) / ERF_STEPS


def erf(x: Array) -> Array:
    """Cubic between the nodes of a table: within 1e-11 of erf, which numpy lacks."""
    values, slopes = _erf_table()
    at = (np.clip(np.nan_to_num(x.astype(np.float64)), -ERF_END, ERF_END) + ERF_END) * ERF_STEPS
    i = at.astype(np.int64)
    t = at - i
    a, b, c, d = values[i], slopes[i], values[i + 1], slopes[i + 1]
    result = a + t * (b + t * (3 * (c - a) - 2 * b - d + t * (2 * (a - c) + b + d)))
    return np.where(np.isnan(x), np.nan, result).astype(x.dtype)


def gelu(x: Array, mode: str = "EXACT") -> Array:
    if mode == "TANH_APPROXIMATION":
        return 0.5 * x * (1 + np.tanh(np.float32(SQRT_2_BY_PI) * (x + np.float32(0.044715) * x**3)))
    if mode == "SIGMOID_APPROXIMATION":
        return x * sigmoid(np.float32(1.702) * x)
    if mode != "EXACT":
        raise ValueError(f"unknown mode {mode}")
    return 0.5 * x * (1 + erf(x * np.float32(SQRT_HALF)))


def cast(x: Array, dtype: str) -> Array:
    """To integers towards zero."""
    return x.astype(ARRAY_TYPES[str(dtype)])


def real_div(x: Array, y: Array) -> Array:
    return x / y if x.dtype.kind == "f" else np.floor_divide(x, y)


def softmax(x: Array, axis: Any = -1) -> Array:
    e = np.exp(x - x.max(axis=int(axis), keepdims=True))
    return e / e.sum(axis=int(axis), keepdims=True)


def _unary(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x: function(x)


def _binary(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x, y: function(x, y)


OPERATORS: dict[str, Callable[..., Any]] = {
    # two operands
    "add": _binary(np.add),
    "sub": _binary(np.subtract),
    "mul": _binary(np.multiply),
    "real_div": real_div,
    "floor_div": _binary(np.floor_divide),
    "mod": _binary(np.mod),
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "pow": _binary(np.power),
    "equal": _binary(np.equal),
    "not_equal": _binary(np.not_equal),
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "logical_and": _binary(np.logical_and),
    "logical_or": _binary(np.logical_or),
    # one
    "abs": _unary(np.abs),
    "cast": cast,
    "clip": lambda x, alpha, beta: np.clip(x, alpha, beta),
    "cos": _unary(np.cos),
    "erf": erf,
    "exp": _unary(np.exp),
    "floor": _unary(np.floor),
    "inverse": lambda x, epsilon=np.float32(1e-4): 1 / (x + epsilon),
    "log": lambda x, epsilon=np.float32(1e-45): np.log(x + epsilon),
    "logical_not": _unary(np.logical_not),
    "round": _unary(np.round),
    "rsqrt": lambda x, epsilon=np.float32(1e-12): 1 / np.sqrt(x + epsilon),
    "sin": _unary(np.sin),
    "sqrt": _unary(np.sqrt),
    "square": _unary(np.square),
    "tanh": _unary(np.tanh),
    # activations
    "gelu": gelu,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "softmax": softmax,
    "softplus": lambda x: np.logaddexp(np.float32(0), x),
    "select": lambda cond, a, b: np.where(cond, a, b),
}
