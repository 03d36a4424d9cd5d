"""File systems of a device: which one a folder lies on, and what is free there."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

# What lies there takes memory, and is gone after a restart; "rootfs" is the root of a system that never left its
# initial one.
MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "rootfs"})


@dataclass(frozen=True)
class Mount:
    """
    options  as /proc/mounts gives them, such as "rw,noexec,relatime"
    device   what is mounted, such as "/dev/mmcblk0p2"
    below    of an overlay, where what is written lies, as far as the device says
    """

    point: str
    kind: str
    options: str
    device: str = ""
    below: Mount | None = None

    @property
    def in_memory(self) -> bool:
        compressed = self.device.rpartition("/")[2].startswith("zram")
        return self.kind in MEMORY or compressed or bool(self.below and self.below.in_memory)

    def __str__(self) -> str:
        above = f"{self.kind} on {self.point} ({self.options})"
        return f"{above} over {self.below}" if self.below else above


def mount_of(path: str, mounts: str) -> Mount | None:
    """The mount that a path without links lies on, from the text of /proc/mounts; None where that does not say."""
    found = _mount(path, mounts)
    upper = re.search(r"(?:^|,)upperdir=(/[^,]*)", found.options) if found and found.kind == "overlay" else None
    below = _mount(upper[1], mounts) if upper else None
    return replace(found, below=below) if found and below and below.kind != "overlay" else found


def _mount(path: str, mounts: str) -> Mount | None:
    found = None
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 4:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[1])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and (found is None or len(point) >= len(found.point)):  # a later one covers an earlier one
            found = Mount(point, words[2], words[3], words[0])
    return found


def free_bytes(df: str) -> int | None:
    """What is free for this user by the output of `df -kP FOLDER`; None where it does not say."""
    rows = re.findall(r"\s[0-9]+\s+[0-9]+\s+(-?[0-9]{1,15})\s+(?:[0-9]+%|-)\s+/", df[-4096:])
    return max(0, int(rows[-1])) * 1024 if rows else None
