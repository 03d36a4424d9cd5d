"""How fast an artifact is on this machine, and what memory it takes.

Everything is measured in fresh processes (execute.py), so that no engine inherits another's memory, threads or caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from smolship.runtime.artifact import artifact_files
from smolship.runtime.child import Progress
from smolship.runtime.errors import InputError
from smolship.runtime.execute import COMMAND, Execute, in_child, nothing
from smolship.runtime.memory import Memory, copy_bandwidth
from smolship.runtime.plan import Call, Plan, Text, Timing
from smolship.runtime.process import Waiting
from smolship.runtime.result import Result
from smolship.runtime.session import INTERPRETER
from smolship.runtime.timing import WARMUPS, phases

LOADS = 3  # processes that only load
Question = tuple[tuple[Text, ...], tuple[Call, ...]]
NO_QUESTION: Question = ((), ())
WAITING: dict[Waiting, str] = {
    "actively": "threads wait for one another in a loop: on a machine that has other work it is slower than this",
    "asleep": "threads sleep while they wait for one another",
    "briefly": "threads that wait for one another for long sleep",
}


@dataclass(frozen=True)
class Spread:
    """The median of some repeats, and the lowest and highest."""

    median: float
    low: float
    high: float
    repeats: int

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(float(np.median(values)), float(min(values)), float(max(values)), len(values))

    def text(self, unit: str, digits: int = 1) -> str:
        return f"{self.median:,.{digits}f} {unit} ({self.low:,.{digits}f}–{self.high:,.{digits}f})"


@dataclass(frozen=True)
class BenchReport:
    """One artifact on one machine. None: not to be had there.

    import    of the engine's packages, in a fresh process
    load      opening the artifact and running one token, the engine's packages imported already; cold: its pages
              dropped from the system's cache, the first time in a fresh process; warm: again in that process
    ttft      a prompt of `ttft_prompt_tokens` fed and the first token chosen, load excluded
    prefill   by prompt length: prompt tokens a second until the first token is chosen
    decode    by depth of the cache: tokens a second, choosing them included
    memory    of a fresh process at the end of the measurements, and before the artifact was opened
    """

    engine: str
    file: str
    file_bytes: int
    weight_bytes_per_token: int | None
    context_tokens: int
    threads: int
    cpu: str | None
    system: str
    import_ms: Spread
    cold_load_ms: Spread | None
    warm_load_ms: Spread
    ttft_prompt_tokens: int
    ttft_ms: Spread
    prefill_tokens_per_s: dict[int, Spread]
    decode_tokens_per_s: dict[int, Spread]
    inter_token_p50_ms: float
    inter_token_p95_ms: float
    inter_token_p99_ms: float
    memory_before_load: Memory
    memory: Memory
    copy_gb_per_s: Spread | None  # of this machine's memory
    conditions: list[str]
    sustained: list[list[float]] = field(default_factory=list)  # pairs as in Times
    runtime: str = ""  # what ran, where the engine's name stands for more than one

    @property
    def weights_gb_per_s(self) -> float | None:
        """Weight bytes read a second while decoding at the smaller depth, 1e9."""
        if self.weight_bytes_per_token is None:
            return None
        return self.weight_bytes_per_token * self.decode_tokens_per_s[min(self.decode_tokens_per_s)].median / 1e9

    def rows(self) -> Iterator[tuple[str, str]]:
        """(label, value with its unit and spread), for a table."""
        if self.runtime:
            yield "run by", self.runtime + (", in numpy: not the engine's speed" if self.runtime == INTERPRETER else "")
        yield "import of the engine", self.import_ms.text("ms", 0)
        yield "load, cold", self.cold_load_ms.text("ms", 0) if self.cold_load_ms else "unavailable"
        yield "load, warm", self.warm_load_ms.text("ms", 0)
        yield f"time to first token, {self.ttft_prompt_tokens} tokens", self.ttft_ms.text("ms")
        for length, speed in self.prefill_tokens_per_s.items():
            yield f"prefill, {length} tokens", speed.text("tokens/s")
        for depth, speed in self.decode_tokens_per_s.items():
            yield f"decode after {depth} tokens", speed.text("tokens/s")
        if self.sustained:
            yield f"decode for {self.sustained[-1][0]:,.0f} s on end", _kept(self.sustained)
        quantiles = self.inter_token_p50_ms, self.inter_token_p95_ms, self.inter_token_p99_ms
        yield "between tokens, p50 / p95 / p99", " / ".join(f"{q:.2f}" for q in quantiles) + " ms"
        yield "memory, anonymous", _size(self.memory.anonymous_bytes, self.memory_before_load.anonymous_bytes)
        yield "memory, file-backed", _size(self.memory.file_backed_bytes, self.memory_before_load.file_backed_bytes)
        yield "memory, peak", _size(self.memory.peak_bytes)
        yield "artifact", _size(self.file_bytes)
        yield "weights read per token", _size(self.weight_bytes_per_token)
        speed_of_weights, copying = self.weights_gb_per_s, self.copy_gb_per_s
        yield (
            "weights read while decoding",
            (
                "unavailable"
                if speed_of_weights is None
                else f"{speed_of_weights:.1f} GB/s"
                + (f", {speed_of_weights / copying.median:.0%} of copying" if copying else "")
            ),
        )
        yield "copying, bytes read and written", copying.text("GB/s") if copying else "unavailable"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"weights_gb_per_s": self.weights_gb_per_s}

    @staticmethod
    def from_dict(raw: dict[str, Any]) -> BenchReport:
        """The report whose `to_dict` that was, also by way of JSON. Raises InputError for anything else."""
        try:
            fields = {k: v for k, v in raw.items() if k != "weights_gb_per_s"}
            for name, value in fields.items():
                if name.startswith("memory"):
                    fields[name] = Memory(**value)
                elif name in ("prefill_tokens_per_s", "decode_tokens_per_s"):
                    fields[name] = {int(k): Spread(**v) for k, v in value.items()}
                elif isinstance(value, dict):
                    fields[name] = Spread(**value)
            return BenchReport(**fields)
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError("not a bench report", got=error) from None


@dataclass(frozen=True)
class Measured:
    """What executing the plans of a bench gave, raw: of processes that only loaded, and of the one that was timed."""

    plan: Plan  # the timed one
    found: Result
    loads: list[Result]
    file: str
    file_bytes: int
    weight_bytes_per_token: int | None
    copying: Spread | None

    @property
    def report(self) -> BenchReport:
        return _judged(
            self.file, self.file_bytes, self.weight_bytes_per_token, self.loads, self.plan, self.found, self.copying
        )


def bench(
    engine: str,
    folder: Path,
    info: dict[str, Any],
    *,
    threads: int,
    weight_bytes_per_token: int | None = None,
    repeats: int = 5,
    progress: Progress = nothing,
    command: Sequence[str] = COMMAND,
) -> BenchReport:
    """Measure the artifact `info["file"]` in `folder`. `command` starts the processes that measure."""
    return measured(
        engine,
        folder,
        info,
        threads=threads,
        weight_bytes_per_token=weight_bytes_per_token,
        repeats=repeats,
        progress=progress,
        execute=lambda plan, progress: in_child(plan, folder, command, active=True),
    ).report


def measured(
    engine: str,
    folder: Path,
    info: dict[str, Any],
    *,
    threads: int,
    execute: Execute,
    here: bool = True,
    asked: Question = NO_QUESTION,
    weight_bytes_per_token: int | None = None,
    repeats: int = 5,
    warmups: int = WARMUPS,
    sustained: int = 0,
    progress: Progress = nothing,
) -> Measured:
    """Have the artifact `info["file"]` in `folder` measured by `execute`, on this machine where it is `here`. `asked`:
    texts and calls of the timed plan, before what is timed; a call's text is counted from 1. `warmups` at most, and
    seconds of `sustained` decoding, as in Timing."""
    if repeats < 1:
        raise InputError("repeats is out of range", got=repeats, expected="1 or more")
    files = artifact_files(folder, info)
    steps = LOADS + 2
    plan = Plan("load", folder.name, engine, info, threads, loads=True)
    loads = []
    for i in range(LOADS):
        progress("loading", i, steps)
        loads.append(execute(plan, nothing))
    progress("measuring", LOADS, steps)
    ids, timing = phases(loads[0].traits, repeats, warmups, sustained)
    texts, calls = asked
    plan = replace(plan, purpose="bench", loads=False, texts=(Text.plain(ids), *texts), calls=calls, timing=timing)
    found = execute(plan, nothing)
    progress("copying memory", LOADS + 1, steps)
    copying = Spread.of(copy_bandwidth(threads)) if here else None
    progress("done", steps, steps)
    size = sum(file.stat().st_size for file in files)
    return Measured(plan, found, loads, info["file"], size, weight_bytes_per_token, copying)


def _judged(
    file: str,
    file_bytes: int,
    weight_bytes_per_token: int | None,
    results: list[Result],
    plan: Plan,
    found: Result,
    copying: Spread | None,
) -> BenchReport:
    """What the results of loading, and of the timing that `plan` asked for, come to."""
    loads = [result.loads for result in results if result.loads]
    timing, times = plan.timing, found.times
    assert timing and times and found.memory_before_load and found.memory
    cold = [load.cold_ms for load in loads if load.dropped is not False]
    shortest, shallow = min(timing.prompts), min(timing.depths)
    gaps = np.concatenate(times.gaps_ms[shallow])
    return BenchReport(
        engine=found.engine,
        file=file,
        file_bytes=file_bytes,
        weight_bytes_per_token=weight_bytes_per_token,
        context_tokens=found.traits.capacity,
        threads=found.threads,
        cpu=found.cpu,
        system=found.system,
        import_ms=Spread.of([load.import_ms for load in loads]),
        cold_load_ms=Spread.of(cold) if cold else None,
        warm_load_ms=Spread.of([load.warm_ms for load in loads]),
        ttft_prompt_tokens=shortest,
        ttft_ms=Spread.of(times.ttft_ms[shortest]),
        prefill_tokens_per_s={n: Spread.of([1000 * n / ms for ms in times.ttft_ms[n]]) for n in timing.prompts},
        decode_tokens_per_s={n: Spread.of(times.decode_tokens_per_s(n)) for n in timing.depths},
        **{f"inter_token_p{q}_ms": float(np.quantile(gaps, q / 100)) for q in (50, 95, 99)},
        memory_before_load=found.memory_before_load,
        memory=found.memory,
        copy_gb_per_s=copying,
        conditions=_conditions(found, timing, [load.dropped for load in loads], len(gaps), copying is not None),
        sustained=times.sustained,
        runtime=found.traits.runtime,
    )


def _conditions(found: Result, timing: Timing, dropped: list[bool | None], gaps: int, copied: bool) -> list[str]:
    """What a reader must know to repeat it."""
    cold = "its pages dropped from the system's cache first"
    if all(d is False for d in dropped):
        cold = "unavailable, because the system kept the file's pages"
    elif None in dropped:
        cold = "asked the system to drop its pages; whether it did is not known"
    capacity = found.traits.capacity
    deepest = max(*timing.prompts, min(max(timing.depths) + timing.tokens, capacity))
    return [
        f"{found.threads} threads; greedy; medians of {timing.repeats} repeats after one that is not counted "
        "(lowest–highest)",
        WAITING[found.waiting],
        "prompts are random token ids of a fixed seed: speed does not depend on what they say",
        f"loads: {len(dropped)} fresh processes; opening and one token, the engine's import not counted; cold: {cold}",
        f"decode: {timing.tokens} tokens a repeat at most; between tokens: {gaps} gaps at the smaller depth",
        f"memory: a fresh process that has filled {deepest} of the cache's {capacity} "
        "tokens; in brackets what the artifact added",
        *["copying: numpy.copyto over buffers larger than the last-level cache; decoding mostly reads"] * copied,
    ]


def _kept(sustained: list[list[float]]) -> str:
    """Tokens a second of the first and of the last tenth of the time."""
    end = sustained[-1][0]
    first = [speed for time, speed in sustained if time <= max(sustained[0][0], end / 10)]
    last = [speed for time, speed in sustained if time > min(sustained[-2 if len(sustained) > 1 else -1][0], 0.9 * end)]
    begins, ends = float(np.median(first)), float(np.median(last or [sustained[-1][1]]))
    return f"{begins:,.1f} → {ends:,.1f} tokens/s ({ends / begins:.0%})"


def _size(count: int | None, before: int | None = None) -> str:
    if count is None:
        return "unavailable"
    return f"{count / 1e6:,.1f} MB" + ("" if before is None else f" (+{(count - before) / 1e6:,.1f})")
