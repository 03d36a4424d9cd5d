"""An engine that computes by the processor is judged by the floor of what it did, and by no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smolship.export import export
from smolship.export.adding import add_targets
from smolship.runtime.asking import ask
from smolship.runtime.bundle import Bundle
from smolship.runtime.case import case_of
from smolship.runtime.engines import BY_PROCESSOR, SIMULATED, simulation
from smolship.runtime.engines.onnx import BLOCKS, FLOAT32, ROWS, products
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.execute import execute
from smolship.runtime.parity import ParityReport, judge_result
from smolship.runtime.result import Result


@pytest.fixture(scope="module")
def bundle(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("arm") / "bundle"
    return export(tiny("smollm3"), out, to=["onnx"], context=128, probe_tokens=256, arm=True)


def said(bundle: Bundle, computes: str | None) -> Result:
    """What this machine's engine answers, as if it had computed like that."""
    case = case_of(bundle, "onnx")
    plan = case.plan("", 1, True)
    with case.opened(plan) as session:
        session.computes = computes
        return execute(ask(case.probes, plan, session.traits).plan, session, case.artifact)


def judged(bundle: Bundle, computes: str | None) -> ParityReport:
    return judge_result(bundle, [said(bundle, computes)])


def test_probes_hold_them_and_nobody_asks_for_them(bundle: Bundle) -> None:
    probes = bundle.probes()
    assert probes.arithmetics("onnx") == ["float32", "rows"] == sorted(BY_PROCESSOR["onnx"].values())
    assert case_of(bundle, "onnx").arithmetics == [""]
    assert "greedy.onnx.rows.0" not in probes.arrays


def test_each_is_judged_by_its_own(bundle: Bundle) -> None:
    """This machine multiplies by blocks: that passes as what it is, and fails as anything else."""
    assert judged(bundle, BLOCKS).passed and judged(bundle, None).passed
    for other in (ROWS, FLOAT32):
        report = judged(bundle, other)
        assert {check.stage for check in report.checks if not check.passed} == {"engine"}, other


@pytest.mark.parametrize(("computes", "cure"), [(ROWS, "--no-kleidiai"), (FLOAT32, "--arm"), ("in int2", "")])
def test_without_a_floor_it_is_not_judged(tiny_bundle: Any, computes: str, cure: str) -> None:
    from smolship.runtime import open_bundle

    with pytest.raises(SetupError, match=f"(?s)neither passed nor failed.*{cure}"):
        judged(open_bundle(tiny_bundle("llama", "int4")), computes)


@pytest.mark.real
def test_int8_is_multiplied_by_blocks_where_int4_is_by_rows(tiny_bundle: Any) -> None:
    from smolship.runtime import open_bundle

    bundle = open_bundle(tiny_bundle("smollm3", "int8"))
    assert judged(bundle, ROWS).passed
    with pytest.raises(SetupError, match="--arm"):
        judged(bundle, FLOAT32)


@pytest.mark.real
def test_it_is_the_bits_that_are_held_that_count(tiny: Any, tmp_path: Path) -> None:
    """Whatever the scheme's name: here the tied head alone has 4 bits."""
    bundle = export(tiny("llama"), tmp_path / "b", to=["onnx"], quant="int8", embedding=4, context=128, probe_tokens=64)
    assert case_of(bundle, "onnx").bits == {4, 8} and judged(bundle, BLOCKS).passed
    with pytest.raises(SetupError, match="--no-kleidiai"):
        judged(bundle, ROWS)


def test_names() -> None:
    assert products("aarch64", {"asimddp"}, True) == ROWS and products("arm64", {"asimddp"}, False) == BLOCKS
    assert products("aarch64", {"fp"}, True) == FLOAT32 and products("x86_64", (), True) == BLOCKS == SIMULATED["onnx"]
    assert (simulation("onnx", ROWS), simulation("onnx", BLOCKS), simulation("gguf", ROWS)) == ("rows", "", "")
    assert simulation("onnx", None) == ""


@pytest.mark.parametrize("wrong", [{"probe_tokens": 0}, {"to": ["gguf"]}])
def test_what_has_no_floors_is_refused(tiny: Any, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--arm"):
        export(tiny("llama"), tmp_path / "b", **({"to": ["onnx"], "context": 64, "arm": True} | wrong))


@pytest.mark.real
def test_they_stay_when_a_target_is_added(bundle: Bundle, tiny: Any) -> None:
    added = add_targets(bundle.path, ["gguf"], model=tiny("smollm3"))
    assert added.probes().arithmetics("onnx") == ["float32", "rows"]
