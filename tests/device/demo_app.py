"""The demo app in an emulated phone's root: `am`, `pm`, and what the app does as its BenchFiles.kt says.

What it computes is this machine's executor's. The app itself is compiled and tested in android_demo."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from smolship.runtime.process import environment, python
from smolship.runtime.tokenizer import Tokenizer

TOKENIZERS = ("tokenizer", "mistaken")  # modes
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
          "never": says nothing; "nonsense": its result is none; "tokenizer": good, with a tokenizer as GenAI's is;
          "mistaken": one of its ids is another
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
        elif self.mode in ("good", *TOKENIZERS):
            command = python("smolship.runtime.execute")
            made = result.with_name("made.json")
            plan, strings = home / asked["plan"], None
            if self.mode in TOKENIZERS:
                plan, strings = self._without_strings(plan)
            line = [*command, str(plan), str(made), str(home / asked["folder"])]
            done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
            tell(".progress", pid=pid, stage="hash", done=1, total=2, seconds=0.5)
            if done.returncode:
                tell(".error", **error | {"what": done.stdout[-300:] + done.stderr[-300:]})
            else:
                if self.mode in TOKENIZERS:
                    self._tokenize(made, home / asked["plan"], strings, home / asked["folder"])
                made.rename(result)

    def _without_strings(self, path: Path) -> tuple[Path, list[str] | None]:
        """A plan for this machine's executor, whose engine has no tokenizer, and the strings that were in it."""
        plan = json.loads(path.read_text())
        strings = plan.pop("strings", None)
        left = path.with_name("left.json")
        left.write_text(json.dumps(plan, separators=(",", ":"), sort_keys=True) + "\n")
        return left, strings

    def _tokenize(self, made: Path, plan: Path, strings: list[str] | None, folder: Path) -> None:
        result = json.loads(made.read_text())
        result["plan"] = hashlib.sha256(plan.read_bytes()).hexdigest()
        result["traits"]["tokenizer"] = "onnxruntime-genai"
        if strings is not None:
            tokenizer = Tokenizer(folder / "tokenizer.json")
            answers = [tokenizer.encode(text) for text in strings]
            if self.mode == "mistaken":
                answers[strings.index("1234567890")][3] += 1
            texts = [tokenizer.decode(ids) for ids in answers]
            pairs = zip(answers, texts, strict=True)
            result["strings"] = [{"bare": None, "around": ids, "text": text} for ids, text in pairs]
        made.write_text(json.dumps(result))
