"""The process (child.py) that exports, opens, measures one row; a request is {"do": "export", …}.

What a peer raises ends the process with its traceback in the log; whoever asked reads the last line of that. In an
environment of the peer's own there is numpy, and of ours no more than smolship.runtime and this package need.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime import child
from smolship.runtime.child import Progress
from smolship.runtime.engines import PACKAGES
from smolship.runtime.memory import read_memory
from smolship.runtime.probes import Gap, Probes, mean_and_error
from smolship.runtime.session import Session
from smolship.runtime.timing import phases, timed
from smolship.tools.peers.rows import peer_module


class Worker:
    """Answers requests; holds one open session."""

    progress: Progress
    session: Session

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
        times = timed(self.session, *phases(self.session.traits, 1))
        return {
            "prefill": {n: 1000 * n / ms[0] for n, ms in times.ttft_ms.items()},
            "decode": {depth: times.decode_tokens_per_s(depth)[0] for depth in times.gaps_ms},
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
        from smolship.export.checkpoints import open_checkpoint
        from smolship.export.original import Original
        from smolship.export.windows import make_windows
        from smolship.runtime.probes import Sketch
        from smolship.runtime.tokenizer import Tokenizer

        checkpoint = open_checkpoint(model)
        windows = make_windows(Tokenizer(checkpoint.files["tokenizer.json"]), context, tokens)
        network, sketches = Original(checkpoint), []
        for i, window in enumerate(windows):
            self.progress("the original in fp32", i, len(windows))
            (pieces,) = network.logits(window.ids[None], np.arange(len(window.ids)))
            sketches.append(Sketch.of_pieces(pieces, window.following))
        probes = Probes(windows, {"tokens": tokens})
        probes.sketches["original"] = Sketch.join(sketches)
        probes.save(Path(path))
        return {"tokens": sum(len(w.ids) for w in windows)}


def main() -> None:
    def answer(request: dict[str, Any], progress: Progress) -> Any:
        worker.progress = progress
        return getattr(worker, request.pop("do"))(**request)

    worker = Worker()
    sys.exit(child.serve(answer, "the worker", foreign=True))


if __name__ == "__main__":
    main()
