"""The report page, the terminal's tables and the figures in them."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from smolship.runtime.manifest import ListedFile, StepCost
from smolship.runtime.memory import Memory
from smolship.runtime.readback.compare import EQUAL, Comparison
from smolship.runtime.readback.hashing import Entry
from smolship.tools import units
from smolship.tools.measure import Answer
from smolship.tools.onehot import Verdict
from smolship.tools.report import plots
from smolship.tools.report.page import write_report
from smolship.tools.report.results import Results
from smolship.tools.tables import bench_table, manifest_table, parity_table
from tests.tools.samples import CHECK, FAILING, NAN, NOT_A_NUMBER, bench, manifest, parity

EVIL = "<script>alert(1)</script>\" onload='x' \ud800\u202e"


class Page(HTMLParser):
    """Every element by name, its attributes, and the text outside of <style>; unclosed elements are an error."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, html: str):
        super().__init__()
        self.names, self.attributes, self.open, self.text = [], [], [], ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def page(tmp_path: Path, *arguments) -> Page:
    write_report(tmp_path / "report.html", Results(*arguments))
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def shown(table, width: int = 100) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    return text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unavailable"),
        (NAN, "NaN"),
        (math.inf, "∞"),
        (0.0, "0"),
        (3.1e-11, "3.10e-11"),
        (0.00096, "9.60e-04"),
        (0.0132, "0.0132"),
        (0.25, "0.250"),
        (99.96, "100"),
        (999.7, "1,000"),
        (134_515_008, "134,515,008"),
        (1234.5, "1,234"),
        ("<b>", "<b>"),
        (True, "True"),
        ([1], "[1]"),
        (2e18, "2.00e+18"),
        (10**400, "1" + 118 * "0" + "…"),
    ],
)
def test_numbers(value, text):
    assert units.number(value) == text


def test_sizes_and_shares_never_flatter():
    assert [units.size(v) for v in (None, 12, 400_000, 97.4e6, 1.93e9)] == [
        "unavailable",
        "12 B",
        "400 kB",
        "97.4 MB",
        "1.93 GB",
    ]
    assert units.share(0.999999) == "99.99 %"
    assert [units.number(v, digits=2) for v in (123.4, 12.34, 0.0123)] == ["123", "12", "0.012"]
    assert [units.share(v) for v in (1.0, 0.9951, 0, None, NAN)] == [
        "100.00 %",
        "99.51 %",
        "0.00 %",
        "unavailable",
        "NaN",
    ]


def test_a_good_report_holds_what_was_measured(tmp_path):
    said = {"onnx": Answer("Why?", "Because.\n\nReally.")}
    found = page(tmp_path, manifest(), [parity()], [bench(), bench("executorch")], said)
    for figure in (
        "PASS",
        "3 checks, none above its bound",
        "a/model",
        "int4, groups of 32",
        "100.00 %",
        "97.4 MB",
        "6.41 s",
        "410 MB",
        "0.253 ± 0.0080",
        "2.50e-10 ± 2.0e-11",
        "75.34 %",
        "1.0001",
        "0.999998",
        "reported",
        "token 8",
        "never",
        "71.4",
        "13.80 / 15.10 / 19.90 ms",
        "executorch, after 1,024 tokens",
        "Because.\n\nReally.",
    ):
        assert figure in found.text, figure
    assert "FAIL" not in found.text
    assert found.names.count("circle") == 3 + 2 * 4  # three checks; two curves over four layers


def test_the_weights_that_were_read_back(tmp_path):
    entries = {f"layers.{i}.q": Entry((64, 64), 4, 32, "quantized", "") for i in range(3)}
    held = [Comparison(name, entries, dict.fromkeys(entries, EQUAL)) for name in ("onnx", "gguf")]
    good = page(tmp_path, manifest(), [parity()], [], {}, held)
    for text in ("PASS", "EQUAL", "layers.0–2.q", "64×64", "int4/32", "quantized"):
        assert text in good.text, text
    held[1].found["layers.1.q"] = f"1 code {EVIL}"
    # The checks of parity pass, and yet.
    bad = page(tmp_path, manifest(), [parity()], [], {}, held, [Verdict("onnx", "head", NAN)])
    for text in (
        "FAIL",
        "the weights differ",
        "DIFFER",
        "gguf: layers.1.q: 1 code <script>",
        "differs",
        "onnx: the engine reveals another head",
    ):
        assert text in bad.text, text
    assert "script" not in bad.names and "3 checks" not in bad.text


def test_the_page_needs_nothing_but_itself(tmp_path):
    found = page(tmp_path, manifest(), [parity()], [bench()], {})
    assert not {"script", "link", "img", "iframe", "object"} & set(found.names)
    assert not {"src", "href", "xlink:href"} & {name for name, _ in found.attributes}
    assert not re.search(r"url\(|@import|https?:", (tmp_path / "report.html").read_text())


def test_what_a_bundle_says_is_never_markup(tmp_path):
    facts = manifest(EVIL, name=EVIL, notes=[EVIL])
    facts.tools, facts.steps = {EVIL: EVIL}, {EVIL: StepCost(1.0, None)}
    facts.targets["onnx"].target = facts.targets["onnx"].info["file"] = EVIL
    facts.model = replace(facts.model, architecture=EVIL, revision=EVIL)
    report = parity(FAILING, target=EVIL, found=EVIL, host=EVIL)
    report.checks[0].what = report.checks[0].note = EVIL
    found = page(tmp_path, facts, [report], [bench(EVIL)], {EVIL: Answer(EVIL, EVIL)})
    assert "script" not in found.names
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert found.text.count("<script>alert(1)</script>") > 10
    assert "[red]" in shown(manifest_table(manifest("[red]x[/red]"), Path("b")))


def test_a_bundle_that_says_little_is_shown_all_the_same(tmp_path):
    facts = manifest()
    facts.model, facts.files = replace(facts.model, source="", parameters=10**400), {}
    facts.weights_bytes, facts.steps = 10**400, {"probe": StepCost(0.0, None)}
    found = page(tmp_path, facts, [], [])
    assert "NOT MEASURED" in found.text and "PASS" not in found.text
    assert found.text.count("unavailable") >= 8
    assert shown(manifest_table(facts, Path("b"))).count("unavailable") == 2  # the target's size, and the step's memory


def test_a_failing_check_is_seen(tmp_path):
    found = page(tmp_path, manifest(), [parity(CHECK, FAILING, found="it begins at layer 3")], [bench()])
    for text in ("1 of 2 checks failed", "it begins at layer 3", "0.0375", "a note"):
        assert text in found.text
    classes = [value for name, value in found.attributes if name == "class"]
    assert "verdict bad" in classes and classes.count("bad") == 1 and "row bad" in classes and "dot bad" in classes
    assert "PASS" not in found.text
    table = parity_table(parity(CHECK, FAILING))
    assert "FAIL, 1 of 2 checks" in shown(table)
    assert [row.style for row in table.rows] == ["", "red"]


def test_nan_and_unmeasured_are_never_zero(tmp_path):
    silent = bench(
        cold_load_ms=None,
        weight_bytes_per_token=None,
        memory=Memory(None, None, None),
        cpu=None,
        memory_before_load=Memory(None, None, None),
    )
    found = page(tmp_path, manifest(), [parity(NOT_A_NUMBER)], [silent])
    assert "NaN ± NaN" in found.text and "1 of 1 checks failed" in found.text
    assert "processor unavailable" in found.text
    assert "circle" not in (tmp_path / "report.html").read_text().split("</figure>")[0]  # NaN has no place on the axis
    terminal = shown(parity_table(parity(NOT_A_NUMBER))) + shown(bench_table([silent]))
    assert "NaN ± NaN" in terminal and "unavailable" in terminal
    for text in (found.text, terminal):
        assert not re.search(r"(?<![\d.,e-])0(\.0+)? (MB|GB|GB/s|ms)", text)


def test_engines_stand_side_by_side():
    text = shown(bench_table([bench(), bench("executorch", decode_tokens_per_s=bench().prefill_tokens_per_s)]))
    assert re.search(r"onnx +executorch", text)
    assert re.search(r"decode after 1,?024 tokens.*58\.2 tokens/s.*unavailable", text)


def test_manifest_table_counts_the_target_s_own_files():
    text = shown(manifest_table(manifest(), Path("build/demo")))
    for figure in ("build/demo", "97.4 MB", "6.41 s", "410 MB", "peak memory unavailable", "88.1 MB", "134,515,008"):
        assert figure in text


def test_whether_apps_render_the_template_is_said(tmp_path):
    facts = manifest()
    listed = facts.files | {"template.json": ListedFile(1, "")}
    for files, words in ((facts.files, "apps cannot render it: no template.json"), (listed, "apps render it")):
        facts.files = files
        assert words in " ".join(shown(manifest_table(facts, Path("b"))).split())
        assert words in page(tmp_path, facts, [], []).text
    facts.generation = replace(facts.generation, template=None)
    assert "apps" not in shown(manifest_table(facts, Path("b")))


def test_log_axis():
    axis = plots.LogAxis.over([3e-10, 0.25, 0.0, None, NAN, math.inf])
    assert (axis.low, axis.high) == (-10, 0)
    assert [round(axis.at(v)) for v in (0, 1e-12, 1e-10, 1e-5, 1, 7)] == [0, 0, 0, 50, 100, 100]
    assert plots.LogAxis.over([1e-3]) == plots.LogAxis(-3, -2)
    assert plots.LogAxis.over([]) == plots.LogAxis(-1, 0)


def test_marks_lie_where_the_figures_say():
    mark = plots.Mark("a", "t", value=1e-2, low=1e-3, high=1e-1, floor=1e-3, bound=1.0, failed=False)
    svg = str(plots.dots([mark, plots.Mark("b", "0", 0.0, 0.0, 0.0, None, None, False)]))
    assert re.search(r'class="dot good" cx="33.33%"', svg)
    assert re.search(r'class="bound" x1="100.00%"', svg) and re.search(r'class="floor" x1="0.00%"', svg)
    assert re.search(r'class="whisker good" x1="0.00%" x2="66.67%"', svg)
    assert re.search(r'class="dot good off" cx="0.00%"', svg)
    drawn = str(plots.bars([plots.Bar("a", 50.0), plots.Bar("b", 100.0, 90.0, 125.0), plots.Bar("c", None)]))
    assert re.findall(r'class="bar k0" width="([\d.]+)%"', drawn) == ["40.00", "80.00"]
    assert "unavailable" in drawn
