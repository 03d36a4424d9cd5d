"""The record of one run on a device: what was measured, on what, under what conditions, and from where each figure is.

Its schema is published as docs/schema/bench-record-v1.json. Raw times are kept in milliseconds, and a rate has its
formula. A run that did not say what its plan expects has no record (making.py). Records are read as untrusted input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import Literal

import numpy as np

from smolship.runtime.errors import InputError, show
from smolship.runtime.memory import Memory
from smolship.runtime.process import Waiting
from smolship.runtime.records import read_file, to_json
from smolship.runtime.result import Times
from smolship.runtime.sensors.reading import Reading
from smolship.runtime.sensors.snapshot import Snapshot
from smolship.tools.outputs import write_file

SCHEMA = 1
PREFILL = "prompt tokens / time from the first of them until the first token of the answer is chosen"
DECODE = "tokens / sum of the times from one token to the next; the first token, which the prompt gives, is not counted"
Checked = Literal["as planned", "unavailable"]


@dataclass(frozen=True)
class Device:
    """
    uri       as the user names it
    label     host name or the like; cards are cloned, so it names no device
    identity  the board's serial number, else the machine's id
    system    name and version
    cores     what each core is, one entry a core; empty where the system does not say
    """

    uri: str
    label: str
    model: Reading
    soc: Reading
    identity: Reading
    system: str
    cpu: str | None
    cores: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Model:
    """What was exported. `file`: the artifact's, `bytes`: with all that belongs to it."""

    id: str
    revision: str | None
    quantization: str
    weights: str  # the digest of the set
    parameters: int | None
    file: str
    bytes: int


@dataclass(frozen=True)
class Engine:
    """Who ran it. `artifact` and `plan` are SHA-256."""

    name: str
    target: str
    runtime: str
    arithmetic: str
    versions: dict[str, str]
    artifact: str
    plan: str


@dataclass(frozen=True)
class Answer:
    """What was said. `check`: "as planned", or "unavailable" where nothing was expected."""

    prompt: str
    text: str
    sha256: str
    ids: list[int]
    check: Checked


@dataclass(frozen=True)
class Loads:
    """Milliseconds, an entry a process.

    first_ever  the first after the artifact came to the device
    cold        only where the system had dropped the file's pages; `why` where there is none
    """

    first_ever: Reading
    import_ms: list[float]
    cold_ms: list[float]
    warm_ms: list[float]
    why: str


@dataclass(frozen=True)
class Rate:
    """A rate over the repeats; `of` names the raw times: ttft_ms or gaps_ms, and their key."""

    name: str
    of: str
    unit: str
    median: float
    low: float
    high: float
    formula: str

    @property
    def spread(self) -> float:
        return (self.high - self.low) / self.median

    def same(self, other: Rate) -> bool:
        """Whether it says the same of the same times, but for the last bits."""
        pairs = ((self.median, other.median), (self.low, other.low), (self.high, other.high))
        return self.of == other.of and self.unit == other.unit and all(isclose(*pair, rel_tol=1e-6) for pair in pairs)


def rates_of(times: Times) -> list[Rate]:
    """Of each prompt's length, shortest first, and of each depth."""
    found = []
    for n, row in sorted(times.ttft_ms.items()):
        found.append(_rate(f"prefill, {n} tokens", f"ttft_ms[{n}]", [1000 * n / ms for ms in row], PREFILL))
    for depth in sorted(times.gaps_ms):
        speeds = times.decode_tokens_per_s(depth)
        found.append(_rate(f"decode after {depth} tokens", f"gaps_ms[{depth}]", speeds, DECODE))
    return found


def _rate(name: str, of: str, values: Sequence[float], formula: str) -> Rate:
    return Rate(name, of, "tokens/s", float(np.median(values)), min(values), max(values), formula)


@dataclass(frozen=True)
class Used:
    """Bytes of the process. The highest seen of each; `peak` of all that it needs, swapped-out pages among it.
    `before_load` and `end` are the process' own words."""

    peak: Reading
    anonymous: Reading
    file: Reading
    shared: Reading
    swap: Reading
    available_before: Reading
    available_lowest: Reading
    before_load: Memory
    end: Memory


@dataclass(frozen=True)
class Sample:
    """At one second of the run; None: unavailable then. °C by zone, kHz by policy, bytes."""

    seconds: float | None
    temperatures: dict[str, float]
    clocks: dict[str, float]
    caps: dict[str, float]
    throttled: int | None
    resident: int | None
    available: int | None


@dataclass(frozen=True)
class Record:
    """See the module.

    date           of the host, ISO 8601, UTC
    device_offset  s that the device's clock is ahead of the host's
    allowed        processors that the process might use
    joules         by counter, over the samples
    marks          what speaks against judging its latency; empty: nothing
    notes          what else a reader must know
    """

    date: str
    device_offset: Reading
    device: Device
    model: Model
    engine: Engine
    threads: int
    allowed: Reading
    waiting: Waiting
    emulated: bool
    context_tokens: int
    prompt_tokens: list[int]
    decode_tokens: int
    repeats: int
    loads: Loads
    times: Times
    rates: list[Rate]
    answer: Answer
    memory: Used
    joules: dict[str, Reading]
    before: Snapshot
    after: Snapshot
    samples: list[Sample]
    marks: list[str]
    notes: list[str]
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError("a record of another version", got=self.schema, expected=SCHEMA)
        if not self.times.ttft_ms or not self.times.gaps_ms or self.threads < 1:
            raise InputError("a record without times or threads", got=show(self.times))
        rows = [*self.times.ttft_ms.values(), *(row for rows in self.times.gaps_ms.values() for row in rows)]
        if not all(row and min(row) > 0 for row in rows) or not all(self.times.gaps_ms.values()):
            raise InputError("a record with times that no clock gives", got=show(rows))
        made = rates_of(self.times)
        if len(made) != len(self.rates) or not all(a.same(b) for a, b in zip(made, self.rates, strict=True)):
            raise InputError(
                "a record with rates that are not those of its times", got=show(self.rates), expected=show(made)
            )

    @property
    def prefill(self) -> Rate:
        """Of the longest prompt."""
        return next(rate for rate in reversed(self.rates) if rate.of.startswith("ttft_ms"))

    @property
    def decode(self) -> Rate:
        """At the smallest depth."""
        return next(rate for rate in self.rates if rate.of.startswith("gaps_ms"))

    @property
    def gaps(self) -> list[float]:
        """Milliseconds between tokens at the smallest depth, of all repeats."""
        return [gap for row in self.times.gaps_ms[min(self.times.gaps_ms)] for gap in row]

    def between_tokens(self, quantile: float) -> float:
        return float(np.quantile(self.gaps, quantile))

    def save(self, path: Path) -> None:
        write_file(path, to_json(self), "the record")

    @staticmethod
    def load(path: Path) -> Record:
        """Raises InputError where the file is no record."""
        return read_file(Record, path, "record")
