"""What this process holds in memory, and how fast this machine's memory is."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MIN_BUFFER = 64 << 20  # bytes; a last-level cache that hides from us is smaller than this
MAX_BUFFER = 512 << 20
LOOK_BYTES = 8 << 20


@dataclass(frozen=True)
class Memory:
    """Bytes resident now; None where the system does not say.

    anonymous    only this process has them: a phone ends it for these
    file_backed  pages of mapped files, which the system can drop and read again
    peak         of both together, since the process began
    """

    anonymous_bytes: int | None
    file_backed_bytes: int | None
    peak_bytes: int | None


def read_memory(proc: Path = Path("/proc/self")) -> Memory:
    """Memory of this process."""
    rollup, status = _kilobytes(proc / "smaps_rollup"), _kilobytes(proc / "status")
    if "Rss" in rollup and "Anonymous" in rollup:  # exact; the counters in status lag behind
        anonymous, file_backed = rollup["Anonymous"], rollup["Rss"] - rollup["Anonymous"]
    else:
        anonymous = status.get("RssAnon", 0)
        file_backed = status.get("RssFile", 0) + status.get("RssShmem", 0)
    return Memory(anonymous or None, file_backed or None, status.get("VmHWM") or _darwin_peak())


def _kilobytes(path: Path) -> dict[str, int]:
    """The lines "Name:  123 kB" of a file of /proc, in bytes; nothing where it cannot be read."""
    try:
        text = path.read_text()
    except OSError:
        return {}
    return {name: int(number) << 10 for name, number in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def _darwin_peak() -> int | None:
    if sys.platform != "darwin":  # elsewhere the counter is inherited from the parent, or absent
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def copy_bandwidth(
    threads: int, repeats: int = 7, size: int | None = None, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """GB/s (1e9) of numpy.copyto between two buffers of `size` bytes, split over `threads`, each of `repeats` times.

    Counts each byte twice: read once, written once. The processor may read the target's lines as well before it
    overwrites them; that is not counted. The buffers are larger than the last-level cache.
    """
    size = size or min(max(4 * (last_level_cache() or 0), MIN_BUFFER), MAX_BUFFER)
    source, target = np.ones(size // 8), np.zeros(size // 8)
    bounds = np.linspace(0, size // 8, threads + 1).astype(int)

    def copy(i: int) -> None:
        np.copyto(target[bounds[i] : bounds[i + 1]], source[bounds[i] : bounds[i + 1]])  # releases the GIL

    found = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats + 1):
            start = clock()
            list(pool.map(copy, range(threads)))
            found.append(2 * source.nbytes / (clock() - start) / 1e9)
    return found[1:]  # the first one also faults the pages in


def last_level_cache() -> int | None:
    """Bytes of the largest cache of the first processor; None where the system does not say."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        match = re.fullmatch(r"(\d+)([KM]?)", path.read_text().strip())
        if match:
            sizes.append(int(match[1]) << {"": 0, "K": 10, "M": 20}[match[2]])
    return max(sizes, default=None)


def cpu_model() -> str | None:
    """The processor's name; None where the system does not say."""
    if sys.platform == "darwin":
        found = subprocess.run(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return found.stdout.strip() or None
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or None
    # Boards name themselves in "Model" and their processor nowhere.
    match = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine() or None


def cpu_features() -> frozenset[str]:
    """What /proc/cpuinfo lists of the first processor, such as "asimddp"; nothing where it does not."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    found = re.search(r"^(?:Features|flags)\s*:\s*(.+)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def drop_pages(path: Path) -> bool | None:
    """Ask the system to forget what it has cached of a file. True: it did; False: it did not; None: it cannot be
    asked, or does not say."""
    if not hasattr(os, "posix_fadvise"):
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # pages that are not on the disk yet stay
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        cached = _cached(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # looking may have read ahead
    finally:
        os.close(descriptor)
    return None if cached is None else not cached


def _cached(descriptor: int) -> bool | None:
    """Whether some bytes of a file, evenly spread, can be read without waiting for the disk.

    A look may read ahead, a few megabytes at most. So the next look is farther away, or it would find what the last
    one brought.
    """
    if not hasattr(os, "RWF_NOWAIT"):
        return None
    size = os.fstat(descriptor).st_size
    samples = min(max(size // LOOK_BYTES, 1), 64) if size else 0
    for i in range(samples):
        try:
            os.preadv(descriptor, [bytearray(1)], i * size // samples, os.RWF_NOWAIT)
            return True
        except BlockingIOError:
            continue
        except OSError:  # this file system cannot tell
            return None
    return False
