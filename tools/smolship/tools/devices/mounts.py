"""File systems of a device: which one a folder lies on, and what is free there."""

from __future__ import annotations

import re
from dataclasses import dataclass

MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})  # what lies there takes memory, and is gone after a restart


@dataclass(frozen=True)
class Mount:
    """`options` as /proc/mounts gives them, such as "rw,noexec,relatime"."""

    point: str
    kind: str
    options: str

    @property
    def in_memory(self) -> bool:
        return self.kind in MEMORY

    def __str__(self) -> str:
        return f"{self.kind} on {self.point} ({self.options})"


def mount_of(path: str, mounts: str) -> Mount | None:
    """The mount that a path without links lies on, from the text of /proc/mounts; None where that does not say."""
    found = None
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 4:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[1])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and (found is None or len(point) >= len(found.point)):  # a later one covers an earlier one
            found = Mount(point, words[2], words[3])
    return found


def free_bytes(df: str) -> int | None:
    """What is free for this user by the output of `df -kP FOLDER`; None where it does not say."""
    rows = re.findall(r"\s[0-9]+\s+[0-9]+\s+(-?[0-9]{1,15})\s+(?:[0-9]+%|-)\s+/", df[-4096:])
    return max(0, int(rows[-1])) * 1024 if rows else None
