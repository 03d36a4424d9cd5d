"""Bundles that something was done to."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from smolship.export.checkpoint import open_checkpoint
from smolship.export.config import DecoderConfig
from smolship.export.targets import Job, load_target
from smolship.export.weights import SCHEMES, Weights, write_weights
from smolship.runtime.manifest import read_manifest


def sign(bundle: Path) -> None:
    """Write the manifest anew, as if the files had been exported as they are now."""
    read_manifest(bundle).write(bundle)


def relower(bundle: Path, model: Path, target: str, config: DecoderConfig | None = None) -> None:
    """Lower one target of the bundle again, as `config` says instead of the model's own."""
    manifest = read_manifest(bundle)
    checkpoint = open_checkpoint(str(model))
    with tempfile.TemporaryDirectory() as work:
        weights: Weights = write_weights(
            checkpoint, checkpoint.config, SCHEMES[manifest.quantization["name"]], Path(work)
        )
        assert weights.digest == manifest.weights_digest
        folder = bundle / manifest.targets[target].folder
        shutil.rmtree(folder)
        folder.mkdir()
        load_target(target).lower(Job(config or checkpoint.config, weights, manifest.context, checkpoint.files), folder)
    sign(bundle)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, to see that nothing changed."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
