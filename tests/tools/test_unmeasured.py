"""A check that could not be made is shown everywhere, fails nothing, and is no zero."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

from rich.console import Console

from smolship.runtime.judge import unmeasured
from smolship.tools.junit import write_junit
from smolship.tools.report.page import render
from smolship.tools.report.results import Results
from smolship.tools.tables import parity_table
from tests.tools.samples import CHECK, FAILING, manifest, parity

LEFT_OUT = unmeasured("engine", "simulated → cache's end", "the cache holds 40,960 tokens")
WORST = replace(FAILING, what="simulated → prefill, worst length", at="length 129", positions=1, error=float("nan"))


def shown(report) -> str:
    console = Console(width=200, record=True)
    console.print(parity_table(report))
    return console.export_text()


def test_in_the_table():
    lines = shown(parity(CHECK, LEFT_OUT)).splitlines()
    (line,) = [line for line in lines if "cache's end" in line]
    assert "unavailable" in line and "NaN" not in line and "0.00" not in line
    assert "PASS" in lines[1]


def test_the_table_says_where_the_worst_is():
    text = shown(parity(CHECK, WORST))
    assert "engine, prefill, worst length (length 129)" in text and "NaN" not in text
    assert "length 129" not in shown(parity(CHECK, replace(WORST, passed=True)))


def test_in_json_it_is_null():
    report = parity(CHECK, LEFT_OUT).to_dict()
    text = json.dumps(report, allow_nan=False)
    assert report["passed"] and json.loads(text)["checks"][1]["kl"] is None


def test_in_junit_it_is_skipped(tmp_path):
    write_junit(tmp_path / "junit.xml", [parity(CHECK, LEFT_OUT, WORST)])
    suite = ET.parse(tmp_path / "junit.xml").getroot().find("testsuite")
    assert {key: suite.get(key) for key in ("tests", "failures", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "skipped": "1",
    }
    _, left_out, worst = suite.findall("testcase")
    assert left_out.find("skipped").get("message") == "not measured: the cache holds 40,960 tokens"
    assert worst.find("failure").get("message").startswith("length 129: mean KL 0.0375 nats")


def test_in_the_page():
    page = render(Results(manifest(), [parity(CHECK, LEFT_OUT, replace(WORST, passed=True))]))
    assert "not measured: the cache holds 40,960 tokens" in page and "length 129" in page
    assert "NaN" not in page.replace("unavailable, NaN", "")  # which the legend explains
