"""What a machine's sensors say before, during and after a plan is executed there."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from smolship.runtime.child import Progress
from smolship.runtime.execute import in_child
from smolship.runtime.plan import Plan
from smolship.runtime.result import Result
from smolship.runtime.sensors.snapshot import Snapshot, snapshot
from smolship.runtime.sensors.tree import Tree, read_tree

EACH_S = 1.0  # between two samples
PROCESS = re.compile(r"/proc/([0-9]+)/status")


class Sensed(Protocol):
    """Executes plans on a machine whose sensors can be asked."""

    def execute(self, plan: Plan, progress: Progress) -> Result: ...

    def sensors(self) -> Tree:
        """What they say now."""
        ...

    def samples(self, plan: Plan) -> list[Tree]:
        """What they said while that plan was executed, once a second."""
        ...


@dataclass
class Here:
    """This machine: a plan is executed on the artifact in `folder` in a process of its own. One that is timed is alone
    but for the reading of the sensors, some milliseconds a second."""

    folder: Path
    taken: dict[str, list[Tree]] = field(default_factory=dict)

    def execute(self, plan: Plan, progress: Progress) -> Result:
        over, found = threading.Event(), self.taken.setdefault(plan.digest, [])
        found.clear()

        def watch(pid: int) -> None:
            while not over.wait(EACH_S):
                found.append(read_tree(pid=pid, often=True))

        threads: list[threading.Thread] = []

        def started(pid: int) -> None:
            if plan.timing:
                threads.append(threading.Thread(target=watch, args=(pid,), daemon=True))
                threads[0].start()

        try:
            measuring = bool(plan.timing or plan.loads)
            return in_child(plan, self.folder, active=measuring, progress=progress, started=started)
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def sensors(self) -> Tree:
        return read_tree()

    def samples(self, plan: Plan) -> list[Tree]:
        return self.taken.get(plan.digest, [])


@dataclass(frozen=True)
class Watched:
    """Of one timed plan."""

    before: Snapshot
    during: list[Snapshot]
    after: Snapshot


def watched(before: Tree, during: Sequence[Tree], after: Tree) -> Watched:
    """Of the machine, and of the process that executed the plan as far as a sample shows it: `before` and `after` were
    taken by others."""
    samples = [snapshot(tree, pid_of(tree) or "self") for tree in during if tree.whole]
    ends = [snapshot(before), snapshot(after)]
    if alive := [one for one in samples if one.process.resident.value is not None]:
        ends = [
            replace(end, process=one.process, scheduling=one.scheduling)
            for end, one in zip(ends, (alive[0], alive[-1]), strict=True)
        ]
    return Watched(ends[0], samples, ends[1])


def pid_of(tree: Tree) -> int | None:
    """Of the process that a sample is about."""
    found = (PROCESS.fullmatch(path) for path in (*tree.texts, *tree.errors))
    return next((int(one[1]) for one in found if one), None)
