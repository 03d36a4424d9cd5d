"""Costs of steps in a manifest: what an older one does not say."""

from __future__ import annotations

import json
import shutil

from smolship.runtime.manifest import read_manifest


def test_a_manifest_without_parts_and_runs_is_read(tiny_bundle, tmp_path):
    bundle = shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "bundle")
    path = bundle / "manifest.json"
    raw = json.loads(path.read_text())
    assert raw["steps"]["probe"]["parts"]["original"] >= 0
    for cost in raw["steps"].values():
        del cost["parts"], cost["run"]
    path.write_text(json.dumps(raw))
    assert {(cost.parts, cost.run) for cost in read_manifest(bundle).steps.values()} == {(None, None)}
