"""The interpreter passes the operator tests that ship with coremltools."""

from __future__ import annotations

import pytest

from smolship.tools.coreml_ops import FAST, FILES, KNOWN, run_tests


def strange(counts):
    """Failures that the table does not explain."""
    return {name: text for name, text in counts.failed.items() if not any(part in name for part in KNOWN)}


def test_attention_states_and_products():
    counts = run_tests(FAST)
    assert counts.failed == {} and counts.unsupported == {}, counts
    assert counts.passed >= 75, counts


@pytest.mark.real
def test_all_that_concern_language_models():
    counts = run_tests(FILES)
    assert strange(counts) == {}, counts
    assert counts.passed >= 850, counts
