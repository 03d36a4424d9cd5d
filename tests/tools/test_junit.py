"""JUnit XML: it parses, counts and says why."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from smolship.tools.junit import write_junit
from tests.tools.samples import CHECK, FAILING, NOT_A_NUMBER, parity


def written(tmp_path, *reports) -> ET.Element:
    write_junit(tmp_path / "junit.xml", reports)
    return ET.parse(tmp_path / "junit.xml").getroot()


def test_suites_cases_and_counts(tmp_path):
    root = written(tmp_path, parity(), parity(CHECK, FAILING, target="executorch-xnnpack", found="layer 3"))
    assert {k: root.get(k) for k in ("tests", "failures", "errors", "time")} == {
        "tests": "5",
        "failures": "1",
        "errors": "0",
        "time": "122.500",
    }
    first, second = root.findall("testsuite")
    assert (first.get("name"), first.get("tests"), first.get("failures"), first.get("time")) == (
        "onnx-cpu",
        "3",
        "0",
        "61.250",
    )
    names = [case.get("name") for case in first.findall("testcase")]
    assert names[0] == "quantization: original → quantized" and len(set(names)) == 3
    assert second.findtext("system-out") == "layer 3"
    assert {p.get("name"): p.get("value") for p in second.iter("property")}["threads"] == "2"


def test_a_failure_carries_its_figures(tmp_path):
    root = written(tmp_path, parity(CHECK, FAILING, NOT_A_NUMBER))
    passed, failed, strange = root.iter("testcase")
    assert passed.find("failure") is None and "2.50e-10 ± 2.0e-11 nats" in passed.findtext("system-out")
    message = failed.find("failure").get("message")
    for figure in ("0.0375", "bound 2.20e-08", "floor 2.00e-10", "top-1 99.95 %", "2,048 positions"):
        assert figure in message
    assert failed.findtext("failure") == "a note"
    message = strange.find("failure").get("message")
    assert "NaN ± NaN" in message and "perplexity ratio unavailable" in message


def test_what_xml_cannot_hold_is_left_out(tmp_path):
    evil = "<a>&\x00\x1b[31m\ud800\"'"
    report = parity(FAILING, target=evil, bundle=evil, found=evil)
    suite = written(tmp_path, report).find("testsuite")
    assert suite.get("name").startswith("<a>&") and "\x1b" not in suite.get("name")
