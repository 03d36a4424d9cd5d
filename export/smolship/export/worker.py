"""The steps of an export, each a process of its own (child.py): its memory goes back to the system when it ends, its
peak is measured by the kernel, and Ctrl-C or the out-of-memory killer take it without leaving anything half-done.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from smolship.runtime import child
from smolship.runtime.child import Progress
from smolship.runtime.disk import disk_errors
from smolship.runtime.memory import read_memory
from smolship.runtime.process import environment, python


@dataclass(frozen=True)
class Outcome:
    """What a step returned, and what it cost."""

    result: Any
    seconds: float
    peak_bytes: int | None  # of resident memory; None where the system does not say


def run_step(name: str, arguments: dict[str, Any], progress: Progress) -> Outcome:
    """Run step `name` in a child process. Raises as child.run does."""
    start, command = time.monotonic(), python("smolship.export.worker", name)
    answer = child.run(f"the step {name!r}", command, arguments, progress, environment(), _folder(arguments))
    return Outcome(answer["result"], time.monotonic() - start, answer["peak_bytes"])


def check(
    model: str,
    revision: str | None,
    targets: list[str],
    scheme: dict[str, Any],
    context: int,
    tokens: int,
    text: str | None,
    progress: Progress,
) -> Any:
    """Ask all that can be asked before the work; what the files say about generating. Raises InputError with every
    problem."""
    from smolship.export import preflight
    from smolship.export.checkpoints import open_checkpoint
    from smolship.export.weights import Scheme

    said = preflight.check(
        open_checkpoint(model, revision), targets, Scheme(**scheme), context, progress, tokens=tokens, text=text
    )
    return said.to_json()


def quantize(model: str, revision: str | None, scheme: dict[str, Any], folder: str, progress: Progress) -> Any:
    """Read, quantize and write the one set of weights."""
    from smolship.export.checkpoints import open_checkpoint
    from smolship.export.weights import Scheme, write_weights

    checkpoint = open_checkpoint(model, revision)
    weights = write_weights(checkpoint, checkpoint.config, Scheme(**scheme), Path(folder), progress)
    return {"digest": weights.digest}


def lower(
    model: str,
    revision: str | None,
    target: str,
    context: int,
    weights: str,
    folder: str,
    resolved: dict[str, Any],
    progress: Progress,
) -> Any:
    """Lower one target into `folder`."""
    from smolship.export.checkpoints import open_checkpoint
    from smolship.export.facts import Resolved
    from smolship.export.held import hold
    from smolship.export.targets import Job, load_target
    from smolship.export.traffic import bytes_per_token
    from smolship.export.weights import Weights

    checkpoint = open_checkpoint(model, revision)
    module = load_target(target)
    store, facts = hold(module, checkpoint.config, Weights(Path(weights)), Path(weights) / target, progress)
    said = Resolved.from_json(resolved, checkpoint.config.vocab)
    job = Job(checkpoint.config, store, context, said.files(checkpoint), said.facts, progress)
    info = module.lower(job, Path(folder))
    facts |= {"weight_bytes_per_token": bytes_per_token(checkpoint.config, store, module.stored_bytes)}
    return {"target": module.NAME, "engine": module.ENGINE, "info": info | facts}


def _same(numerics: Any, linear: str) -> Any:
    """The numerics of an engine that computes every linear alike."""
    return numerics


def probe(
    model: str,
    revision: str | None,
    targets: list[str],
    context: int,
    tokens: int,
    text: str | None,
    weights: str,
    path: str,
    resolved: dict[str, Any],
    progress: Progress,
) -> Any:
    """Make the golden probes."""
    from smolship.export.checkpoints import open_checkpoint
    from smolship.export.facts import Resolved
    from smolship.export.held import held
    from smolship.export.probe import DATE, make_probes
    from smolship.export.targets import load_target
    from smolship.export.weights import Weights

    store = Weights(Path(weights))
    own = {name: held(store, Path(weights) / name) for name in targets}
    numerics: dict[str, Any] = {}
    for name in targets:
        target = load_target(name)
        numerics[name] = target.numerics(own[name])
        for other, how in getattr(target, "OTHER_ARITHMETICS", {}).items():
            numerics[f"{name}.{other}"], own[f"{name}.{other}"] = partial(_same, how), own[name]
    checkpoint = open_checkpoint(model, revision)
    template = Resolved.from_json(resolved, checkpoint.config.vocab).chat_template(DATE)
    notes: list[str] = []
    make_probes(checkpoint, store, numerics, context, tokens, text, progress, own, template, notes).save(Path(path))
    return {"notes": notes}


def _folder(arguments: dict[str, Any]) -> Path | None:
    """Where a step writes: the `folder`, or the file `path`, that it is given. None: it writes nothing."""
    if "path" in arguments:
        return Path(arguments["path"]).parent
    return Path(arguments["folder"]) if "folder" in arguments else None


@contextlib.contextmanager
def _temporary_files(folder: Path | None) -> Iterator[None]:
    """They lie where a step writes: coremltools makes some as large as the model, and /tmp may be small or memory."""
    if folder is None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix=".tmp.", dir=folder) as temporary:
        before, tempfile.tempdir = tempfile.tempdir, temporary
        try:
            yield
        finally:  # a fault's traceback goes to the usual place
            tempfile.tempdir = before


STEPS: dict[str, Callable[..., Any]] = {"check": check, "quantize": quantize, "lower": lower, "probe": probe}


def main() -> None:
    name = sys.argv[1]

    def answer(arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
        folder = _folder(arguments)
        with disk_errors(), _temporary_files(folder), disk_errors(folder):
            result = STEPS[name](**arguments, progress=progress)
        return {"result": result, "peak_bytes": read_memory().peak_bytes}

    sys.exit(child.serve(answer, f"the step {name!r}"))


if __name__ == "__main__":
    main()
