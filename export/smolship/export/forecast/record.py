"""What a forecast says, in bytes and seconds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class StepForecast:
    """`peak_bytes` is of resident memory of the step's process."""

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Need:
    """What a target needs on a device under one system, and what the device has for one program there. Mapped pages
    that nobody reads again are left out."""

    system: str
    anonymous_bytes: int
    mapped_bytes: int
    anonymous_limit: int
    total_limit: int

    @property
    def over_bytes(self) -> int:
        """By how much it does not fit; 0 where it does."""
        total = self.anonymous_bytes + self.mapped_bytes
        return max(self.anonymous_bytes - self.anonymous_limit, total - self.total_limit, 0)


@dataclass(frozen=True)
class TargetForecast:
    """One target.

    artifact_bytes   of its folder
    cache_bytes      of keys and values at that context, in the numbers that its engine keeps them in
    anonymous_bytes  of a process of smolship's runtime on this machine, its cache full
    mapped_bytes     of that process: files, which the system can drop and read again
    needs            on the device, one a system; empty where no device was named, or the target does not run there
    changes          options, each of which alone makes it fit, where it does not
    """

    artifact_bytes: int
    cache_bytes: int
    anonymous_bytes: int
    mapped_bytes: int
    needs: list[Need] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    @property
    def over_bytes(self) -> int:
        return max((need.over_bytes for need in self.needs), default=0)

    @property
    def tightest(self) -> Need | None:
        """The need that is over by most, or else nearest to its limit."""
        return max(
            self.needs, key=lambda need: (need.over_bytes, need.anonymous_bytes - need.anonymous_limit), default=None
        )


@dataclass(frozen=True)
class Forecast:
    """An export before it is done.

    disk_bytes  that must be free where the bundle is written: at the fullest moment, files that do not stay included
    steps       by the labels that they have in the manifest
    device      the one that was named
    """

    parameters: int
    quant: str
    context: int
    bundle_bytes: int
    disk_bytes: int
    steps: dict[str, StepForecast]
    targets: dict[str, TargetForecast]
    device: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool | None:
        """Whether the device can hold every target that runs there; None where none was named."""
        return None if self.device is None else all(not target.over_bytes for target in self.targets.values())

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps.values())

    @property
    def peak_bytes(self) -> int:
        """Of the largest step: steps run one after the other."""
        return max(step.peak_bytes for step in self.steps.values())
