"""The steps of an export: what each does. Each runs in a process of its own (worker.py), so that what it is given and
what it returns are JSON, and what it needs is imported when it begins.

forecast  says what an export would write and take (forecast/)
check     asks all that can be asked before the work
quantize  writes what targets share: the one set of weights
calibrate brings that nearer to the original, where it is asked for
lower     writes the artifact of one target
probe     runs the original and our decoder over real text, and compares them

`model` is the folder or file that the checkpoint lies in, `tokenizer` the folder of another tokenizer, where one was
given, `bundle` the folder of the bundle that is made, and `work` a folder in it for what does not stay. What else a
step is given is what it depends on: by that it is kept (kept/keys.py).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from smolship.export.facts import Resolved
from smolship.export.options import Options, source_name
from smolship.export.weights import Scheme
from smolship.runtime.facts import ModelFacts
from smolship.runtime.manifest import CalibrationFacts, TargetEntry
from smolship.runtime.records import read_record

Progress = Callable[[str, int, int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Checked:
    """What `check` returns."""

    model: ModelFacts
    resolved: Resolved


@dataclass(frozen=True)
class Quantized:
    """What `quantize` returns.

    share_at_4_bits  of the parameters of the layers' linears
    lifted           matrices that are as a GGUF file held them
    bytes_per_token  of the set, that one decoded token reads
    """

    digest: str
    share_at_4_bits: float
    lifted: int
    bytes_per_token: int


@dataclass(frozen=True)
class Calibrated:
    """What `calibrate` returns: the digest of the set, and what the manifest says of it."""

    digest: str
    facts: CalibrationFacts


@dataclass(frozen=True)
class Lowered:
    """What `lower` returns: the manifest's entry of the target, and what the user should know of it."""

    entry: TargetEntry
    notes: list[str]


@dataclass(frozen=True)
class Probed:
    """What `probe` returns: notes for the user, and the seconds that each part of the probes took."""

    notes: list[str]
    seconds: dict[str, float]


def read(kind: type[T], raw: Any) -> T:
    """A dataclass out of what a step was given or returned."""
    return read_record(kind, raw, "a step of the export")


def check(
    model: str, options: Any, out: str, progress: Progress, tokenizer: str | None = None, documents: Any = None
) -> Any:
    """Raises InputError with every problem, and SetupError where the disk has no room for a bundle in `out`.
    `documents` are the user's text to calibrate on, or None."""
    from smolship.export import preflight
    from smolship.export.calibrate.asked import window
    from smolship.export.calibrate.documents import check_documents
    from smolship.export.checkpoints import open_checkpoint
    from smolship.export.config import only
    from smolship.export.kept.keys import content
    from smolship.export.output import check_space

    asked, checkpoint = read(Options, options), open_checkpoint(model, tokenizer=tokenizer)
    tokens, text = asked.probe_tokens, asked.probe_text
    resolved = preflight.check(
        checkpoint, asked.targets, asked.scheme, asked.context, progress, tokens=tokens, text=text
    )
    if asked.calibration and documents is not None:
        length, windows = window(checkpoint.config), asked.calibration.amount.windows
        check_documents(documents, checkpoint, resolved, length, windows, asked.calibration.seed)
    check_space(Path(out), checkpoint, asked, resolved.side_files(checkpoint))
    config = checkpoint.config
    alike = () if config.convolutions else config.attentions  # a layer that convolves has no heads
    facts = ModelFacts(
        source=source_name(asked.model),
        revision=asked.revision,
        architecture=config.architecture,
        layers=len(config.layers),
        hidden=config.hidden,
        heads=only(mixer.heads for mixer in alike),
        kv_heads=only(mixer.kv_heads for mixer in alike),
        head_dim=only(mixer.head_dim for mixer in alike),
        vocab=config.vocab,
        parameters=sum(map(math.prod, config.shapes().values())),
        checkpoint=content(checkpoint, progress),
    )
    return asdict(Checked(facts, resolved))


def quantize(model: str, scheme: Any, folder: str, progress: Progress, tokenizer: str | None = None) -> Any:
    """Write the one set of weights, and its list, to `folder`."""
    from smolship.export.checkpoints import open_checkpoint
    from smolship.export.traffic import bytes_per_token, set_bytes
    from smolship.export.weights import write_weights

    checkpoint = open_checkpoint(model, tokenizer=tokenizer)
    weights = write_weights(checkpoint, checkpoint.config, read(Scheme, scheme), Path(folder), progress)
    return asdict(
        Quantized(
            weights.digest,
            round(weights.share_at(4, checkpoint.config), 4),
            sum(entry.origin == "lifted" for entry in weights.entries.values()),
            bytes_per_token(checkpoint.config, weights, set_bytes),
        )
    )


def calibrate(
    model: str,
    calibration: Any,
    resolved: Any,
    documents: Any,
    folder: str,
    kept: str | None,
    progress: Progress,
    tokenizer: str | None = None,
) -> Any:
    """Write what differs from the set in `folder` beside it. What is done is kept in the folder `kept` on the way, and
    found there."""
    from smolship.export.calibrate.asked import Calibration
    from smolship.export.calibrate.state import State
    from smolship.export.calibrate.step import calibrate as run
    from smolship.export.checkpoints import open_checkpoint
    from smolship.export.weights import CALIBRATED, Weights

    weights, facts = run(
        open_checkpoint(model, tokenizer=tokenizer),
        read(Resolved, resolved),
        Weights(Path(folder)),
        read(Calibration, calibration),
        documents,
        Path(folder, CALIBRATED),
        State(None if kept is None else Path(kept)),
        progress,
    )
    return asdict(Calibrated(weights.digest, facts))


def lower(
    model: str,
    target: str,
    context: int,
    resolved: Any,
    work: str,
    bundle: str,
    folder: str,
    progress: Progress,
    tokenizer: str | None = None,
) -> Any:
    """Write the artifact of `target` to `folder`. Its set of weights, where that is its own, goes to `work`, and the
    list of it to the bundle."""
    from smolship.export.checkpoints import open_checkpoint
    from smolship.export.forecast.sizes import kept_bytes
    from smolship.export.rerounding import make_weights_for
    from smolship.export.targets import Job, load_target
    from smolship.export.traffic import bytes_per_token
    from smolship.export.weights import open_set

    generation, checkpoint, module = (
        read(Resolved, resolved),
        open_checkpoint(model, tokenizer=tokenizer),
        load_target(target),
    )
    config = checkpoint.config
    weights, own = make_weights_for(module, config, open_set(Path(work)), Path(work, target), progress)
    if own:
        shutil.copyfile(Path(work, target, "weights.json"), Path(bundle, f"weights-{target}.json"))
    job = Job(config, weights, context, generation.side_files(checkpoint), generation.facts, progress)
    info = module.lower(job, Path(folder))
    notes = info.pop("notes", [])
    count = bytes_per_token(config, weights, module.stored_bytes)
    cache = kept_bytes(config, context, target)
    entry = TargetEntry(module.NAME, module.ENGINE, target, info, own, count, cache)
    return {"entry": entry.to_json(), "notes": notes}


def probe(
    model: str,
    targets: Any,
    context: int,
    tokens: int,
    text: str | None,
    arm: bool,
    resolved: Any,
    work: str,
    path: str,
    kept: str | None,
    progress: Progress,
    tokenizer: str | None = None,
) -> Any:
    """Write the golden probes to `path`. Parts of them are kept in the folder `kept`, and found there.
    Raises GateError where our decoder differs from the original."""
    from smolship.export.checkpoints import open_checkpoint
    from smolship.export.probe import DATE, make_probes
    from smolship.export.rerounding import weights_for
    from smolship.export.targets import load_target
    from smolship.export.translation import check_translation
    from smolship.export.weights import open_set

    generation, checkpoint, weights = (
        read(Resolved, resolved),
        open_checkpoint(model, tokenizer=tokenizer),
        open_set(Path(work)),
    )
    own = {
        name: weights_for(load_target(name), checkpoint.config, weights, Path(work, name), progress) for name in targets
    }
    numerics: dict[str, Any] = {}
    for name in targets:
        target = load_target(name)
        numerics[name] = target.numerics(own[name])
        for other, how in getattr(target, "OTHER_ARITHMETICS", {}).items():
            numerics[f"{name}.{other}"], own[f"{name}.{other}"] = partial(_alike, how), own[name]
        for other, made in getattr(target, "ON_ARM", {}).items() if arm else ():
            numerics[f"{name}.{other}"], own[f"{name}.{other}"] = made(own[name]), own[name]
    notes: list[str] = []
    probes = make_probes(
        checkpoint,
        weights,
        numerics,
        context,
        tokens,
        text,
        progress,
        own,
        generation.chat_template(DATE),
        notes,
        kept=None if kept is None else Path(kept),
        translated=check_translation,
    )
    seconds = probes.facts.pop("seconds")
    probes.save(Path(path))
    return asdict(Probed(notes, seconds))


def _alike(numerics: Any, linear: str) -> Any:
    """The numerics of an engine that computes every linear alike."""
    return numerics


def forecast(model: str, options: Any, device: str | None, progress: Progress, tokenizer: str | None = None) -> Any:
    """A forecast of this export, as JSON."""
    from smolship.export.forecast.step import forecast

    return forecast(model, options, device, progress, tokenizer)


STEPS: dict[str, Callable[..., Any]] = {
    "forecast": forecast,
    "check": check,
    "quantize": quantize,
    "calibrate": calibrate,
    "lower": lower,
    "probe": probe,
}
