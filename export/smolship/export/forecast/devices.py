"""Devices that a forecast knows, by name, and how much of their memory one program can have.

Two limits: of anonymous memory, for which a system ends an app, and of anonymous and mapped memory together: each token
reads every weight, and what does not stay in memory is read from the disk again.

Sources, read in November 2026:

iOS      a limit of an app's dirty memory; clean mapped files do not count. os_proc_available_memory at the start of an
         app: 3.12 GB on an iPhone 13 Pro (6 GB), 4.20 GB with the entitlement increased-memory-limit
         (github.com/a-ghorbani/pocketpal-ai/pull/651); 3 GB on an iPhone 15 Pro (8 GB), 6 GB with it
         (github.com/introlab/rtabmap/pull/1446). Apple promises neither: "only available on some device models"
         (developer.apple.com/documentation/bundleresources/entitlements/com.apple.developer.kernel.increased-memory-limit),
         and iPadOS 26.4 took 6 GB back to 3 (developer.apple.com/forums/thread/826325). What both limits together
         leave is taken from the larger one.
Android  no fixed limit below version 17, whose limiter throttles and is set by the maker
         (source.android.com/docs/core/perf/memory-limiter); before, the low memory killer ends whoever asks for more
         than is left (source.android.com/docs/core/perf/lmkd). About 4 GB of 8 are left on a Galaxy S23
         (github.com/pytorch/executorch/issues/3599). Half is taken for phones of 6 GB too: an assumption.
Pi OS    of 4 GB Linux sees 3,997,696 kB, of which 256 MB are kept for graphics
         (github.com/sakaki-/gentoo-on-rpi-64bit/issues/99). 0.8 GB are taken off for those, the system and its desktop:
         an assumption, as is the same for 8 GB. Its compressed swap (rpi-swap) is not counted: weights hardly compress.
"""

from __future__ import annotations

from dataclasses import dataclass

from smolship.runtime.errors import unknown

GB = 1_000_000_000
ENTITLEMENT = "com.apple.developer.kernel.increased-memory-limit"
RUNS_ON = {  # targets that not every system runs
    "coreml": ("iOS",)
}


@dataclass(frozen=True)
class System:
    """What one program may have there.

    anonymous_bytes  of anonymous memory
    total_bytes      of anonymous and mapped memory
    entitled_bytes   of anonymous memory with `ENTITLEMENT`; None where there is no such thing
    python           whether smolship's own runtime runs there; else an app with the engine inside
    """

    name: str
    anonymous_bytes: int
    total_bytes: int
    entitled_bytes: int | None = None
    python: bool = False


@dataclass(frozen=True)
class Device:
    name: str
    what: str
    systems: tuple[System, ...]


DEVICES = {
    device.name: device
    for device in (
        Device("pi4-4gb", "Raspberry Pi 4, 4 GB", (System("Pi OS", 33 * GB // 10, 33 * GB // 10, python=True),)),
        Device("pi5-8gb", "Raspberry Pi 5, 8 GB", (System("Pi OS", 75 * GB // 10, 75 * GB // 10, python=True),)),
        Device(
            "phone-6gb",
            "a phone with 6 GB",
            (
                System("iOS", 312 * GB // 100, 420 * GB // 100, entitled_bytes=420 * GB // 100),
                System("Android", 3 * GB, 3 * GB),
            ),
        ),
        Device(
            "phone-8gb",
            "a phone with 8 GB",
            (System("iOS", 3 * GB, 6 * GB, entitled_bytes=6 * GB), System("Android", 4 * GB, 4 * GB)),
        ),
    )
}


def find_device(name: str) -> Device:
    """Raises InputError, which lists the known ones, for any other name."""
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    return DEVICES[name]
