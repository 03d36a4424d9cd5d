"""The steps of an export, each a process of its own: its memory goes back to the system when it ends, its peak is
measured by the kernel, and Ctrl-C or the out-of-memory killer take it without leaving anything half-done.

A step reads one JSON object from standard input and answers on standard output in JSON lines:
{"progress": [what, done, total]}, and last {"result": …} or {"error": [class, text]}.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from smolship.runtime import errors
from smolship.runtime.disk import disk_errors, full, full_disk
from smolship.runtime.faults import as_ours, ended
from smolship.runtime.memory import read_memory
from smolship.runtime.process import environment, python

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What a step returned, and what it cost."""

    result: Any
    seconds: float
    peak_bytes: int | None  # of resident memory; None where the system does not say


def run_step(name: str, arguments: dict[str, Any], progress: Progress) -> Outcome:
    """Run step `name` in a child process.

    Raises the step's own SmolshipError; SetupError, with the end of what it printed, where it was killed or crashed;
    Fault where it raised what nobody foresaw.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace", dir=_folder(arguments)) as log:
        return _run_step(name, arguments, log, progress)


def _run_step(name: str, arguments: dict[str, Any], log: IO[str], progress: Progress) -> Outcome:
    start = time.monotonic()
    child = subprocess.Popen(
        python("smolship.export.worker", name),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        encoding="utf-8",
        start_new_session=True,
        env=environment(),
    )
    assert child.stdin and child.stdout
    try:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(arguments))
            child.stdin.close()
        answer: dict[str, Any] = {}
        for line in child.stdout:
            answer = json.loads(line)
            if "progress" in answer:
                progress(*answer["progress"])
        child.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    if "error" in answer:
        kind, text = answer["error"]
        raise getattr(errors, kind)(text)
    if "result" not in answer and (folder := _folder(arguments)) and (code := full(folder)):
        # Native code says nothing, or is killed for it.
        raise full_disk(f"the step {name!r} ended with status {child.returncode}", code, folder)
    if "result" not in answer:
        log.seek(0)
        raise ended(f"the step {name!r}", child.returncode, log.read())
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
        tempfile.tempdir = temporary
        yield


STEPS: dict[str, Callable[..., Any]] = {"check": check, "quantize": quantize, "lower": lower, "probe": probe}


def main() -> None:
    # The answers own the real standard output; what libraries print goes to the log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")

    last = [0.0]

    def progress(what: str, done: int, total: int) -> None:
        if done == total or time.monotonic() - last[0] > 0.1:
            last[0] = time.monotonic()
            say(progress=[what, done, total])

    try:
        arguments = json.load(sys.stdin)
        folder = _folder(arguments)
        with disk_errors(), _temporary_files(folder), disk_errors(folder):
            result = STEPS[sys.argv[1]](**arguments, progress=progress)
        say(result=result, peak_bytes=read_memory().peak_bytes)
    except BrokenPipeError:  # whoever asked is gone
        sys.exit(1)
    except Exception as raised:
        error = as_ours(raised, f"the step {sys.argv[1]!r}")
        say(error=[type(error).__name__, str(error)])


if __name__ == "__main__":
    main()
