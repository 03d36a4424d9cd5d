"""How gaps are judged: each stage's bound is reached, and a NaN passes none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from smolship.runtime.parity import CHAOS, ROUNDING, _found, judge, rounding_bound, stored_checks
from smolship.runtime.probes import Gap, Probes


def gap(kl: float, positions: int = 256) -> Gap:
    """Divergences that scatter around `kl`."""
    values = kl * np.random.default_rng(5).uniform(0.5, 1.5, positions)
    ones = np.ones(positions)
    return Gap(values, ones > 0, ones, 0 * ones, 0 * ones)


def probes(**changes: Gap) -> Probes:
    """What an export measured, all as it should be but for `changes`."""
    made = Probes([])
    made.gaps = {"decoder": gap(1e-11), "decoder.ulp": gap(1e-11), "quantized": gap(0.3), "quantized.noise": gap(0.4),
                 "onnx.simulated": gap(0.02), "onnx.noise": gap(0.025), "onnx.ulp": gap(0.02)}  # fmt: skip
    made.gaps |= {name.replace("__", "."): value for name, value in changes.items()}
    return made


def failed(measured: Probes) -> set[str]:
    return {check.stage for check in stored_checks(measured, "onnx") if not check.passed}


def test_what_is_as_it_should_be_passes():
    assert failed(probes()) == set()


@pytest.mark.parametrize("stage, change", [
    ("translation", {"decoder": gap(1e-9)}),
    ("quantization", {"quantized": gap(1.2)}),
    ("arithmetic", {"onnx__simulated": gap(0.08)}),
])  # fmt: skip
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


def test_the_layer_is_named_where_the_drift_passes_all_floors():
    measured = [(1e-7, 1e-7), (0.03, 1e-7), (0.5, 0.04), (0.2, 0.05)]
    rows = [{"layer": i, "difference": d, "floor": f} for i, (d, f) in enumerate(measured)]
    assert "layer 2's norm, k or v" in _found(rows)
    assert "or the head" in _found([*rows[:2], {"layer": 2, "difference": 0.04, "floor": 0.04}])
