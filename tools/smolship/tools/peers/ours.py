"""Our own artifacts, exported as a user would: `smolship export MODEL --to TARGET`, without probes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smolship.runtime.session import Session

REQUIREMENTS: tuple[str, ...] = ()
OURS = True
VERSIONS = ("smolship", "executorch", "onnxruntime", "llama-cpp-python")
PACKAGES: tuple[str, ...] = ()


def export(source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    from smolship.export import export as run
    from smolship.runtime.artifact import artifact_files

    target = options["target"]
    bundle = run(
        source,
        folder / "bundle",
        to=[target],
        quant=options["quant"],
        context=options["context"],
        probe_tokens=0,
        cache=False,
    )
    entry = bundle.entry(target)
    files = artifact_files(bundle.path / entry.folder, entry.info)
    return {
        "files": [path.relative_to(folder).as_posix() for path in files],
        "peak_bytes": max(step.peak_bytes or 0 for step in bundle.manifest.steps.values()),
        "weights_digest": bundle.manifest.weights_digest,
    }


def open_session(folder: Path, options: dict[str, Any], threads: int) -> Session:
    from smolship.runtime.bundle import open_bundle

    return open_bundle(folder / "bundle").session(options["target"], threads)
