"""Executes a plan: in this process on a session that is open, or as a process of its own.

    python -P -m smolship.runtime.execute PLAN RESULT FOLDER

FOLDER holds the artifact. It says how far it is, and what went wrong, in the JSON lines of child.py.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from smolship.runtime import child
from smolship.runtime.artifact import artifact_digest, artifact_files
from smolship.runtime.child import Listener, Progress
from smolship.runtime.disk import disk_errors
from smolship.runtime.engines import PACKAGES, load_engine
from smolship.runtime.errors import InputError
from smolship.runtime.generate import Generation, generate
from smolship.runtime.memory import Memory, cpu_model, read_memory
from smolship.runtime.plan import Call, Plan
from smolship.runtime.process import be_supervised, environment, python, waiting
from smolship.runtime.records import read_file, to_json
from smolship.runtime.result import Result, Seen, Tokens
from smolship.runtime.session import Session
from smolship.runtime.timing import loaded, timed

COMMAND = tuple(python("smolship.runtime.execute"))
# Of packages whose distribution has another name.
DISTRIBUTIONS = {"llama_cpp": "llama-cpp-python", "google.protobuf": "protobuf"}


Execute = Callable[[Plan, Progress], Result]  # has a plan executed somewhere


def nothing(what: str, done: int, total: int) -> None:
    """A progress that nobody looks at."""


def execute(
    plan: Plan, session: Session, artifact: str, progress: Progress = nothing, before: Memory | None = None
) -> Result:
    """Have `session` do what the plan asks; tokens of an answer are told where `progress` is a Listener. `artifact` is
    the digest of what it has open, `before` the memory of this process before that, where it does nothing else."""
    if plan.highest >= session.vocab:
        raise InputError(
            "the plan has tokens that the model has not", got=plan.highest, expected=f"below {session.vocab:,}"
        )
    start = time.monotonic()
    seen, last = [], np.empty((0, session.vocab), np.float32)
    for i, call in enumerate(plan.calls):
        progress(call.stage, i, len(plan.calls))
        text, at = plan.texts[call.text], call.looked
        last = _fed(session, plan, call, last)
        seen.append(Seen.of(last[: at.stop - at.start], text.rows(at.start, at.stop), call.exact))
    caches = [np.stack(both) for layer in range(plan.layers) if (both := session.cache(layer)) is not None]
    times = timed(session, plan.texts[0].ids, plan.timing) if plan.timing else None
    generated = _generated(session, plan, progress) if plan.answer else None
    strings = None if plan.strings is None else _tokenized(session, plan.strings, progress)
    memory = read_memory() if before else None
    return Result(
        plan=plan.digest,
        artifact=artifact,
        purpose=plan.purpose,
        target=plan.target,
        engine=plan.engine,
        arithmetic=plan.arithmetic,
        threads=plan.threads,
        traits=session.traits,
        waiting=waiting(),
        versions=_versions(plan.engine),
        system=platform.platform(),
        cpu=cpu_model(),
        seconds=time.monotonic() - start,
        seen=seen,
        cache=caches if len(caches) == plan.layers else [],  # of some layers alone it would place a drift wrongly
        nonfinite=list(session.nonfinite),
        times=times,
        generated=generated,
        strings=strings,
        memory_before_load=before,
        memory=memory,
    )


def _fed(session: Session, plan: Plan, call: Call, last: np.ndarray) -> np.ndarray:
    """The logits of a call, [1, V] of its last position or [N, V] of all; `last` are those of the call before it."""
    if call.rewind is not None:
        session.rewind(call.rewind)
    if call.preset is not None:
        session.preset(plan.cache, call.preset)
    text = plan.texts[call.text]
    if not call.greedy:
        return session.forward(text.ids[call.start : call.stop], "all" if call.look == "all" else "last")
    rows = [last[-1:]]
    for _ in range(call.start, call.stop):
        rows.append(session.forward([int(rows[-1].argmax())]))
    return np.concatenate(rows[1:])


def _generated(session: Session, plan: Plan, progress: Progress) -> Generation:
    assert plan.answer
    asked, prompt = plan.answer, plan.texts[0].ids.tolist()
    generation = generate(session, prompt, asked.max_tokens, asked.stop_ids.tolist(), asked.sampling)
    for token in generation:
        if isinstance(progress, Listener):
            progress.tokens([token])
    return generation


def _tokenized(session: Session, strings: Sequence[str], progress: Progress) -> list[Tokens]:
    tokenizer = session.tokenizer
    if tokenizer is None:
        raise InputError(
            "this engine has no tokenizer", got="a plan with strings", expected="none: its traits name none"
        )
    progress("tokenizer", 0, 1)
    found = []
    for text in strings:
        bare, around = tokenizer.encode(text, special=False), tokenizer.encode(text)
        ids = around if bare is None else bare
        shown = None if ids is None else tokenizer.decode(ids)
        found.append(Tokens(_ids(bare), _ids(around), shown))
    return found


def _ids(found: list[int] | None) -> np.ndarray | None:
    return None if found is None else np.array(found, np.int32)


def execute_alone(plan: Plan, folder: Path, progress: Progress = nothing) -> Result:
    """Execute a plan on the artifact in `folder`, in a process that does nothing else."""
    engine, files = load_engine(plan.engine), artifact_files(folder, plan.info)
    start = time.perf_counter()
    with contextlib.suppress(ImportError):  # opening says it better
        for package in PACKAGES.get(plan.engine, ()):
            importlib.import_module(package)
    import_ms = 1000 * (time.perf_counter() - start)
    before = read_memory()

    def opened() -> Session:
        return engine.open_session(folder, plan.options, plan.threads)

    session, loads = loaded(opened, files, import_ms) if plan.loads else (opened(), None)
    with session:
        result = execute(plan, session, "", progress, before)
    result.artifact, result.loads = artifact_digest(folder, plan.info), loads
    return result


def in_child(
    plan: Plan,
    folder: Path,
    command: Sequence[str] = COMMAND,
    active: bool = False,
    progress: Progress = nothing,
    started: Callable[[int], None] = lambda pid: None,
) -> Result:
    """Execute a plan in a process of its own, whose threads may wait `active`ly, and whose number `started` is told.
    Raises its SmolshipError, SetupError where it crashed, or Fault."""
    with disk_errors(), tempfile.TemporaryDirectory(prefix="smolship-plan-") as temporary:
        given, made = Path(temporary) / "plan.json", Path(temporary) / "result.json"
        given.write_bytes(to_json(plan))
        arguments = [*command, str(given), str(made), str(folder)]
        child.run("the executor", arguments, None, progress, environment(active), started=started)
        result = Result.load(made)
        result.answers(plan)
        return result


def _versions(engine: str) -> dict[str, str]:
    from importlib import metadata  # its memory is not the engine's

    found = {"python": platform.python_version()}
    for package in ("smolship", "numpy", *PACKAGES.get(engine, ())):
        name = DISTRIBUTIONS.get(package, package.partition(".")[0])
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def main() -> None:
    def answer(paths: Sequence[str], progress: Progress) -> None:
        plan, made, folder = map(Path, paths)
        with disk_errors(made.parent):
            execute_alone(read_file(Plan, plan, "plan"), folder, progress).save(made)

    be_supervised()
    if len(sys.argv) != 4:
        print("usage: python -P -m smolship.runtime.execute PLAN RESULT FOLDER", file=sys.stderr)
        sys.exit(2)
    sys.exit(child.serve(answer, "the executor", [sys.argv[1:]]))


if __name__ == "__main__":
    main()
