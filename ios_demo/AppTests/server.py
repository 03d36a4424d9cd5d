"""A file server for AppTests on a free port of this machine, which knows ranges. It prints its address.

python server.py FOLDER     below /broken it sends the first 1,000 bytes of a file, once, and below /silent nothing;
                            /moved sends on to /elsewhere, which is as /broken, by another name of this machine, and
                            /away to another protocol
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

BROKEN_OFF = 1000  # bytes


class Handler(BaseHTTPRequestHandler):
    """Answers GET."""

    folder: Path
    broken: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        """Send a file, or the part that is asked for."""
        name = self.path.lstrip("/")
        with (self.folder / "log").open("a") as log:
            log.write(f"{name} {self.headers.get('Range')}\n")
        if name.startswith("silent/"):
            time.sleep(20)
            return
        port = self.connection.getsockname()[1]
        for here, there in (("moved/", f"http://localhost:{port}/elsewhere/"), ("away/", "ftp://127.0.0.1/")):
            if name.startswith(here):
                self.send_response(302)
                self.send_header("Location", there + name.removeprefix(here))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        breaks = name.startswith(("broken/", "elsewhere/"))
        path = self.folder / name.removeprefix("broken/").removeprefix("elsewhere/")
        if not path.is_file():
            self.send_error(404)
            return
        raw = path.read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(raw) - 1}/{len(raw)}")
        self.send_header("Content-Length", str(len(raw) - start))
        self.end_headers()
        if breaks and len(raw) > 4 * BROKEN_OFF and name not in self.broken:
            self.broken.add(name)
            self.wfile.write(raw[start : start + BROKEN_OFF])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(raw[start:])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the file `log` says it."""


if __name__ == "__main__":
    Handler.folder = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
