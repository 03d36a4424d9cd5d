"""`add_targets`: more targets for a bundle that is there, from the same checkpoint and with the same options."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from smolship.export import pipeline
from smolship.export.calibrate.asked import SELF, Calibration, ask
from smolship.export.calibrate.documents import Document
from smolship.export.checkpoints import open_checkpoint
from smolship.export.facts import Resolved
from smolship.export.kept.store import link, open_store
from smolship.export.options import Options
from smolship.export.output import check_output, new_bundle
from smolship.export.preflight import check_targets
from smolship.export.record import make_manifest, versions
from smolship.export.running import Progress, Steps, write_shared
from smolship.export.steps import Checked, Chosen, Lowered
from smolship.export.targets import TARGETS
from smolship.export.weights import Scheme, Weights
from smolship.export.windows import make_windows
from smolship.runtime.bundle import PROBES, Bundle, open_bundle
from smolship.runtime.engines import BY_PROCESSOR
from smolship.runtime.errors import InputError, unknown
from smolship.runtime.files import sha256
from smolship.runtime.manifest import Manifest, StepCost
from smolship.runtime.readback.compare import expected
from smolship.runtime.template import PROGRAM

ON_ARM = set(BY_PROCESSOR["onnx"].values())
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
AGAIN = "export all its targets again: smolship export MODEL --to … -o DIR"


def add_targets(
    out: str | Path,
    to: Sequence[str],
    *,
    model: str | Path | None = None,
    revision: str | None = None,
    probe_text: str | None = None,
    tokenizer: str | Path | None = None,
    calibrate: str | Path | None = None,
    cache: bool = True,
    progress: Progress = lambda step, what, done, total: None,
) -> Bundle:
    """Add targets to the bundle `out`. What it holds already stays, byte for byte; its probes are made for all targets.

    model        the checkpoint that the bundle was exported from; needed unless that was a Hub id, as a bundle does not
                 say where a folder or file lies. `revision` is of a Hub id
    probe_text   the text of the bundle's probes, where that was not the default
    tokenizer    the folder of the tokenizer, where one was given
    calibrate    the text that it was calibrated on, where that was not its own
    cache        as for `export`: parts of the probes that were kept are not measured again

    Raises as `export` does, and InputError where the checkpoint is not the bundle's, a target is there already, or the
    bundle was altered. It is replaced when the new one is complete, and not before.
    """
    out, new = check_output(Path(out)), tuple(dict.fromkeys(to))
    bundle = open_bundle(out)
    progress("verify", "the bundle's files", 0, 1)
    bundle.verify()
    progress("verify", "", 1, 1)
    old = bundle.manifest
    source, revision = _source(old, model, revision)
    probed = PROBES in old.files
    _check_targets(old, new, probed)
    given = None if tokenizer is None else str(tokenizer)
    calibration, documents = _calibration(old, calibrate)
    options = replace(_options(bundle, source, revision, new, probe_text), tokenizer=given, calibration=calibration)
    with open_store(cache) as store:
        step = Steps(pipeline.run_step, open_checkpoint(source, revision, given), old.model.source, store, progress)
        checked = step.check(options, out, documents)
        if options.probe_text is not None:
            _check_text(bundle, options)
        checked = Checked(
            replace(checked.model, source=old.model.source, revision=old.model.revision), checked.resolved
        )
        _check_model(old, checked, step)
        with new_bundle(out) as folder:
            work = folder / ".work"
            work.mkdir()
            chosen = _chosen(bundle)
            quantized, calibrated = step.quantize(options.scheme, work, chosen.forms if chosen else None), None
            if calibration:
                calibrated = step.calibrate(calibration, documents, checked.resolved, folder)
            digest = calibrated.digest if calibrated else quantized.digest
            if digest != old.weights_digest:
                raise _differs("the weights", digest, old.weights_digest, "another version made them")
            write_shared(step.checkpoint, checked.resolved, folder)
            if PROGRAM in old.files:  # another version of jinja may parse the template to another tree
                (folder / PROGRAM).unlink(missing_ok=True)
            carried = _carry(old, out, folder)
            lowered = {name: step.lower(name, options.context, checked.resolved, folder) for name in new}
            arm = probed and not ON_ARM.isdisjoint(bundle.probes().arithmetics("onnx"))
            every = replace(options, targets=(*old.targets, *new), arm=arm)
            notes = step.probe(every, checked.resolved, folder) if probed else []
            _check_own(old, work)
            shutil.rmtree(work)
            costs = _costs(old, new, step.costs)
            manifest = make_manifest(
                every, checked, quantized, _lowered(old) | lowered, notes, costs, calibrated, chosen
            )
            notes = manifest.quantization.notes
            notes += _other_versions(old, new, notes)
            manifest.write(folder)
            if altered := [name for name in carried if manifest.files[name] != old.files[name]]:
                raise _altered(altered)
    return open_bundle(out)


def _source(old: Manifest, model: str | Path | None, revision: str | None) -> tuple[str, str | None]:
    """The model to open, and its revision."""
    if old.model.checkpoint is None:
        raise InputError(
            "the bundle does not say which checkpoint it was made from",
            got="no model.checkpoint in manifest.json: an older version of smolship wrote it",
            todo=AGAIN,
        )
    if model is not None:
        return str(model), revision or (old.model.revision if str(model) == old.model.source else None)
    if not HUB_ID.fullmatch(old.model.source):
        raise InputError(
            "no model to make the targets from",
            got=f"{old.model.source!r}, which the bundle was made from: a folder or file, somewhere",
            expected="its path",
            todo="smolship export PATH --add … -o DIR",
        )
    return old.model.source, revision or old.model.revision


def _check_targets(old: Manifest, new: Sequence[str], probed: bool) -> None:
    if strange := [name for name in old.targets if name not in TARGETS]:
        raise unknown("target in the bundle", strange[0], TARGETS)
    check_targets(new, probed)
    if there := [name for name in new if name in old.targets]:
        raise InputError(
            "the bundle holds that target already",
            got=", ".join(there),
            expected="one of " + (", ".join(name for name in TARGETS if name not in old.targets) or "none: it has all"),
            todo="leave it out; with other options, export the bundle again",
        )


def _options(bundle: Bundle, source: str, revision: str | None, new: tuple[str, ...], text: str | None) -> Options:
    """Those that the bundle was exported with, for the new targets."""
    old = bundle.manifest
    tokens: Any = 0
    own = False
    if PROBES in old.files:
        probes = bundle.probes()
        tokens, own = probes.facts.get("tokens"), {window.kind for window in probes.windows} == {"text"}
        if type(tokens) is not int or tokens < 1:
            raise InputError("the probes do not say how many tokens were asked for", got=tokens, todo=AGAIN)
    if own and text is None:
        raise InputError(
            "the bundle's probes are of a text of their own, which it does not hold",
            got="no text",
            expected="the same as before",
            todo="give it: --probe-text FILE",
        )
    if text is not None and tokens and not own:
        raise InputError(
            "the bundle's probes are of the default text",
            got="another one",
            todo="leave out --probe-text, or export the bundle again with it",
        )
    scheme = Scheme(**{one.name: getattr(old.quantization, one.name) for one in fields(Scheme)})
    return Options(source, revision, new, old.quantization.name, scheme, old.context, tokens, text)


def _chosen(bundle: Bundle) -> Chosen | None:
    """The forms that a budget has chosen, out of the list of the weights; None where there was none."""
    facts = bundle.manifest.quantization.budget
    if facts is None:
        return None
    mixed = {name: (e.bits, e.group) for name, e in expected(bundle).items() if e.bits < 16 and e.origin != "lifted"}
    return Chosen(dict(mixed), facts)


def _calibration(old: Manifest, text: str | Path | None) -> tuple[Calibration | None, list[Document] | None]:
    """As the bundle's weights were calibrated, and the documents of a text of the user's."""
    facts = old.quantization.calibration
    own = facts is not None and facts.sha256 is not None
    if text is not None and not own:
        raise InputError(
            "the bundle was calibrated on no text of yours",
            got="--calibrate",
            expected="nothing: it is done again as it was",
            todo="leave it out, or export the bundle again with it",
        )
    if facts is None:
        return None, None
    if own and text is None:
        raise InputError(
            "the bundle was calibrated on a text that it does not hold",
            got="no text",
            expected="the same as before",
            todo="give it: --calibrate FILE",
        )
    asked, documents = ask(SELF if text is None else text, facts.effort, facts.seed)
    if asked is None or asked.sha256 != facts.sha256:
        raise InputError(
            "not the text that the bundle was calibrated on", got=f"--calibrate {text}", todo="give that text"
        )
    return asked, documents


def _check_text(bundle: Bundle, options: Options) -> None:
    """Whether the text is that of the bundle's probes."""
    windows = make_windows(bundle.tokenizer, options.context, options.probe_tokens, options.probe_text)
    before = [window.ids for window in bundle.probes().windows]
    if len(windows) != len(before) or not all(map(np.array_equal, before, (window.ids for window in windows))):
        raise InputError("not the text that the bundle's probes are of", got="--probe-text", todo="give that text")


def _check_model(old: Manifest, checked: Checked, step: Steps) -> None:
    """Refuses another checkpoint, and other side files: what is lowered now would not go with what is there."""
    if checked.model.checkpoint != old.model.checkpoint:
        raise _differs("the checkpoint", checked.model.checkpoint, old.model.checkpoint, "name the one that it is from")
    if wrong := _other_files(old, checked.resolved, step):
        raise InputError(
            "the checkpoint's side files are not the bundle's",
            got=f"{', '.join(wrong)} in {step.checkpoint.path}",
            expected="files as they were when the bundle was exported",
            todo=f"put them back; or {AGAIN}",
        )


def _other_files(old: Manifest, resolved: Resolved, step: Steps) -> list[str]:
    files = resolved.side_files(step.checkpoint)
    wrong = [
        name
        for name, content in files.items()
        if name not in old.files or old.files[name].sha256 != hashlib.sha256(content).hexdigest()
    ]
    return wrong or ([] if resolved.facts == old.generation else ["what they say of generating"])


def _differs(what: str, got: object, expected: object, todo: str) -> InputError:
    return InputError(
        f"{what}: not the bundle's", got=f"digest {str(got)[:16]}…", expected=f"{str(expected)[:16]}…", todo=todo
    )


def _carry(old: Manifest, out: Path, folder: Path) -> list[str]:
    """Bring what stays into the new bundle; the names. The old bundle goes when the new one takes its place, so that
    two never share a file for longer."""
    names = [name for name in old.files if name != PROBES and not (folder / name).exists()]
    for name in names:
        link(out / name, folder / name)
    shared = [name for name in old.files if name != PROBES and name not in names]
    if altered := [name for name in shared if sha256(folder / name) != old.files[name].sha256]:
        raise _altered(altered)
    return names


def _altered(names: list[str]) -> InputError:
    return InputError(
        "files of the bundle are not what they were",
        got=", ".join(names[:5]),
        expected="files as in its manifest",
        todo=AGAIN,
    )


def _lowered(old: Manifest) -> dict[str, Lowered]:
    """The targets that are there, with their notes, which the manifest has among its own."""
    found = {}
    for name, entry in old.targets.items():
        notes = [note.removeprefix(f"{name}: ") for note in old.quantization.notes if note.startswith(f"{name}: ")]
        found[name] = Lowered(entry, [note for note in notes if note != entry.rerounded()])
    return found


def _check_own(old: Manifest, work: Path) -> None:
    """Whether the sets that were rounded again for the probes of older targets are those that these hold."""
    for name, entry in old.targets.items():
        if entry.weights and (work / name).exists():
            digest = Weights(work / name).digest
            if digest != entry.own_digest:
                raise _differs(f"the weights of {name}", digest, entry.own_digest, AGAIN)


def _costs(old: Manifest, new: Sequence[str], costs: dict[str, StepCost]) -> dict[str, StepCost]:
    """Of the steps of this run, and of the older targets' in theirs."""
    how = f"before {', '.join(new)} was added"
    kept = {name: replace(cost, run=cost.run or how) for name, cost in old.steps.items() if name not in costs}
    return {"quantize": costs["quantize"]} | kept | costs


def _other_versions(old: Manifest, new: Sequence[str], notes: Sequence[str]) -> list[str]:
    """A note for each target that other packages than today's made; those that its notes name already are no news."""
    now, found = versions(), []
    for target in old.targets:
        said = " ".join(note for note in notes if note.startswith(f"{target}: made with "))
        other = [f"{name} {v}" for name, v in old.tools.items() if now.get(name, v) != v and f" {name} " not in said]
        if other:
            found.append(f"{target}: made with {', '.join(other)}, before {', '.join(new)} was added")
    return found
