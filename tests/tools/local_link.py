"""A link to this machine, for tests of what goes over links: scripts by /bin/sh, files copied."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from smolship.tools.devices.channel import talk
from smolship.tools.devices.link import Done, Link, LinkLost, device_path, framed


class LocalLink(Link):
    """`command` begins the shell."""

    uri = "ssh://test"

    def __init__(self, command: tuple[str, ...] = ("/bin/sh",)):
        self.command = command
        self.pushed: list[str] = []

    def run(
        self,
        script: str,
        *,
        feed: Iterable[bytes] | None = None,
        lines: Callable[[bytes], None] | None = None,
        limit_s: float,
    ) -> Done:
        out: list[bytes] = []
        frame = framed(script)
        ended = talk(self.command, frame, lines or out.append, by_line=lines is not None, feed=feed, limit_s=limit_s)
        if ended.status is None:
            raise LinkLost("the link was lost", got=ended.err.decode(errors="replace"))
        return Done(ended.status, b"".join(out), ended.err)

    def push(self, content: Path, to: str, sent: Callable[[int], None] = lambda count: None) -> None:
        self.pushed.append(to)
        shutil.copyfile(content, device_path(to))

    def pull(self, path: str, into: Path) -> None:
        shutil.copyfile(device_path(path), into)

    def close(self) -> None:
        pass
