"""Weights of ours, exported as a user would, without probes. The GGUF artifact is the one that every row can be read
out of; all targets hold the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

REQUIREMENTS: tuple[str, ...] = ()
OURS = True
VERSIONS = ("smolship",)
FACTS = ("vocab", "kv_heads", "head_dim")  # of the model, for those who open sessions


def export(source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    from smolship.export import export as run

    asked = {name: value for name, value in options.items() if name not in FACTS}
    bundle = run(source, folder / "bundle", to=["gguf"], probe_tokens=0, cache=False, **asked)
    entry = bundle.entry("gguf")
    return {
        "files": [f"bundle/{entry.folder}/{entry.info['file']}", "bundle/weights.json"],
        "peak_bytes": max(step.peak_bytes or 0 for step in bundle.manifest.steps.values()),
        "weights_digest": bundle.manifest.weights_digest,
    }
