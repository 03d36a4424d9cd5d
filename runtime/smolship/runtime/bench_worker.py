"""What `bench` runs in processes of their own: one step, asked for in JSON, answered in JSON.

load     {import_ms, cold_ms, warm_ms, dropped}: dropped tells whether the system forgot the artifact's pages first
measure  {"ttft_ms": by prompt length, "decode_tokens_per_s": by depth, "intervals_ms", memory, …}, one value a repeat
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.engines import PACKAGES, load_engine
from smolship.runtime.faults import as_ours
from smolship.runtime.files import inside, regular_file
from smolship.runtime.generate import generate
from smolship.runtime.memory import drop_pages, read_memory
from smolship.runtime.process import waiting
from smolship.runtime.session import Session

PROMPTS = (128, 512)  # tokens
DEPTHS = (128, 1024)  # tokens in the cache before decoding begins
TOKENS = 32  # decoded in each repeat
SEED = 0


def artifact_files(folder: Path, info: dict[str, Any]) -> list[Path]:
    """The artifact's file and those that its name begins (external weights); all in it, where it is a folder."""
    path = inside(folder, str(info.get("file")))
    if path.is_dir() and not path.is_symlink():
        return sorted(p for p in path.rglob("*") if p.is_file())
    regular_file(path, "artifact")
    return sorted(p for p in path.parent.iterdir() if p.name.startswith(path.name) and p.is_file())


def measure(session: Session, repeats: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """Times of one open session, each phase once uncounted and then `repeats` times."""
    ids = np.random.default_rng(SEED).integers(0, session.vocab, session.capacity).tolist()

    def prefill(length: int) -> float:
        session.rewind(0)
        generation = generate(session, ids[:length], 1, clock=clock)
        list(generation)
        return 1000 * generation.times[0]

    def decode(depth: int) -> np.ndarray:
        """Milliseconds between tokens; the cache holds `depth` tokens when the first of these begins."""
        session.rewind(depth - 1)
        generation = generate(session, ids[depth - 1 : depth], TOKENS + 1, clock=clock)
        list(generation)
        return 1000 * np.diff(generation.times)

    capacity = session.capacity
    lengths = sorted({min(n, capacity) for n in PROMPTS})
    depths = sorted({max(1, min(DEPTHS[0], capacity // 4)), min(DEPTHS[1], capacity // 2)})
    ttft = {n: [prefill(n) for _ in range(repeats + 1)][1:] for n in lengths}
    gaps = {}
    for depth in depths:
        session.rewind(0)
        session.forward(ids[:depth])
        gaps[depth] = [decode(depth) for _ in range(repeats + 1)][1:]
    return {
        "runtime": session.runtime,
        "waiting": waiting(),
        "context_tokens": capacity,
        "deepest_tokens": max(lengths[-1], min(depths[-1] + TOKENS, capacity)),
        "ttft_ms": ttft,
        "decode_tokens_per_s": {depth: [1000 / float(np.mean(g)) for g in gaps[depth]] for depth in depths},
        "intervals_ms": np.concatenate(gaps[depths[0]]).tolist(),
    }


def _load_step(request: dict[str, Any]) -> dict[str, Any]:
    """Cold and warm load of one fresh process."""
    import_ms, opened = _prepared(request)
    dropped = [drop_pages(file) for file in artifact_files(Path(request["folder"]), request["info"])]

    def load() -> float:
        start = time.perf_counter()
        with opened() as session:
            session.forward([0])  # engines put work off until then
            return 1000 * (time.perf_counter() - start)

    return {
        "import_ms": import_ms,
        "cold_ms": load(),
        "warm_ms": load(),
        "dropped": False if False in dropped else None if None in dropped else True,
    }


def _measure_step(request: dict[str, Any]) -> dict[str, Any]:
    """Speed and memory in one fresh process."""
    _, opened = _prepared(request)
    before = read_memory()
    with opened() as session:
        found = measure(session, request["repeats"])
        return found | {"memory_before_load": asdict(before), "memory": asdict(read_memory())}


def _prepared(request: dict[str, Any]) -> tuple[float, Callable[[], Session]]:
    """Milliseconds that the engine's packages took to import, and what opens a session."""
    engine = load_engine(request["engine"])
    start = time.perf_counter()
    with contextlib.suppress(ImportError):  # opening says it better
        for package in PACKAGES.get(request["engine"], ()):
            importlib.import_module(package)
    return 1000 * (time.perf_counter() - start), lambda: engine.open_session(
        Path(request["folder"]), request["info"], request["threads"]
    )


def main() -> None:
    # The answer owns the real standard output; what engines print goes to the error stream.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.loads(sys.argv[1])
    step = {"load": _load_step, "measure": _measure_step}[request["step"]]
    try:
        json.dump({"result": step(request)}, answers)
    except Exception as raised:
        error = as_ours(raised, f"the step {request['step']!r} of the bench")
        json.dump({"error": [type(error).__name__, str(error)]}, answers)
    answers.close()


if __name__ == "__main__":
    main()
