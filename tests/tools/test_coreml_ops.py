"""The interpreter passes the operator tests that ship with coremltools: a subset of them, which takes minutes all the
same. `python -m smolship.tools.coreml_ops` runs all that concern language models."""

from __future__ import annotations

import pytest

from smolship.tools.coreml_ops import FAST, run_tests


@pytest.mark.real
def test_attention_states_and_products():
    counts = run_tests(FAST)
    assert counts.failed == {} and counts.unsupported == {}, counts
    assert counts.passed >= 75, counts
