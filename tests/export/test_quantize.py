"""The portable grid: what it promises of scales, codes and errors, for any weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smolship.export.quantize import (
    MAX_SCALE,
    MIN_SCALE,
    QMAX,
    QMIN,
    layout,
    pack4,
    quantize,
    round_bf16,
    to_half,
    unpack4,
)
from smolship.runtime.errors import InputError

FLOATS = st.floats(-4e5, 4e5, width=32)
ROWS = arrays(np.float32, (3, 64), elements=FLOATS | st.floats(-(2.0**-8), 2.0**-8, width=32))
BITS = st.sampled_from([(4, 32), (4, 64), (8, 64)])


def on_the_grid(scales: np.ndarray) -> bool:
    """Representable in bf16 and in fp16 both, and not below the smallest normal fp16 number."""
    bf16 = (scales.view(np.uint32) & 0xFFFF) == 0
    return bool((bf16 & (scales.astype(np.float16).astype(np.float32) == scales) & (scales >= MIN_SCALE)).all())


@settings(max_examples=300, deadline=None)
@given(ROWS, BITS)
def test_scales_codes_and_errors_keep_their_promises(rows, held):
    bits, group = held
    q = quantize(rows, bits, group)
    assert q.scales.dtype == np.float32 and on_the_grid(q.scales)
    assert q.codes.dtype == np.int8 and q.codes.min() >= QMIN[bits] and q.codes.max() <= QMAX[bits]
    grouped = rows.astype(np.float64).reshape(3, -1, group)
    error = np.abs(q.dequantize().reshape(grouped.shape) - grouped)
    if bits == 8:
        # A scale rounded down to bf16 (by at most 2^-9 of it) clips the peak by less than half a step.
        assert (error <= q.scales[:, :, None] * 0.5 * (1 + 1e-6)).all()
        # No larger scale than the peak needs, to the rounding of bf16: no bits are wasted.
        assert (q.scales <= np.maximum(np.abs(grouped).max(axis=2) / 127 * (1 + 2**-8), MIN_SCALE)).all()
    else:
        # By the sum of squares never farther than with the scale that reaches both ends.
        reach = round_bf16(np.maximum(grouped.max(axis=2) / 7, grouped.min(axis=2) / -8))
        reaching = squares(grouped, np.maximum(reach, MIN_SCALE).astype(np.float64)[:, :, None])
        assert ((error**2).sum(axis=2) <= reaching * (1 + 1e-5)).all()


def squares(grouped: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The squared error of rounding each group to codes -8…7 with its scale."""
    return ((np.clip(np.rint(grouped / scales), -8, 7) * scales - grouped) ** 2).sum(axis=2)


def test_each_group_takes_the_best_scale_of_those_tried():
    """Found by trying every bf16 number in reach, in float64."""
    groups = np.random.default_rng(5).standard_normal((20, 1, 32))
    groups[0] = np.abs(groups[0])  # one-sided: the grid has 7 steps up
    groups[1] = -groups[0]  # and 8 down
    q = quantize(groups.reshape(20, 32).astype(np.float32), 4, 32)
    error = squares(groups, q.scales[:, :, None].astype(np.float64))[:, 0]
    reach = np.maximum(groups.max(axis=2) / 7, groups.min(axis=2) / -8)
    every = np.unique(round_bf16(np.linspace(0.7, 1.15, 400)[:, None, None] * reach)).astype(np.float64)
    best = np.min([squares(groups, np.full((20, 1, 1), scale))[:, 0] for scale in every], axis=0)
    assert (error >= best * (1 - 1e-6)).all() and (error <= best * 1.15).all() and error.sum() < best.sum() * 1.05
    assert error[1] < error[0]  # the code -8 is used


def test_the_scales_do_not_depend_on_how_the_rows_are_cut(monkeypatch):
    rows = np.random.default_rng(6).standard_normal((70, 128), np.float32)
    whole = quantize(rows, 4, 32)
    monkeypatch.setattr("smolship.export.quantize.BLOCK", 7)
    parts = [quantize(part, 4, 32) for part in np.array_split(rows, 9)]
    np.testing.assert_array_equal(np.concatenate([part.scales for part in parts]), whole.scales)


@settings(max_examples=100, deadline=None)
@given(ROWS, BITS)
def test_dequantized_weights_quantize_to_themselves_in_value(rows, held):
    bits, group = held
    q = quantize(rows, bits, group)
    exact = q.codes.astype(np.float64).reshape(3, -1, group) * q.scales.astype(np.float64)[:, :, None]
    np.testing.assert_array_equal(q.dequantize(), exact.reshape(rows.shape))


@given(arrays(np.int8, (2, 3, 32), elements=st.integers(-8, 7)))
def test_pack4_and_unpack4_are_inverse(codes):
    packed = pack4(codes)
    assert packed.dtype == np.uint8 and packed.shape == (2, 3, 16)
    np.testing.assert_array_equal(unpack4(packed), codes)


def test_pack4_puts_the_even_index_low():
    np.testing.assert_array_equal(pack4(np.array([[-8, 7, 0, -1]], np.int8)), [[0xF0, 0x78]])


@given(st.floats(0, 2.0**127, width=32))
def test_round_bf16_is_torchs(x):
    expected = torch.tensor([x], dtype=torch.float32).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(round_bf16(np.array([x], np.float32)), expected)


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (8, 64)])
def test_rows_of_zeros_and_tiny_weights_keep_a_positive_scale(bits, group):
    rows = np.zeros((3, 64), np.float32)
    rows[1] = 1e-30
    rows[2, 0] = 2.0**-15  # half the smallest scale: rounds to even, zero
    q = quantize(rows, bits, group)
    assert (q.scales == MIN_SCALE).all() and not q.codes.any()
    rows[2, 0] = 2.0**-14
    assert quantize(rows, bits, group).codes[2, 0] == 1


@pytest.mark.parametrize(("bits", "value"), [(4, 0.375), (4, -7.0), (8, 127.0), (8, -0.01)])
def test_a_block_of_a_single_value(bits, value):
    q = quantize(np.full((2, 32), value, np.float32), bits, 32)
    assert (q.codes == (QMAX if value > 0 else QMIN)[bits]).all()
    np.testing.assert_allclose(q.dequantize(), value, rtol=2**-8)


def test_the_largest_scale_and_beyond():
    q = quantize(np.full((1, 32), MAX_SCALE * 7, np.float32), 4, 32)
    assert q.scales[0, 0] == MAX_SCALE and np.isfinite(q.scales.astype(np.float16)).all()
    with pytest.raises(InputError, match="too large"):
        quantize(np.full((1, 32), 65_500 * 7, np.float32), 4, 32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    rows = np.zeros((2, 64), np.float32)
    rows[1, 40] = value
    with pytest.raises(InputError, match=r"not finite[^$]*layers\.0\.q"):
        quantize(rows, 4, 32, "layers.0.q")
    with pytest.raises(InputError, match="fp16"):
        to_half(rows, "norm")


@pytest.mark.parametrize(
    ("width", "asked", "held"),
    [
        (576, 32, (4, 32)),
        (576, 64, (4, 64)),
        (576, 128, (4, 64)),  # 576 = 64 * 9
        (1536, 128, (4, 128)),
        (96, 128, (4, 32)),
        (32, 128, (4, 32)),
        (48, 32, (8, 48)),
        (100, 128, (8, 100)),
        (1, 32, (8, 1)),  # nothing divides: 8 bits, one scale a row
    ],
)
def test_widths_that_the_group_does_not_divide(width, asked, held):
    assert layout(width, 4, asked) == held
    assert layout(width, 8, asked) == (8, width)
    q = quantize(np.ones((2, width), np.float32), *held)
    assert q.shape == (2, width) and q.scales.shape == (2, width // held[1])
