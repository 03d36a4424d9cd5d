"""A bench that is recorded: the plans are executed where the sensors can be asked, and the record is made of both."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from smolship.runtime.bench import Measured
from smolship.runtime.bundle import Bundle
from smolship.runtime.child import Progress
from smolship.runtime.errors import clip
from smolship.runtime.plan import Plan
from smolship.runtime.result import Result
from smolship.runtime.sensors import snapshot
from smolship.runtime.sensors.marks import gate
from smolship.runtime.sensors.reading import Reading, unavailable
from smolship.runtime.sensors.tree import Tree
from smolship.tools.devices.facts import DeviceFacts
from smolship.tools.devices.formats import to_edge_llm_bench, to_llama_bench
from smolship.tools.devices.making import Said, make_record
from smolship.tools.devices.record import Device, Model, Record
from smolship.tools.devices.watching import Sensed, Watched, watched
from smolship.tools.outputs import write_file

COOL_EACH_S = 5.0  # between two looks
Format = Literal["smolship", "edge-llm-bench", "llama-bench"]


@dataclass
class Recorder:
    """Executes plans, and keeps what the sensors said around the last one that was timed.

    uri, facts  of the device, as far as they were asked for
    fresh       the artifact came there just before: its first load is the first ever
    cool_s      seconds to wait at most, before a timed plan, for a machine that is cool and idle; update: tells whom
    hot         what it still waited for when that time was over
    """

    sensed: Sensed
    uri: str
    facts: DeviceFacts | None = None
    fresh: bool = False
    cool_s: float = 0
    update: Callable[[str, int, int], None] = lambda what, done, total: None
    hot: list[str] = field(default_factory=list)
    around: Watched | None = None
    tree: Tree | None = None

    def execute(self, plan: Plan, progress: Progress) -> Result:
        if not plan.timing:
            return self.sensed.execute(plan, progress)
        before = self._cooled()
        result = self.sensed.execute(plan, progress)
        self.tree = self.sensed.sensors()
        self.around = watched(before, self.sensed.samples(plan), self.tree)
        return result

    def _cooled(self) -> Tree:
        """What the sensors say when nothing is left to wait for, or the time for it is over."""
        start = time.monotonic()
        while True:
            now = self.sensed.sensors()
            self.hot = gate(snapshot.snapshot(now)) if self.cool_s else []
            waited = time.monotonic() - start
            if not self.hot or waited >= self.cool_s:
                return now
            self.update(f"waits: {self.hot[0]}", int(waited), int(self.cool_s))
            time.sleep(min(COOL_EACH_S, self.cool_s - waited))

    def record(
        self, bundle: Bundle, measured: Measured, prompt: Sequence[int], ids: Sequence[int], notes: Sequence[str] = ()
    ) -> Record:
        """Of what was measured last. `ids`: the checked answer to the prompt; none: nothing was expected. `notes`: what
        else a reader must know."""
        assert self.around and self.tree
        manifest, entry = bundle.manifest, bundle.entry(measured.plan.target)
        decode = bundle.tokenizer.decode
        return make_record(
            measured.plan,
            measured.found,
            measured.loads,
            device=self._device(self.tree, measured.found),
            model=Model(
                id=clip(manifest.model.source),
                revision=manifest.model.revision,
                quantization=manifest.quantization.name,
                weights=entry.own_digest or manifest.weights_digest,
                parameters=manifest.model.parameters,
                file=measured.file,
                bytes=measured.file_bytes,
            ),
            said=Said(decode(prompt, False), decode(ids, False), ids, ids or None),
            before=self.around.before,
            during=self.around.during,
            after=self.around.after,
            first_ever=self._first_ever(measured.loads),
            emulated=bool(self.facts and self.facts.emulated),
            device_offset=self._offset(),
            notes=[*(f"not cool and idle after {self.cool_s:,.0f} s: {reason}" for reason in self.hot), *notes],
        )

    def _device(self, tree: Tree, result: Result) -> Device:
        facts = self.facts
        label = facts.label if facts else platform.node()
        known = Reading(clip(facts.identity, 120), "", facts.identity_of or "") if facts and facts.identity else None
        return Device(
            uri=self.uri,
            label=label or "",
            model=snapshot.model(tree),
            soc=snapshot.soc(tree),
            identity=known or snapshot.identity(tree),
            system=(facts.system if facts else None) or result.system,
            cpu=result.cpu,
            cores=[str(core.part or "") for core in facts.cores] if facts else [],
        )

    def _first_ever(self, loads: Sequence[Result]) -> Reading | None:
        first = loads[0].loads if loads else None
        if self.facts is None or first is None:
            return None
        if not self.fresh:
            return unavailable("ms", "store", "the artifact was on the device before")
        pages = {True: "dropped", False: "kept", None: "asked to be dropped"}[first.dropped]
        return Reading(first.cold_ms, "ms", f"the first load after it was sent, its pages in memory {pages} before")

    def _offset(self) -> Reading | None:
        if self.facts is None:
            return Reading(0.0, "s", "the host itself")
        return None if self.facts.clock_s is None else Reading(self.facts.clock_s, "s", "date")


def write_record(path: Path, record: Record, form: Format) -> None:
    """As JSON; in the words of another benchmark where `form` names it."""
    if form == "smolship":
        record.save(path)
        return
    made = to_llama_bench(record) if form == "llama-bench" else to_edge_llm_bench(record)
    write_file(path, json.dumps(made, indent=1, ensure_ascii=False).encode(), "the record")
