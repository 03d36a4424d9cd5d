"""How gaps are judged: each stage's bound is reached, and a NaN passes none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from smolship.runtime.answers import Drift
from smolship.runtime.asking import lengths
from smolship.runtime.judge import (
    CHAOS,
    CHAOS_ONE,
    ROUNDING,
    Rounding,
    judge,
    rounding_bound,
    same,
    stored_checks,
    translation_checks,
    unmeasured,
    worst_bound,
)
from smolship.runtime.parity import _found
from smolship.runtime.probes import Gap, Probes, Sketch, Window
from smolship.runtime.result import Seen
from tests.runtime.fakes import FakeSession


def gap(kl: float, positions: int = 256) -> Gap:
    """Divergences that scatter around `kl`."""
    values = kl * np.random.default_rng(5).uniform(0.5, 1.5, positions)
    ones = np.ones(positions)
    return Gap(values, ones > 0, ones, 0 * ones, 0 * ones)


def probes(**changes: Gap) -> Probes:
    """What an export measured, all as it should be but for `changes`."""
    made = Probes([Window("english", np.arange(256, dtype=np.int32))])
    made.sketches["original"] = Sketch(np.zeros(256), *np.zeros((2, 256, 1)), np.zeros(256))
    made.gaps = {
        "decoder": gap(1e-11),
        "decoder.ulp": gap(1e-11),
        "quantized": gap(0.3),
        "quantized.noise": gap(0.4),
        "onnx.simulated": gap(0.02),
        "onnx.noise": gap(0.025),
        "onnx.ulp": gap(0.02),
    }
    made.gaps |= {name.replace("__", "."): value for name, value in changes.items()}
    return made


def failed(measured: Probes) -> set[str]:
    return {check.stage for check in stored_checks(measured, "onnx") if not check.passed}


def test_what_is_as_it_should_be_passes():
    assert failed(probes()) == set()


@pytest.mark.parametrize(
    "stage, change",
    [
        ("translation", {"decoder": gap(1e-9)}),
        ("quantization", {"quantized": gap(1.2)}),
        ("arithmetic", {"onnx__simulated": gap(0.08)}),
    ],
)
def test_each_stage_has_a_bound_that_is_reached(stage, change):
    assert failed(probes(**change)) == {stage}


def test_a_nan_fails_even_where_nothing_is_judged():
    one = gap(1e-3)
    one.kl[7] = np.nan
    assert not judge("total", "original → engine", one, None, None).passed
    assert failed(probes(decoder=replace(one))) == {"translation"}


@pytest.mark.parametrize("kl, multiple", [(1e-11, ROUNDING), (0.02, CHAOS)])
def test_the_bound_of_many_positions_is_the_floor_times_its_multiple(kl, multiple):
    floor = gap(kl, 100_000).kl
    assert rounding_bound(floor, 100_000) == pytest.approx(multiple * kl + 1e-11, rel=0.02)
    assert rounding_bound(floor, 10) > rounding_bound(floor, 1000)


@pytest.mark.parametrize("kl, multiple, one", [(1e-11, ROUNDING, ROUNDING), (0.02, CHAOS, CHAOS_ONE)])
def test_the_worst_of_many_may_be_as_bad_as_the_floor_s_own_worst(kl, multiple, one):
    floor = gap(kl, 1000).kl
    floor[100:104] = 5 * kl
    nothing = np.empty(0)
    assert worst_bound(floor, 1, 1, nothing) == pytest.approx(one * 5 * kl + 1e-11, rel=0.01)
    assert worst_bound(floor, 1, 4, nothing) == pytest.approx((one * 5 + 3 * multiple * 5) / 4 * kl + 1e-11, rel=0.01)
    assert worst_bound(floor, 1, 8, nothing) == pytest.approx((one * 5 + 7 * multiple * 3) / 8 * kl + 1e-11, rel=0.1)
    assert worst_bound(floor, 4, 1, nothing) == pytest.approx((one * 5 + 3 * multiple) * kl / 4 + 1e-11, rel=0.05)


def test_below_chaos_the_worst_may_have_tipped_over():
    quiet, noise = gap(1e-12).kl, gap(1e-3).kl
    assert worst_bound(quiet, 1, 4, noise) == pytest.approx(noise.max(), rel=1e-3)
    assert worst_bound(quiet, 4, 25, noise) == pytest.approx(noise.max() / 10, rel=1e-3)


def test_the_group_furthest_above_its_bound_is_the_worst():
    """Of more positions less is allowed: the largest mean is not always the worst."""
    rounding = Rounding("engine", gap(0.02), np.empty(0))
    groups = {"length 7": [gap(0.01, 2)] * 2, "length 128": [gap(0.08, 1)], "length 129": [gap(0.035, 1)] * 4}
    assert rounding.worst("prefill", groups).passed
    groups["length 128"] = [gap(0.08, 1)] * 2
    check = rounding.worst("prefill", groups)
    assert not check.passed and check.at == "length 128" and check.positions == 2
    groups["length 3"] = [gap(np.nan, 1)]
    assert rounding.worst("prefill", groups).at == "length 3"


def test_a_session_equals_itself_in_every_bit():
    logits = np.random.default_rng(3).standard_normal((9, 300)).astype(np.float32)
    ids = np.argsort(logits, axis=1)[:, -256:]

    def check(again):
        sketches = (Seen.of(x, ids, exact=True) for x in (logits, again))
        return same("engine", "cold → rewound", *sketches, ids, "why")

    logits[2, 3], logits[5, 1] = np.nan, 0
    equal = logits.copy()
    equal[5, 1] = -0.0
    found = check(equal)
    assert found.passed and found.kl == found.bound == 0 and not found.note
    for row, token in ((4, 7), (8, int(np.argmin(logits[8])))):  # among those that were kept or not
        moved = logits.copy()
        moved[row, token] = np.nextafter(moved[row, token], np.float32(9))
        found = check(moved)
        assert not found.passed and found.note == "1 of 9 positions differ; why"


def test_far_positions_are_judged_one_by_one():
    measured = probes(decoder__far=gap(1e-11, 28))
    measured.arrays["far.at"] = np.arange(1000, 1028)
    assert all(check.passed for check in translation_checks(measured))
    measured.gaps["decoder.far"].kl[5] = 2e-9
    (check,) = [check for check in translation_checks(measured) if not check.passed]
    assert check.what.endswith("worst position") and check.at == "far position 1,005"
    measured.gaps["decoder.far"] = gap(1e-8, 28)
    assert len([check for check in translation_checks(measured) if not check.passed]) == 2


@pytest.mark.parametrize(
    "name, whose",
    [
        ("decoder", "our decoder is not finite at 2 of 256 positions, first in layers.3.down"),
        ("onnx__simulated", "the simulation is not finite at 2 of 256 positions, first in layers.3.down"),
        ("onnx__ulp", "the simulation moved by an ulp is not finite at 2 of 256 positions"),
    ],
)
def test_a_number_that_is_none_is_laid_to_whom_it_belongs(name, whose):
    broken = gap(0.02)
    broken.kl[[3, 200]] = np.nan
    measured = probes(**{name: broken})
    measured.facts["nonfinite"] = {name.replace("__", "."): "layers.3.down"}
    checks = [check for check in stored_checks(measured, "onnx") if not check.passed]
    assert checks and all(whose in check.note for check in checks)
    assert {check.stage for check in checks} == {"translation" if name == "decoder" else "arithmetic"}


def test_an_original_that_is_no_number_is_not_our_decoder_s_fault():
    broken = gap(0.02)
    broken.kl[9] = np.nan
    measured = probes(decoder=broken, quantized=broken)
    measured.sketches["original"].lse[9] = np.inf
    notes = [check.note for check in stored_checks(measured, "onnx") if not check.passed]
    assert notes and all("the original itself is not finite at 1 of 256" in note for note in notes)


def test_without_a_floor_or_a_simulation_nothing_is_judged():
    lost = gap(0.02, 4)
    lost.kl[:] = np.nan
    check = Rounding("engine", lost, np.empty(0)).mean("decode", [gap(0.02)])
    assert check.passed and check.positions == 0 and "no floor" in check.note
    check = Rounding("engine", gap(0.02), np.empty(0)).worst("decode", {"position 3": [lost[:0]]})
    assert (
        check.passed and check.note == unmeasured("", "", "the simulation is not finite at any of these positions").note
    )


@pytest.mark.parametrize("chunk", [48, 64, 128, 200])
def test_both_sides_of_an_engine_s_own_chunks_are_prefilled(chunk):
    traits = FakeSession(chunk=chunk).traits
    for quick in (True, False):
        assert {chunk - 1, chunk, chunk + 1, 2 * chunk + 1} <= set(lengths(traits, 512, quick))
        assert max(lengths(traits, 130, quick)) <= 130
    traits = FakeSession().traits
    assert {15, 16, 17, 127, 128, 129, 255, 256, 257, 511, 512} <= set(lengths(traits, 512, False))
    assert 128 in lengths(traits, 512, True)


def test_the_layer_is_named_where_the_drift_passes_all_floors():
    measured = [(1e-7, 1e-7), (0.03, 1e-7), (0.5, 0.04), (0.2, 0.05)]
    rows = [Drift(i, d, f) for i, (d, f) in enumerate(measured)]
    assert "layer 2's norm, k or v" in _found(rows)
    assert "or the head" in _found([*rows[:2], Drift(2, 0.04, 0.04)])
