"""`export`: the whole way from a checkpoint to a bundle."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from smolship.export.bits.asked import ask_budget
from smolship.export.calibrate.asked import ask
from smolship.export.checkpoints import open_checkpoint
from smolship.export.forecast.asking import forecast_of, must_fit
from smolship.export.kept.store import open_store
from smolship.export.options import Options, scheme_of, source_name
from smolship.export.output import check_output, new_bundle
from smolship.export.preflight import check_targets
from smolship.export.record import make_manifest
from smolship.export.running import Progress, Steps, write_shared
from smolship.export.weights import Bits
from smolship.export.worker import run_step
from smolship.runtime.bundle import Bundle, open_bundle


def export(
    model: str | Path,
    out: str | Path,
    *,
    to: Sequence[str] = ("executorch", "onnx"),
    quant: Literal["int4", "int8", "none"] = "int4",
    context: int = 2048,
    group_size: int | None = None,
    embedding: Bits | None = None,
    head: Bits | None = None,
    revision: str | None = None,
    probe_tokens: int = 2048,
    probe_text: str | None = None,
    arm: bool = False,
    tokenizer: str | Path | None = None,
    calibrate: str | Path = "none",
    effort: str | None = None,
    seed: int | None = None,
    target_bpw: float | None = None,
    target_size: str | int | None = None,
    device: str | None = None,
    cache: bool = True,
    progress: Progress = lambda step, what, done, total: None,
) -> Bundle:
    """Export `model` (a folder, a .gguf file or a Hub id) to the bundle `out`.

    to           targets, by name
    quant        bits of the layers' linears; `embedding` (and a tied head) and `head` default to 8, or 16 for "none"
    context      tokens that the cache holds
    group_size   inputs that share an int4 scale: 32 (the default), 64 or 128
    probe_tokens positions of real text that parity is measured on; 0: no probes, and no parity
    probe_text   your own text for it
    arm          probes also hold how ONNX Runtime computes on Arm, so that parity is judged there
    tokenizer    a folder with the tokenizer of a checkpoint that brings none
    calibrate    "none"; "self": codes, scales and gains are brought nearer to the original on text that it writes
                 itself; or the path of a text, or of chats in JSONL (docs/weights.md). `effort`: "quick", "default" or
                 "best"; `seed` of what is drawn at random
    target_bpw   bits a parameter, or `target_size` bytes of weights, such as "90MB": each matrix gets the form that
                 this is best spent on, but for what `group_size`, `embedding` and `head` fix
    device       refuse a model that this device cannot hold: one of forecast/devices.py
    cache        take steps that an earlier export has done, and keep those that are done now (kept/); without it all
                 times in the manifest are of this run

    An older bundle in `out` is replaced when the new one is complete, and not before. Raises InputError where the
    input cannot be used (all that headers and side files tell is asked first), SetupError where the machine falls
    short, and GateError, with nothing written, where our decoder differs from the original or the `device` cannot hold
    the model.
    """
    scheme = scheme_of(quant, group_size, embedding, head)
    targets = tuple(dict.fromkeys(to))
    given = None if tokenizer is None else str(tokenizer)
    calibration, documents = ask(calibrate, effort, seed)
    options = Options(
        str(model),
        revision,
        targets,
        quant,
        scheme,
        context,
        probe_tokens,
        probe_text,
        arm,
        tokenizer=given,
        calibration=calibration,
        budget=ask_budget(target_bpw, target_size, quant, group_size, embedding, head),
    )
    if device is not None:
        must_fit(forecast_of(options, Path(out), device, progress))
    out = check_output(Path(out))
    check_targets(targets, probes=probe_tokens > 0)
    with open_store(cache) as store:
        step = Steps(run_step, open_checkpoint(str(model), revision, given), source_name(str(model)), store, progress)
        checked = step.check(options, out, documents)
        with new_bundle(out) as folder:
            work = folder / ".work"
            work.mkdir()
            chosen = step.bits(options, documents, checked.resolved, folder) if options.budget else None
            quantized, calibrated = step.quantize(scheme, work, chosen.forms if chosen else None), None
            if calibration:
                calibrated = step.calibrate(calibration, documents, checked.resolved, folder)
            write_shared(step.checkpoint, checked.resolved, folder)
            lowered = {name: step.lower(name, context, checked.resolved, folder) for name in targets}
            notes = step.probe(options, checked.resolved, folder) if probe_tokens else []
            shutil.rmtree(work)
            make_manifest(options, checked, quantized, lowered, notes, step.costs, calibrated, chosen).write(folder)
    return open_bundle(out)
