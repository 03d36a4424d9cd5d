"""Runs on devices, side by side in the report."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from smolship.runtime.sensors.snapshot import snapshot
from smolship.tools import cli
from smolship.tools.report import fields
from smolship.tools.report.devices import devices_page, devices_section
from smolship.tools.report.page import render
from smolship.tools.report.results import Results
from tests.runtime.sensor_trees import CONTAINER, PHONE, PI_5, policy, tree
from tests.tools.device_records import SAID, device, loaded, record, run
from tests.tools.samples import manifest
from tests.tools.test_report import EVIL, Page

BOARD = record()
PHONE_RUN = record(PHONE, device=device(PHONE, "adb://R5CX"))
CAPPED = record(during=[run(PI_5, 101, 80000, **policy(0, 2400000, 1500000))])
EMPTY = snapshot(tree(CONTAINER), 77)
EMULATED = record(
    CONTAINER,
    device=device(CONTAINER, "ssh://emulated"),
    loads=[loaded(None)],
    said=replace(SAID, expected=None),
    before=EMPTY,
    during=[],
    after=EMPTY,
    emulated=True,
)


def test_devices_stand_side_by_side() -> None:
    found = Page(devices_page([BOARD, PHONE_RUN, EMULATED]))
    for figure in (
        "Raspberry Pi 5 Model B Rev 1.0, executorch-xnnpack",
        "SM-S942B",
        "ssh://emulated, executorch-xnnpack, emulated",
        "47.9\n(44.4–50.0)",
        "200\n(199–201)",
        "20.0 /\n25.6 /\n29.1",
        "1,500 /\n900 /\n250",
        "625 MB",
        "61.0",
        "sum of the times from one token to the next",
        "max(VmHWM, max(VmRSS + VmSwap)) of 4 samples",
        "no cold load: whether the file's pages were dropped is not known",
        "its text was not checked",
    ):
        assert figure in found.text, figure
    assert found.names.count("circle") == 3 + 4 + 4  # a point a run; four samples of two runs: one has no zones
    assert "unavailable" in found.text and not re.search(r"(?<![\d.,e-])0(\.0+)? (MB|GB|ms)", found.text)
    assert not {"script", "link", "img"} & set(found.names)


def test_a_marked_run_is_seen_as_such() -> None:
    page = devices_page([BOARD, CAPPED])
    found = Page(page)
    assert "Raspberry Pi 5 Model B Rev 1.0, executorch-xnnpack (2): its times" in found.text
    assert "The clock of policy0 is capped 38% below what it can." in found.text and "not judged" in found.text
    classes = [value for name, value in found.attributes if name == "class"]
    assert "dot k0" in classes and "dot k1 off" in classes and "note bad" in classes
    assert "not judged." not in Page(devices_page([BOARD])).text.replace("its times are not judged. Rates", "")


def test_two_boards_of_one_model_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(BOARD, device=replace(BOARD.device, label="kitchen"), notes=["warm"])
    BOARD.save(tmp_path / "a.json")
    other.save(tmp_path / "b.json")
    (tmp_path / "c.json").write_bytes((tmp_path / "a.json").read_bytes())
    files = [str(tmp_path / f"{name}.json") for name in "abc"]
    assert cli.run(["report", *files, "-o", str(tmp_path / "page.html")]) == 0
    assert "it is shown once" in capsys.readouterr().err
    (tmp_path / "b.json").write_text('{"schema": 2}')
    assert cli.run(["report", *files, "-o", str(tmp_path / "none.html")]) == 2
    assert f"{tmp_path}/b.json: a record of another version" in capsys.readouterr().err.replace("\n", "")
    found = Page((tmp_path / "page.html").read_text()).text
    assert "kitchen, a/model" in found and "executorch-xnnpack (2): warm" in found
    assert "executorch-xnnpack (3)" not in found


def test_the_report_has_the_section_where_there_are_records() -> None:
    assert "On devices" in Page(render(Results(manifest(), devices=[BOARD]))).text
    assert "On devices" not in Page(render(Results(manifest()))).text


def test_what_a_record_says_is_never_markup() -> None:
    evil = replace(
        BOARD,
        marks=[EVIL],
        notes=[EVIL],
        device=replace(BOARD.device, model=replace(BOARD.device.model, value=EVIL), cpu=EVIL),
        engine=replace(BOARD.engine, target=EVIL),
        model=replace(BOARD.model, id=EVIL),
    )
    found = Page(str(devices_section([evil, evil])))
    assert "script" not in found.names and found.text.count("<script>alert(1)</script>") > 5
    assert not [name for name, _ in found.attributes if name.startswith("on")]


def test_points_lie_where_the_figures_say() -> None:
    series = [fields.Series("a", [(0.0, 10.0), (50.0, 30.0)], 1), fields.Series("b", [], 2)]
    svg = str(fields.lines(series, "s", "°C"))
    bottom, top = fields.TOP + fields.HEIGHT, fields.TOP
    assert f'class="dot k1" cx="{fields.LEFT:.2f}%" cy="{bottom:.1f}"' in svg
    assert f'class="dot k1" cx="100.00%" cy="{top:.1f}"' in svg and svg.count("curve") == 1
    assert [figure for _, figure in fields.Axis.over([0.0, 1.0], True).ticks()] == [
        "0.0",
        "0.2",
        "0.4",
        "0.6",
        "0.8",
        "1.0",
    ]
    assert "b: unavailable" in svg and "10.0 °C" in svg
    assert "unavailable" in str(fields.scatter([fields.Series("b", [(1.0, float("nan"))])], "MB", "tokens/s"))


@pytest.mark.parametrize(
    ("values", "zero", "expected"),
    [
        ([7.0, 93.0], True, (0, 100, 20)),
        ([45.2, 61.0], False, (45, 65, 5)),
        ([5.0], False, (5, 6, 1)),
        ([], True, (0, 1, 0.2)),
    ],
)
def test_axes_have_round_steps(values: list[float], zero: bool, expected: tuple[float, float, float]) -> None:
    axis = fields.Axis.over(values, zero)
    assert (axis.low, axis.high, axis.step) == pytest.approx(expected)
    assert axis.ticks()[0][0] == axis.low and axis.ticks()[-1][0] == pytest.approx(axis.high)
