"""Passes: our decoder in one arithmetic over probed windows, compared with a sketch of what was said of them before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from smolship.export.reference import Reference
from smolship.export.stream import Flow, Progress, Saved, through
from smolship.runtime.probes import Gap, Probes, Sketch


@dataclass
class Pass:
    """One arithmetic over some windows.

    name     of the gap that is measured, and of the sketch that is made where one is wanted (`sketch`)
    against  the sketch that it is compared with, of an earlier pass
    of       numbers of the windows; 0 is among them
    long     a text that begins with window 0 and goes on
    keep     positions of window 0 whose keys and values are kept
    """

    name: str
    ops: Reference
    against: str
    of: Sequence[int]
    sketch: bool = False
    long: np.ndarray | None = None
    keep: int = 0
    flows: dict[int, Flow] = field(default_factory=dict)

    def start(self, probes: Probes) -> list[Flow]:
        for i in self.of:
            ids = probes.windows[i].ids if i or self.long is None else self.long
            self.flows[i] = Flow(self.ops, ids, keep=0 if i else self.keep, part=i)
        return list(self.flows.values())

    def compare(self, part: Probes, known: dict[str, Sketch]) -> None:
        """Put the gap into `part`, and the sketch there and into `known`."""
        gaps: list[Gap] = []
        sketches: list[Sketch] = []
        for i in self.of:
            following, reference = part.windows[i].following, known[self.against][part.rows(i)]
            for rows, logits in self.flows[i].logits(np.arange(len(following))):
                gaps.append(Gap.between(reference[rows], logits, following[rows]))
                sketches += [Sketch.of(logits, following[rows])] if self.sketch else []
                if not np.isfinite(gaps[-1].kl).all():
                    part.facts.setdefault("nonfinite", {}).setdefault(self.name, self.flows[i].bad)
        part.gaps[self.name] = Gap.join(gaps)
        if self.sketch:
            known[self.name] = part.sketches[self.name] = Sketch.join(sketches)

    def beyond(self, at: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Logits float32 [n, V] at positions of the long text, in pieces, each with where in `at` it lies."""
        return self.flows[0].logits(at)


def run_passes(
    passes: Sequence[Pass],
    part: Probes,
    known: dict[str, Sketch],
    progress: Progress,
    saved: Saved,
    others: Sequence[Flow] = (),
) -> None:
    """Passes over the same weights, and other flows with them; the passes are compared in their order."""
    through([flow for one in passes for flow in one.start(part)] + list(others), progress, saved)
    for one in passes:
        one.compare(part, known)
        one.ops.forget()
