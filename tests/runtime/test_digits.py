"""Long numbers that are to be repeated: an engine that says other digits fails, and one that says them passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from smolship.runtime import open_bundle
from smolship.runtime.bundle import Bundle
from smolship.runtime.digits import AT, IDS, WHAT, digits_check, surest
from smolship.runtime.errors import InputError
from smolship.runtime.judge import Check, Rounding
from smolship.runtime.parity import ParityReport, parity
from smolship.runtime.probes import Gap, Probes, Sketch
from smolship.runtime.result import Seen
from smolship.runtime.session import Session

TOKENS, FIRST = 40, 12  # of the text; its first digit of the repeat is said at position 12
SURE, CLOSE = 9.0, 0.3  # leads in logits


def gap(kl: float, positions: int = 64, most: float = 0.0) -> Gap:
    ones = np.ones(positions)
    return Gap(kl * ones, ones > 0, ones, most * ones, 0 * ones)


def case(lead: float = SURE, moved: float = 0.01, kl: float = 1e-12, noise: float = 0.0) -> tuple[Probes, np.ndarray]:
    """Probes of a model that repeats what it is to repeat, and the logits that its simulation has."""
    ids = np.arange(TOKENS, dtype=np.int32) % 10
    at = np.array([i for i in range(FIRST, TOKENS - 1) if i % 5], np.int32)
    every = np.arange(at[0], at[-1] + 1)
    logits = np.random.default_rng(4).standard_normal((len(every), 300)).astype(np.float32) - 5
    logits[:, 11] = 0  # the second choice
    logits[np.arange(len(every)), ids[every + 1]] = lead
    probes = Probes([], {})
    probes.arrays |= {IDS: ids, AT: at, "digits.npu.moved": np.full(len(at), moved, np.float32)}
    probes.sketches["npu.digits"] = Sketch.of(logits, ids[every + 1])
    probes.gaps |= {"npu.ulp": gap(kl), "npu.noise": gap(kl, most=noise)}
    return probes, logits


def judged(probes: Probes, logits: np.ndarray) -> Check:
    sketch, following = probes.sketches["npu.digits"], probes.arrays[IDS][FIRST + 1 : FIRST + 1 + len(logits)]
    between = Gap.between(sketch, logits, following)
    rounding = Rounding("engine", probes.gaps["npu.ulp"], np.empty(0))
    return digits_check(probes, "npu", Seen.of(logits, sketch.ids), between, rounding)


def test_what_repeats_them_passes() -> None:
    check = judged(*case())
    assert check.passed and check.what == WHAT and not check.note
    assert check.at == "22 of 22 digits judged, the model itself repeats 22 of 22"


def test_one_digit_for_another_fails_and_is_named() -> None:
    probes, logits = case()
    logits[[4, 9], [7, 2]] = logits[[4, 9], [2, 7]]  # at 16 a 7 is to follow, at 21 a 2
    logits[4, [7, 2]], logits[9, [2, 7]] = (-5, SURE), (-5, SURE)
    check = judged(probes, logits)
    assert not check.passed
    assert check.note == "2 of 22 digits are wrong that are sure: token 2 for 7 at 17, token 7 for 2 at 22"


def test_what_is_no_digit_is_judged_by_its_divergence_only() -> None:
    probes, logits = case()
    assert FIRST + 3 not in probes.arrays[AT]
    logits[3, 299] = 50
    check = judged(probes, logits)
    assert check.passed and check.kl < 1e-9


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({"lead": CLOSE, "moved": 0.01}, True),  # five times 0.01 are less than the lead
        ({"lead": CLOSE, "moved": 0.07}, None),  # more
        ({"lead": CLOSE, "noise": 0.4}, None),  # a rounding that tips over may cost as much
        ({"lead": CLOSE, "moved": 0.14, "kl": 0.01}, True),  # chaotic: twice
        ({"lead": CLOSE, "moved": 0.16, "kl": 0.01}, None),
    ],
)
def test_a_digit_that_rounding_may_turn_over_is_not_judged(changes: dict[str, float], fails: bool | None) -> None:
    probes, logits = case(**changes)
    logits[4, 11] = logits[4].max() + 0.1
    check = judged(probes, logits)
    if fails:
        assert not check.passed and "token 11 for 7" in check.note
    else:
        assert check.passed and not check.positions and "of none of the 22 digits" in check.note


def test_a_simulation_that_is_no_number_is_not_the_engines_fault() -> None:
    probes, logits = case()
    probes.sketches["npu.digits"].lse[2] = np.nan
    assert judged(probes, logits).note == "not measured: the simulation is not finite at the digits"


def test_the_lead_that_counts_grows_with_the_floors() -> None:
    moved = np.array([0.1, 0.3], np.float32)
    assert surest(moved, gap(1e-12), gap(0)) == pytest.approx(1.5, abs=1e-3)
    assert surest(moved, gap(1e-12), gap(0, most=2.0)) == pytest.approx(2.0, abs=1e-3)
    assert surest(moved, gap(0.02), gap(0.02, most=2.0)) == pytest.approx(0.6, abs=1e-3)


@pytest.fixture
def bundle(tiny_bundle: Any) -> Bundle:
    return open_bundle(tiny_bundle("llama", "none"))


def report_of(bundle: Bundle, target: str, monkeypatch: pytest.MonkeyPatch, plant: Any) -> tuple[ParityReport, Check]:
    """Of an engine in which `plant` changes each session."""
    sound = Bundle.session

    def planted(*args: Any, **options: Any) -> Session:
        session = sound(*args, **options)
        plant(session)
        return session

    monkeypatch.setattr(Bundle, "session", planted)
    report = parity(bundle, target, quick=True, threads=1)
    (check,) = (check for check in report.checks if check.what == WHAT)
    return report, check


@pytest.mark.parametrize("target", ["executorch", "gguf", "onnx"])
def test_engines_that_are_sound_pass(bundle: Bundle, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    report, check = report_of(bundle, target, monkeypatch, lambda session: None)
    assert report.passed and check.positions == 30 and int(check.at.split()[0]) > 25
    assert (report.depth, report.context) == (128, 128)


def test_an_engine_that_swaps_two_digits_once_fails(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the twelfth digit of the repeat alone: first and second choice change places."""
    probes = bundle.probes()
    place = int(probes.arrays[AT][11])
    text = probes.arrays[IDS][: place + 1].tolist()

    def plant(session: Session) -> None:
        run, held = session._run, [0] * session.capacity

        def swapped(ids: np.ndarray, at: int) -> np.ndarray:
            held[at : at + len(ids)] = ids.tolist()
            logits = run(ids, at).copy()
            if held[: at + len(ids)] == text:
                first, second = np.argsort(logits.ravel())[:-3:-1]
                logits.ravel()[[first, second]] = logits.ravel()[[second, first]]
            return logits

        session._run = swapped  # type: ignore[method-assign]

    report, check = report_of(bundle, "onnx", monkeypatch, plant)
    assert not report.passed and not check.passed
    assert check.note.startswith("1 of 30 digits are wrong that are sure") and f"at {place + 1}" in check.note


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (AT, np.arange(3, dtype=np.int32)),
        (AT, np.array([[1]], np.int32)),
        (AT, np.array([5, 4], np.int32)),
        (IDS, np.arange(9.0)),
        ("digits.onnx.moved", np.zeros(2, np.float32)),
    ],
)
def test_digits_that_are_not_those_of_the_sketches_are_refused(
    bundle: Bundle, tmp_path: Any, name: str, value: np.ndarray
) -> None:
    probes = bundle.probes()
    probes.arrays = probes.arrays | {name: value}
    probes.save(tmp_path / "probes.npz")
    with pytest.raises(InputError, match="probes cannot be read"):
        Probes.load(tmp_path / "probes.npz")


def test_probes_of_an_older_export_say_that_they_have_none(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    older = bundle.probes()
    older.sketches = {name: one for name, one in older.sketches.items() if not name.endswith(".digits")}
    monkeypatch.setattr(Bundle, "probes", lambda self: older)
    report, check = report_of(bundle, "onnx", monkeypatch, lambda session: None)
    assert report.passed and not check.positions and "no digits that are repeated" in check.note


def test_floors_are_finite_where_one_run_is_not() -> None:
    probes, logits = case()
    probes.gaps["npu.ulp"] = gap(np.nan)
    assert not judged(probes, logits).positions
