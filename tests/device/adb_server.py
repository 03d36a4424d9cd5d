"""An adb server of a test's own: a port, a HOME, and nothing of the user's."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def adb_server(home: Path) -> Iterator[int]:
    """Its port. `home` is made, and holds the server's key."""
    home.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        number = int(probe.getsockname()[1])
    environment = {**os.environ, "ADB_MDNS": "0", "HOME": str(home)}
    silent = subprocess.DEVNULL
    server = subprocess.Popen(
        ["adb", "-P", str(number), "nodaemon", "server"], stdin=silent, stdout=silent, stderr=silent, env=environment
    )
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", number)) == 0:
                    break
            time.sleep(0.05)
        yield number
    finally:
        server.kill()
        server.wait()
