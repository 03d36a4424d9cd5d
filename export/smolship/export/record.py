"""What the manifest says of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata

from smolship.export.options import Options
from smolship.export.steps import Calibrated, Checked, Chosen, Lowered, Quantized
from smolship.runtime.manifest import Manifest, Quantization, StepCost

PACKAGES = ("smolship", "torch", "transformers", "coremltools", "executorch", "gguf", "onnx", "onnx-ir", "onnxruntime")
LOW_SHARE = 0.8  # below this share of 4-bit parameters an int4 export is hardly one


def make_manifest(
    options: Options,
    checked: Checked,
    quantized: Quantized,
    lowered: Mapping[str, Lowered],
    notes: list[str],
    costs: dict[str, StepCost],
    calibrated: Calibrated | None = None,
    chosen: Chosen | None = None,
) -> Manifest:
    """All but the list of files, which `Manifest.write` makes. `notes` are those of the probes."""
    return Manifest(
        model=checked.model,
        generation=checked.resolved.facts,
        context=options.context,
        quantization=Quantization(
            name=options.quant,
            **asdict(options.scheme) | _tables(chosen),
            share_at_4_bits=quantized.share_at_4_bits,
            notes=[*checked.resolved.notes, *notes, *_notes(options, quantized, lowered, chosen is not None)],
            lifted=quantized.lifted,
            calibration=calibrated.facts if calibrated else None,
            budget=chosen.facts if chosen else None,
        ),
        weights_digest=calibrated.digest if calibrated else quantized.digest,
        weights_bytes=quantized.bytes_per_token,
        targets={name: target.entry for name, target in lowered.items()},
        tools=versions(),
        steps=costs,
    )


def _tables(chosen: Chosen | None) -> dict[str, int]:
    """Bits that were chosen for the embedding and the head."""
    tables = {"embedding": "embed", "head": "head"}
    return {role: chosen.forms[name][0] for role, name in tables.items() if chosen and name in chosen.forms}


def _notes(options: Options, quantized: Quantized, lowered: Mapping[str, Lowered], mixed: bool) -> list[str]:
    notes, share = [], quantized.share_at_4_bits
    if not options.probe_tokens:
        notes.append("no probes (--probe-tokens 0): nothing has compared this bundle with the original")
    notes += [f"{name}: {note}" for name, target in lowered.items() for note in target.notes]
    notes += [f"{name}: {target.entry.weights}" for name, target in lowered.items() if target.entry.weights]
    if options.scheme.linear == 4 and share < LOW_SHARE and not mixed:
        notes.append(f"only {share:.0%} of the linear parameters are held at 4 bits: their widths do not divide by 32")
    return notes


def versions() -> dict[str, str]:
    """Of the packages that an export uses, where they are installed."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
