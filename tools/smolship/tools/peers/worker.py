"""The process that exports, opens, measures one row: requests in JSON lines on standard input, answers likewise.

    {"do": "export", …} -> {"result": …}      {"progress": [what, done, total]} may come before a result

Our own errors are answered with {"error": text}. What a peer raises ends the process with its traceback in the log;
whoever asked reads the last line of that. In an environment of the peer's own there is numpy, and of ours no more than
smolship.runtime and this package need.
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
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.bench_worker import measure
from smolship.runtime.engines import PACKAGES
from smolship.runtime.errors import SmolshipError
from smolship.runtime.memory import read_memory
from smolship.runtime.probes import Gap, Probes, mean_and_error
from smolship.runtime.session import Session
from smolship.tools.peers.rows import peer_module

Progress = Callable[[str, int, int], None]


class Worker:
    """Answers requests; holds one open session."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.session: Session

    def versions(self, packages: list[str]) -> dict[str, str]:
        """Of those packages that are installed here."""
        found = {}
        for package in packages:
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[package] = metadata.version(package)
        return found

    def export(self, peer: str, source: str, folder: str, options: dict[str, Any]) -> dict[str, Any]:
        """Export a row; with the peak of this process, or of those that did the work for it."""
        start = time.monotonic()
        made = peer_module(peer).export(Path(source), Path(folder), options)
        peak = max(read_memory().peak_bytes or 0, made.pop("peak_bytes", 0))
        return {"seconds": time.monotonic() - start, "peak_bytes": peak or None} | made

    def open(self, peer: str, folder: str, options: dict[str, Any], threads: int) -> dict[str, Any]:
        """Open the row's artifact; its packages are imported before anything is counted."""
        module = peer_module(peer)
        for package in PACKAGES.get(options.get("target", ""), module.PACKAGES):
            importlib.import_module(package)
        self.before = read_memory()
        start = time.perf_counter()
        self.session = module.open_session(Path(folder), options, threads)
        self.session.forward([0])  # engines put work off until then
        return {"load_ms": 1000 * (time.perf_counter() - start), "runtime": self.session.runtime}

    def measure(self) -> dict[str, Any]:
        """One round: each phase once uncounted, once counted."""
        found = measure(self.session, 1)
        return {
            "prefill": {n: 1000 * int(n) / ms[0] for n, ms in found["ttft_ms"].items()},
            "decode": {depth: speed[0] for depth, speed in found["decode_tokens_per_s"].items()},
        }

    def memory(self) -> dict[str, Any]:
        """Bytes now, and before the artifact was opened."""
        return {"before": asdict(self.before), "now": asdict(read_memory())}

    def fidelity(self, reference: str) -> dict[str, Any]:
        """KL from the original's logits, token by token; and that of the logits that whole prefills end with."""
        probes, session = Probes.load(Path(reference)), self.session
        gaps, ends = [], []
        for i, window in enumerate(probes.windows):
            self.progress("fidelity", i, len(probes.windows))
            known = probes.sketches["original"][probes.rows(i)]
            session.rewind(0)
            gaps.append(Gap.between(known, session.forward(window.ids, "all"), window.following))
            for n in {len(window.ids) * k // 4 for k in (1, 2, 3, 4)} - {0}:
                session.rewind(0)
                last = session.forward(window.ids[:n])
                ends.append(Gap.between(known[n - 1 : n], last, window.following[n - 1 : n]))
        gap, end = Gap.join(gaps), Gap.join(ends)
        kl, error = mean_and_error(gap.kl)
        prefill, prefill_error = mean_and_error(end.kl)
        return {
            "tokens": len(gap.kl),
            "kl": kl,
            "error": error,
            "top1": float(gap.top1.mean()),
            "perplexity_ratio": float(np.exp(mean_and_error(gap.nll)[0])),
            "prefills": len(end.kl),
            "prefill_kl": prefill,
            "prefill_error": prefill_error,
        }

    def reference(self, model: str, path: str, context: int, tokens: int) -> dict[str, Any]:
        """What the original implementation says, in fp32: the sketches that every row is compared with."""
        import torch

        from smolship.export.checkpoints import open_checkpoint
        from smolship.export.original import original
        from smolship.export.probe import make_windows
        from smolship.runtime.probes import Sketch
        from smolship.runtime.tokenizer import Tokenizer

        checkpoint = open_checkpoint(model)
        windows = make_windows(Tokenizer(checkpoint.files["tokenizer.json"]), context, tokens)
        network, sketches = original(checkpoint), []
        for i, window in enumerate(windows):
            self.progress("the original in fp32", i, len(windows))
            with torch.inference_mode():
                logits = network(torch.from_numpy(window.ids[None].astype(np.int64)), use_cache=False).logits[0]
            sketches.append(Sketch.of(logits.numpy(), window.following))
        probes = Probes(windows, {"tokens": tokens})
        probes.sketches["original"] = Sketch.join(sketches)
        probes.save(Path(path))
        return {"tokens": sum(len(w.ids) for w in windows)}


def main() -> None:
    # The answers own the real standard output; what libraries print goes to the log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")

    worker = Worker(lambda what, done, total: say(progress=[what, done, total]))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            say(result=getattr(worker, request.pop("do"))(**request))
        except SmolshipError as error:
            say(error=str(error))


if __name__ == "__main__":
    main()
