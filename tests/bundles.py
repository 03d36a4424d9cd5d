"""Bundles that something was done to."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from smolship.export.checkpoints import Checkpoint, open_checkpoint
from smolship.export.config import DecoderConfig
from smolship.export.facts import resolve
from smolship.export.targets import Job, load_target
from smolship.export.weights import Scheme, Weights, write_weights
from smolship.runtime.manifest import read_manifest
from smolship.tools.cli import run
from tests.edit import double_scales_coreml, double_scales_gguf, double_scales_onnx, double_scales_pte


def sign(bundle: Path) -> None:
    """Write the manifest anew, as if the files had been exported as they are now."""
    read_manifest(bundle).write(bundle)


def job_of(checkpoint: Checkpoint, weights: Weights, context: int, config: DecoderConfig | None = None) -> Job:
    """What an export would have a target lower."""
    said = resolve(checkpoint)
    return Job(config or checkpoint.config, weights, context, said.side_files(checkpoint), said.facts)


@contextmanager
def weights_of(bundle: Path, model: Path) -> Iterator[Weights]:
    """The set of weights that the bundle was made of, made again."""
    manifest = read_manifest(bundle)
    quantization = manifest.quantization
    scheme = Scheme(**{f.name: getattr(quantization, f.name) for f in fields(Scheme)})
    checkpoint = open_checkpoint(str(model))
    with tempfile.TemporaryDirectory() as work:
        weights = write_weights(checkpoint, checkpoint.config, scheme, Path(work))
        assert weights.digest == manifest.weights_digest
        yield weights


def relower(bundle: Path, model: Path, target: str, config: DecoderConfig) -> None:
    """Lower one target of the bundle again, as `config` says instead of the model's own."""
    manifest = read_manifest(bundle)
    folder = bundle / manifest.targets[target].folder
    shutil.rmtree(folder)
    folder.mkdir()
    with weights_of(bundle, model) as weights:
        job = job_of(open_checkpoint(str(model)), weights, manifest.context, config)
        load_target(target).lower(job, folder)
    sign(bundle)


def double_scales(bundle: Path, model: Path, target: str, name: str) -> None:
    """Double every scale of the linear `name` inside the finished artifact, by editing its bytes."""
    with weights_of(bundle, model) as weights:
        if target == "executorch":
            double_scales_pte(bundle / "executorch" / "model.pte", weights, name)
        elif target == "coreml":
            double_scales_coreml(bundle / "coreml" / "model.mlpackage", weights, name)
        elif target == "gguf":
            double_scales_gguf(bundle / "gguf" / "model.gguf", weights, name)
        else:
            double_scales_onnx(bundle / "onnx", weights, name)
    sign(bundle)


def parity(bundle: Path, capsys: Any, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the reports of `smolship parity --json`."""
    code = run(["parity", str(bundle), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, to see that nothing changed."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
