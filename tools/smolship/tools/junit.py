"""Parity as JUnit XML, which every CI system shows: a test suite a target, a test case a check."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from smolship.runtime.errors import clip
from smolship.runtime.parity import Check, ParityReport
from smolship.tools.outputs import write_file
from smolship.tools.units import decimals, interval, limit, number, share


def write_junit(path: Path, reports: Sequence[ParityReport]) -> None:
    """Write the checks of all reports to `path`. A NaN fails its check, so it is a failure here too."""
    root = ET.Element(
        "testsuites",
        _counts("smolship parity", [c for r in reports for c in r.checks], sum(report.seconds for report in reports)),
    )
    root.extend(_suite(report) for report in reports)
    ET.indent(root)
    write_file(path, ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n", "the JUnit file")


def _suite(report: ParityReport) -> ET.Element:
    name = clip(report.target)  # clip: XML 1.0 has no way to write a control character
    suite = ET.Element("testsuite", _counts(name, report.checks, report.seconds))
    properties = ET.SubElement(suite, "properties")
    for key in ("bundle", "engine", "weights_digest", "host", "threads", "quick", "depth", "context"):
        ET.SubElement(properties, "property", name=key, value=clip(getattr(report, key)))
    suite.extend(_case(check, name) for check in report.checks)
    if report.found:
        ET.SubElement(suite, "system-out").text = clip(report.found)
    return suite


def _case(check: Check, target: str) -> ET.Element:
    """No time of its own: the checks of a target share their forward passes, and an invented one would be wrong."""
    case = ET.Element("testcase", classname=f"smolship.parity.{target}", name=clip(f"{check.stage}: {check.what}"))
    if not check.positions:
        ET.SubElement(case, "skipped", message=clip(check.note))
        return case
    figures = (f"{clip(check.at)}: " if check.at else "") + _figures(check)
    if check.passed:
        ET.SubElement(case, "system-out").text = clip(f"{figures} {check.note}".strip())
    else:
        failure = ET.SubElement(case, "failure", type=clip(check.stage), message=clip(figures))
        failure.text = clip(check.note) or None
    return case


def _figures(check: Check) -> str:
    if check.exact:
        return f"{share(check.top1)} of {check.positions:,} texts are equal"
    return (
        f"mean KL {interval(check)} nats, bound {limit(check.bound)}, floor {limit(check.floor)}, "
        f"p99 {number(check.p99)}, max {number(check.max)}, top-1 {share(check.top1)}, "
        f"perplexity ratio {decimals(check.perplexity_ratio, 4)}, lowest cosine {decimals(check.cosine, 6)}, "
        f"largest difference {number(check.max_abs)}, {check.positions:,} positions"
    )


def _counts(name: str, checks: Sequence[Check], seconds: float) -> dict[str, str]:
    failed, skipped = sum(not check.passed for check in checks), sum(not check.positions for check in checks)
    return {
        "name": name,
        "tests": str(len(checks)),
        "failures": str(failed),
        "errors": "0",
        "skipped": str(skipped),
        "time": f"{seconds:.3f}",
    }
