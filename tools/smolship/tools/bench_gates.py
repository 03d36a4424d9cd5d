"""What a user asks of a bench's figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smolship.runtime.bench import BenchReport
from smolship.tools.measure import Bench
from smolship.tools.units import number


@dataclass(frozen=True)
class Gates:
    """
    min_decode  tokens/s at the smaller depth
    max_ttft    ms, of the shortest prompt
    max_memory  MB (1e6 bytes) at the peak of the process
    """

    min_decode: float | None = None
    max_ttft: float | None = None
    max_memory: float | None = None

    @property
    def asked(self) -> bool:
        return any(limit is not None for limit in (self.min_decode, self.max_ttft, self.max_memory))


def failures(name: str, found: Bench, gates: Gates) -> Iterator[str]:
    """A line for each gate that fails: by medians, and where a figure is not to be had."""
    report = found.report
    for what, limit, value, unit, low in (
        ("decode", gates.min_decode, _decode(report), "tokens/s", True),
        ("time to first token", gates.max_ttft, report.ttft_ms.median, "ms", False),
        ("memory, peak", gates.max_memory, _peak(report), "MB", False),
    ):
        if limit is None:
            continue
        bound = f"{'at least' if low else 'at most'} {number(limit)} {unit}"
        if value is None:
            yield f"{name}: {what} is unavailable, expected {bound}"
        elif value < limit if low else value > limit:
            yield f"{name}: {what} {number(value)} {unit}, expected {bound}"


def _decode(report: BenchReport) -> float:
    return report.decode_tokens_per_s[min(report.decode_tokens_per_s)].median


def _peak(report: BenchReport) -> float | None:
    return None if report.memory.peak_bytes is None else report.memory.peak_bytes / 1e6
