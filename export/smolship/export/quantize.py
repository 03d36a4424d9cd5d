"""The portable quantized grid: codes and scales that XNNPACK, ONNX, Core ML and GGUF all hold bit for bit.

int4  symmetric, codes -8…7, a scale for each group of 32, 64 or 128 inputs of an output row.
int8  symmetric, codes -127…127, one scale for each output row.

Every scale is positive, a bf16 number of at least 2^-14. XNNPACK keeps scales as bf16, Core ML and GGUF as fp16:
in [2^-14, 65280] each bf16 number is an fp16 number too, so none of them changes it.

Weights that are lifted from a GGUF file (Q4_0, Q8_0) keep its scales, any finite fp16 numbers in groups of 32. GGUF,
ONNX and Core ML hold those; XNNPACK does not, and gets them rounded again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from smolship.runtime.errors import InputError

MIN_SCALE = 2.0**-14  # the smallest normal fp16 number
MAX_SCALE = 65280.0  # the largest bf16 number that fp16 holds
GROUPS = (32, 64, 128)
QMAX = {4: 7, 8: 127}
QMIN = {4: -8, 8: -127}
# Scales that are tried at 4 bits, as multiples of the one that reaches both ends of the group. `smolship parity` of
# SmolLM2-135M shows a KL of .281 for the quantization; with one scale, for magnitudes up to 7, it was .334.
SHRINK = np.arange(70, 116, 3, dtype=np.float32) / 100
BLOCK = 1024  # groups that are searched at once: they and their errors stay in the cache of a core


@dataclass(frozen=True)
class QuantTensor:
    """A quantized matrix [out, in], or some rows of one. Its value is codes * scales, each scale over its group.

    codes   int8 [out, in]
    scales  float32 [out, in / group], on the portable grid; fp16 numbers of any sign where they are lifted
    bits    4 or 8
    group   inputs that share a scale; equal to `in` where there is one scale a row
    origin  "quantized" here, then perhaps "calibrated", or "lifted" from a checkpoint that was on a grid we hold
    """

    codes: np.ndarray
    scales: np.ndarray
    bits: int
    group: int
    origin: Literal["quantized", "calibrated", "lifted"] = "quantized"

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    def dequantize(self) -> np.ndarray:
        """float32 [out, in]. Exact: a product of an fp16 scale and a code of 8 bits fits into float32."""
        out, width = self.codes.shape
        grouped = self.codes.reshape(out, width // self.group, self.group)
        return (grouped * self.scales[:, :, None]).reshape(out, width).astype(np.float32, copy=False)


def round_bf16(x: np.ndarray) -> np.ndarray:
    """float32 -> the nearest bf16 number, ties to even, as float32. Inputs are finite and not negative."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def portable(scales: np.ndarray) -> np.ndarray:
    """Which float32 scales lie on the portable grid."""
    bf16 = (np.ascontiguousarray(scales, np.float32).view(np.uint32) & 0xFFFF) == 0
    return bf16 & (scales >= MIN_SCALE) & (scales <= MAX_SCALE)


def quantize(rows: np.ndarray, bits: int, group: int, name: str = "tensor") -> QuantTensor:
    """Round float32 rows [out, in] to the portable grid: the scale first, then the codes for it as it was rounded.

    At 8 bits the scale is the one that reaches the group's largest magnitude. At 4 bits that is seldom the best: codes
    go one further down than up, and one clipped value can cost less than a wider step for all. Of several scales each
    group takes the one with the least squared error. Weights that were on a grid with negative scales so find nearly
    their own again.

    Raises InputError where a value is not finite or no portable scale reaches it.
    """
    out, width = rows.shape
    grouped = np.asarray(rows, np.float32).reshape(out, width // group, group)
    high, low = grouped.max(axis=2), grouped.min(axis=2)
    if not (np.isfinite(high).all() and np.isfinite(low).all()):
        raise InputError("weights are not finite", got=f"NaN or infinity in {name}", expected="finite numbers")
    # What reaches both ends: at 4 bits codes go one further down than up.
    reach = np.maximum(high / np.float32(QMAX[bits]), low / np.float32(QMIN[bits]))
    if reach.max(initial=0) > MAX_SCALE:
        raise InputError(
            "weights are too large",
            got=f"{np.abs(grouped).max():g} in {name}",
            expected=f"magnitudes up to {MAX_SCALE * QMAX[bits]:g}",
        )
    scales = _on_grid(reach) if bits == 8 else _search(grouped, reach)
    codes = np.clip(np.rint(grouped / scales[:, :, None]), QMIN[bits], QMAX[bits])
    return QuantTensor(codes.astype(np.int8).reshape(out, width), scales, bits, group)


def _on_grid(scales: np.ndarray) -> np.ndarray:
    """The nearest portable scales."""
    return np.clip(round_bf16(scales), np.float32(MIN_SCALE), np.float32(MAX_SCALE))


def _search(grouped: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """The scales of least squared error at 4 bits, float32 [out, groups].

    Groups lie along the columns: each number comes of element-wise operations in one order, whatever the vectors of
    the machine, so that the digest does not depend on it.
    """
    values, reach = grouped.reshape(-1, grouped.shape[2]), reach.ravel()
    best = np.empty_like(reach)
    for start in range(0, len(reach), BLOCK):
        part = slice(start, start + BLOCK)
        columns = np.ascontiguousarray(values[part].T)
        choices = [_on_grid(reach[part] * factor) for factor in SHRINK]
        errors = [_squared_error(columns, scales) for scales in choices]
        best[part] = np.take_along_axis(np.stack(choices), np.argmin(errors, axis=0)[None], axis=0)[0]
    return best.reshape(grouped.shape[:2])


def _squared_error(columns: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Of rounding each column to 4 bits with its scale, float32 [columns]."""
    steps = columns * (np.float32(1) / scales)
    off = np.rint(steps)
    np.clip(off, QMIN[4], QMAX[4], out=off)
    off -= steps
    off *= off
    return np.add.reduce(off, axis=0) * (scales * scales)


def to_half(values: np.ndarray, name: str) -> np.ndarray:
    """Round what is not quantized to fp16 once, so that fp16 and fp32 engines hold the same number."""
    with np.errstate(over="ignore"):
        half = np.asarray(values).astype(np.float16)
    if not np.isfinite(half).all():
        raise InputError(
            "a tensor does not fit fp16",
            got=f"{np.abs(np.asarray(values, np.float64)).max():g} in {name}",
            expected="finite magnitudes up to 65504",
        )
    return half


def layout(width: int, bits: int, group: int) -> tuple[int, int]:
    """(bits, group) at which a matrix with `width` inputs is held when `bits` and `group` are asked for.

    int4 takes the largest group of 32, 64, 128 that is at most the one asked for and divides the width; where none
    does, the matrix is held at 8 bits. Nothing is padded. int8 has one scale a row.
    """
    if bits == 4:
        for size in reversed(GROUPS):
            if size <= group and width % size == 0:
                return 4, size
    return 8, width


def pack4(codes: np.ndarray) -> np.ndarray:
    """int8 [..., n] in -8…7 -> uint8 [..., n / 2]: code + 8, the even index in the low nibble."""
    biased = (codes + np.int8(8)).view(np.uint8)
    return biased[..., 0::2] | (biased[..., 1::2] << 4)


def unpack4(packed: np.ndarray) -> np.ndarray:
    """The inverse of `pack4`."""
    codes = np.empty((*packed.shape[:-1], packed.shape[-1] * 2), np.int8)
    codes[..., 0::2] = packed & 15
    codes[..., 1::2] = packed >> 4
    codes -= 8
    return codes
