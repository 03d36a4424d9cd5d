"""A budget on the real model: its bytes are kept, all formats hold it, and the engines compute it."""

from __future__ import annotations

from pathlib import Path

import pytest

from smolship.export import export
from smolship.runtime.parity import parity
from smolship.runtime.readback.compare import compare


@pytest.mark.real
def test_a_mixed_set_of_smollm2(demo_model: Path, tmp_path: Path) -> None:
    targets = ["executorch", "onnx", "gguf"]
    bundle = export(demo_model, tmp_path / "b", to=targets, context=512, probe_tokens=1024, target_size="98MB")
    facts = bundle.manifest.quantization.budget
    assert facts and 97e6 < facts.bytes <= 98e6 and len(facts.forms) > 1 and 0 < facts.kl < 0.5
    assert not any(one.wrong for one in compare(bundle, targets))
    for target in targets:
        report = parity(bundle, target, quick=True)
        assert report.passed, (target, [check for check in report.checks if not check.passed])
