"""`export`: the whole way from a checkpoint to a bundle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from smolship.export.checkpoints import Checkpoint, open_checkpoint
from smolship.export.config import only
from smolship.export.facts import Resolved
from smolship.export.output import check_output, check_space, new_bundle
from smolship.export.preflight import check_packages
from smolship.export.quantize import GROUPS
from smolship.export.targets import TARGETS
from smolship.export.weights import SCHEMES, Bits, Scheme, Weights
from smolship.export.worker import run_step
from smolship.runtime.bundle import Bundle, open_bundle
from smolship.runtime.errors import GateError, InputError, unknown
from smolship.runtime.judge import translation_checks
from smolship.runtime.manifest import Manifest, TargetEntry
from smolship.runtime.probes import Probes

Progress = Callable[[str, str, int, int], None]  # (step, what, done, total)
PACKAGES = ("smolship", "torch", "transformers", "coremltools", "executorch", "gguf", "onnx", "onnx-ir", "onnxruntime")
LOW_SHARE = 0.8  # below this share of 4-bit parameters an int4 export is hardly one


def export(
    model: str | Path,
    out: str | Path,
    *,
    to: Sequence[str] = ("executorch", "onnx"),
    quant: Literal["int4", "int8", "none"] = "int4",
    context: int = 2048,
    group_size: int = 32,
    embedding: Bits | None = None,
    head: Bits | None = None,
    revision: str | None = None,
    probe_tokens: int = 2048,
    probe_text: str | None = None,
    progress: Progress = lambda step, what, done, total: None,
) -> Bundle:
    """Export `model` (a folder, a .gguf file or a Hub id) to the bundle `out`.

    to           targets, by name
    quant        bits of the layers' linears; `embedding` (and a tied head) and `head` default to 8, or 16 for "none"
    context      tokens that the cache holds
    group_size   inputs that share an int4 scale: 32, 64 or 128
    probe_tokens positions of real text that parity is measured on; 0: no probes, and no parity
    probe_text   your own text for it

    An older bundle in `out` is replaced when the new one is complete, and not before. Raises InputError where the
    input cannot be used (all that headers and side files tell is asked first), SetupError where the machine falls
    short, and GateError, with nothing written, where our decoder differs from the original.
    """
    scheme = _scheme(quant, group_size, embedding, head)
    out = check_output(Path(out))
    targets = list(dict.fromkeys(to))
    if not targets or (strange := [name for name in targets if name not in TARGETS]):
        raise unknown("target", strange[0] if targets else "none", TARGETS)
    if probe_text is not None and not probe_tokens:
        raise InputError(
            "a text for probes, and no probes",
            got="--probe-text with --probe-tokens 0",
            todo="leave out one of the two",
        )
    check_packages(targets, probes=probe_tokens > 0)
    checkpoint = open_checkpoint(str(model), revision)
    source = {"model": str(checkpoint.path), "revision": None}
    said = run_step(
        "check",
        source
        | {
            "targets": targets,
            "scheme": asdict(scheme),
            "context": context,
            "tokens": probe_tokens,
            "text": probe_text,
        },
        lambda what, i, n: progress("check", what, i, n),
    ).result
    resolved = Resolved.from_json(said, checkpoint.config.vocab)
    check_space(out, checkpoint, scheme, targets)
    costs: dict[str, dict[str, Any]] = {}
    with new_bundle(out) as folder:
        work = folder / ".work"
        work.mkdir()

        def step(name: str, label: str, **arguments: Any) -> Any:
            done = run_step(name, source | arguments, lambda what, i, n: progress(label, what, i, n))
            costs[label] = {"seconds": round(done.seconds, 2), "peak_bytes": done.peak_bytes}
            return done.result

        step("quantize", "quantize", scheme=asdict(scheme), folder=str(work))
        weights = Weights(work)
        entries: dict[str, TargetEntry] = {}
        for name in targets:
            (folder / name).mkdir()
            made = step(
                "lower",
                f"lower {name}",
                target=name,
                context=context,
                weights=str(work),
                folder=str(folder / name),
                resolved=said,
            )
            entries[name] = TargetEntry(folder=name, **made)
            if entries[name].own_digest:
                shutil.copyfile(work / name / "weights.json", folder / f"weights-{name}.json")
        if probe_tokens:
            made = step(
                "probe",
                "probe",
                targets=targets,
                context=context,
                tokens=probe_tokens,
                text=probe_text,
                weights=str(work),
                path=str(folder / "probes.npz"),
                resolved=said,
            )
            resolved.notes.extend(made["notes"])
            _judge_translation(folder / "probes.npz")
        _side_files(folder, checkpoint, resolved)
        shutil.copyfile(work / "weights.json", folder / "weights.json")
        manifest = _manifest(
            checkpoint,
            resolved,
            str(model),
            revision,
            weights,
            scheme,
            quant,
            context,
            entries,
            costs,
            probed=probe_tokens > 0,
        )
        shutil.rmtree(work)
        manifest.write(folder)
    return open_bundle(out)


def _judge_translation(path: Path) -> None:
    """Raise GateError where our decoder does not say what the original says: no target could mend that."""
    for check in translation_checks(Probes.load(path)):
        if not check.passed:
            where = f"{check.what}{' at ' if check.at else ''}{check.at}"
            note = f"; {check.note}" if check.note else ""
            raise GateError(
                "our decoder does not say what the original says, so that this bundle would be wrong",
                got=f"a mean KL of {check.kl:.3g} over {check.positions:,} positions ({where}){note}",
                expected=f"at most {check.bound:.3g}: rounding alone",
                todo="report it with the checkpoint's config.json; nothing was written, an older bundle is as it was",
            )


def _scheme(quant: str, group: int, embedding: Bits | None, head: Bits | None) -> Scheme:
    if quant not in SCHEMES:
        raise unknown("quantization", quant, SCHEMES)
    if group not in GROUPS:
        raise InputError("unknown group size", got=group, expected=f"one of {GROUPS}")
    for bits in (embedding, head):
        if bits not in (None, 4, 8, 16):
            raise InputError("unknown number of bits", got=bits, expected="4, 8 or 16")
    base = SCHEMES[quant]
    return replace(base, group=group, embedding=embedding or base.embedding, head=head or base.head)


def _side_files(folder: Path, checkpoint: Checkpoint, resolved: Resolved) -> None:
    """config.json, tokenizer, chat template and generation config, as other tools look for them."""
    (folder / "config.json").write_text(json.dumps(checkpoint.raw, indent=1) + "\n")
    for name, content in resolved.files(checkpoint).items():
        (folder / name).write_bytes(content)


def _manifest(
    checkpoint: Checkpoint,
    resolved: Resolved,
    model: str,
    revision: str | None,
    weights: Weights,
    scheme: Scheme,
    quant: str,
    context: int,
    entries: dict[str, TargetEntry],
    costs: dict[str, dict[str, Any]],
    probed: bool,
) -> Manifest:
    config = checkpoint.config
    share = round(weights.share_at(4, config), 4)
    notes = list(resolved.notes)
    if not probed:
        notes.append("no probes (--probe-tokens 0): nothing has compared this bundle with the original")
    notes += [f"{name}: {note}" for name, entry in entries.items() for note in entry.info.pop("notes", [])]
    notes += [f"{name}: {entry.rerounded()}" for name, entry in entries.items() if entry.rerounded()]
    if scheme.linear == 4 and share < LOW_SHARE:
        notes.append(f"only {share:.0%} of the linear parameters are held at 4 bits: their widths do not divide by 32")
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return Manifest(
        model={
            "source": _source(model),
            "revision": revision,
            "architecture": config.architecture,
            "layers": len(config.layers),
            "hidden": config.hidden,
            "heads": only(mixer.heads for mixer in config.attentions),
            "kv_heads": only(mixer.kv_heads for mixer in config.attentions),
            "head_dim": only(mixer.head_dim for mixer in config.attentions),
            "vocab": config.vocab,
            "parameters": sum(_count(e.shape) for e in weights.entries.values()),
        },
        generation=resolved.facts,
        context=context,
        quantization={
            "name": quant,
            **asdict(scheme),
            "share_at_4_bits": share,
            "notes": notes,
            "lifted": sum(entry.origin == "lifted" for entry in weights.entries.values()),
        },
        weights_digest=weights.digest,
        weights_bytes=_bytes_per_token(weights, config.head),
        targets=entries,
        tools=versions,
        steps=costs,
    )


def _source(model: str) -> str:
    """A Hub id, or the name of a folder or file, whatever path leads there (`.`, `..`); in UTF-8, as JSON wants it."""
    path = os.path.abspath(model)  # noqa: PTH100 - Path.resolve would give the name behind a link
    return os.fsencode(Path(path).name or path).decode(errors="replace") if Path(model).exists() else model


def _count(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def _bytes_per_token(weights: Weights, head: str) -> int:
    """Weight bytes that one decoded token must read: all but the embedding's table, unless that is the head too."""
    total = 0
    for name, entry in weights.entries.items():
        if name == "embed" and head != "embed":
            continue
        total += _count(entry.shape) * entry.bits // 8
        total += 2 * _count(entry.shape) // entry.group if entry.group else 0
    return total
