"""The demo app in an emulated phone's root: `am`, `pm`, and what the app does as its BenchFiles.kt says.

What it computes is this machine's executor's. The app itself is compiled and tested in android_demo."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from smolship.runtime.process import environment, python

TMP = "/data/local/tmp"
HOME = f"{TMP}/sdcard"  # for /sdcard/Android/data/dev.smolship.demo/files
PM = """#!SHELL
[ -e TMP/not-installed ] || echo package:/data/app/base.apk
"""
AM = """#!SHELL
case "$1" in
start)
    if [ -e TMP/no-activity ]; then
        echo 'Starting: Intent { cmp=dev.smolship.demo/.BenchActivity (has extras) }'
        echo 'Error type 3'
        echo 'Error: Activity class {dev.smolship.demo/dev.smolship.demo.BenchActivity} does not exist.'
        exit 0
    fi
    for word in "$@"; do printf '%s\\n' "$word"; done >TMP/asked.new && mv TMP/asked.new TMP/asked
    echo 'Starting: Intent { cmp=dev.smolship.demo/.BenchActivity (has extras) }' ;;
force-stop) echo "$2" >>TMP/stopped ;;
*) exit 9 ;;
esac
"""


def install(programs: Path, tmp: str = TMP, shell: str = "/system/bin/sh") -> None:
    """`am` and `pm` in a folder of programs."""
    for name, text in (("am", AM), ("pm", PM)):
        (programs / name).write_text(text.replace("SHELL", shell).replace("TMP", tmp))
        (programs / name).chmod(0o755)


class DemoApp(threading.Thread):
    """Waits until `am` starts it, until `close`.

    tmp   /data/local/tmp, as this machine sees it
    mode  "good"; "refuses"; "busy"; "hangs": says the same for ever; "dies": its process is gone;
          "never": says nothing; "nonsense": its result is none
    pid   of a process that the phone's shell sees: by default that of a namespace's own
    """

    def __init__(self, tmp: Path, mode: str = "good", pid: int = 1):
        super().__init__(daemon=True)
        self.tmp, self.mode, self.pid = tmp, mode, pid
        self.asked: list[dict[str, str]] = []
        self.over = False
        self.start()

    def close(self) -> None:
        self.over = True
        self.join(60)

    def run(self) -> None:
        while not self.over:
            time.sleep(0.05)
            if (file := self.tmp / "asked").exists():
                words = file.read_text().splitlines()
                file.unlink()
                assert words[:3] == ["start", "-n", "dev.smolship.demo/.BenchActivity"], shlex.join(words)
                extras = words[3:]
                assert extras[::3] == ["--es"] * (len(extras) // 3)
                self.asked.append(dict(zip(extras[1::3], extras[2::3], strict=True)))
                self._work(self.asked[-1])

    def _work(self, asked: dict[str, str]) -> None:
        home = self.tmp / "sdcard"
        result, identity = home / asked["result"], asked["id"]
        pid = 999_999_999 if self.mode == "dies" else self.pid

        def tell(suffix: str, **fields: Any) -> None:
            partial = result.with_name(f".{result.name}.partial")
            partial.write_text(json.dumps({"schema": 1, "id": identity, **fields}, separators=(",", ":")))
            partial.rename(f"{result}{suffix}")

        error = {"what": "no such engine in this app", "got": "x", "expected": "executorch, onnx", "todo": None}
        if self.mode == "never":
            return
        if self.mode == "busy":
            tell(".error", **error | {"what": "another run goes on", "got": "7"})
            return
        tell(".progress", pid=pid, stage="begin", done=0, total=0, seconds=0.0)
        if self.mode == "refuses":
            tell(".error", **error)
        elif self.mode == "nonsense":
            tell("", nonsense=True)
        elif self.mode == "good":
            command = python("smolship.runtime.execute")
            made = result.with_name("made.json")
            line = [*command, str(home / asked["plan"]), str(made), str(home / asked["folder"])]
            done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
            tell(".progress", pid=pid, stage="hash", done=1, total=2, seconds=0.5)
            if done.returncode:
                tell(".error", **error | {"what": done.stdout[-300:] + done.stderr[-300:]})
            else:
                made.rename(result)
