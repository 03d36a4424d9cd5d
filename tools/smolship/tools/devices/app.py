"""Plans executed by the demo app of a phone (android_demo): started by `am`, watched by its files.

The app executes what lies in its own folder, which adb's user can write too: the artifact by its digest, and a folder
for each run with plan.json and, in the end, result.json or result.json.error. BenchFiles.kt has the protocol.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from smolship.runtime.child import Progress
from smolship.runtime.errors import InputError, SetupError, clip
from smolship.tools.devices.heard import OURS, Watch, count
from smolship.tools.devices.job import Job, supervision
from smolship.tools.devices.link import Link, device_path, quote
from smolship.tools.devices.runners import Runner
from smolship.tools.devices.store import Store

PACKAGE, ACTIVITY = "dev.smolship.demo", ".BenchActivity"
HOME = f"/sdcard/Android/data/{PACKAGE}/files"
OURS_THERE = "bench"  # of ours, in that folder
ENGINES = ("executorch", "onnx")
INSTALL = "build android_demo and install it: adb install app-debug.apk; then start it once"
LONGEST = 1 << 16  # characters of a line that is read as JSON


def check_app(uri: str, engines: Mapping[str, str]) -> None:
    """Raise InputError for a device that has no apps, and for targets whose engine (by target) the app has not."""
    if not uri.startswith("adb://"):
        raise InputError("--via app is for phones", got=uri, expected="--device adb://[serial]")
    if wrong := [name for name, engine in engines.items() if engine not in ENGINES]:
        raise InputError(
            "the demo app does not have the engine of these targets",
            got=", ".join(wrong),
            expected=", ".join(ENGINES),
            todo="leave them out with --target",
        )


def find_app(link: Link) -> None:
    """Raise SetupError where the app is not installed, or its folder cannot be used."""
    said = link.run(f"pm path {PACKAGE} </dev/null 2>&1", limit_s=60).out.decode(errors="replace").strip()
    if not any(line.startswith("package:") for line in said.splitlines()):
        raise SetupError(
            f"{link.uri}: the demo app is not there",
            got=said or "nothing",
            expected=f"{PACKAGE} installed",
            todo=INSTALL,
        )
    there = device_path(f"{HOME}/{OURS_THERE}")
    done = link.run(f"mkdir -p {quote(there)} && touch {quote(there)}/try && rm {quote(there)}/try", limit_s=60)
    if done.status:
        raise SetupError(
            f"{link.uri}: the demo app's folder cannot be written by adb",
            got=clip(done.err.decode(errors="replace")),
            expected=there,
            todo="start the app once, so that Android makes its folder, then run it again",
        )


class AppStore(Store):
    """Artifacts in the app's folder, whose file system has no links: stored files are moved to where the app opens
    them, in a folder that stays."""

    def __init__(self, link: Link):
        super().__init__(link, f"{HOME}/{OURS_THERE}/device")
        self._name = ""

    def keep(self, files: Mapping[str, Path], digest: str, progress: Progress) -> str:
        """The folder with the files, by the artifact's digest. What is there already is hashed, and sent again only
        where it is not as it should be."""
        self._name = f"ready/{digest[:32]}"
        folder = f"{self.folder}/{self._name}"
        self._make()
        if not self.changed(folder, files, progress):
            return folder
        return self.put(files, progress)

    def _lay_out(self, names: Mapping[str, str], programs: object) -> str:
        first: dict[str, str] = {}
        lines = [f"rm -rf {self._name}"]
        for path, key in names.items():
            target = f"{self._name}/{path}"
            lines.append(f"mkdir -p {target.rpartition('/')[0]} || exit 1")
            verb, source = ("cp", first[key]) if key in first else ("mv -f", f"files/{key}")
            lines.append(f"{verb} {source} {target} || {{ rm -rf {self._name}; exit 1; }}")
            first.setdefault(key, target)
        self._run(self._cd + "\n".join(lines))
        return f"{self.folder}/{self._name}"


@dataclass
class AppWatch(Watch):
    """What the app has told so far; `id` is the run's."""

    id: str = ""

    def line(self, raw: bytes) -> None:
        if raw.isdigit() or raw.startswith(OURS):
            super().line(raw)
            if self.words == ["ended", "0", "done"]:
                self.answer = {"result": None}
            return
        try:
            said = json.loads(raw[:LONGEST])
            if said["id"] != self.id:
                return
            if "what" in said:
                labels = [("got", said["got"]), ("expected", said["expected"]), ("todo", said["todo"])]
                error = SetupError(
                    clip(said["what"]), **{name: clip(text) for name, text in labels if text is not None}
                )
                self.answer = {"error": ("SetupError", str(error))}
            else:
                self.stage = clip(said["stage"], 80)
                self.progress(self.stage, count(said["done"]), max(1, count(said["total"])))
                self.last = time.monotonic()
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            self.other = [*self.other, clip(raw.decode(errors="replace"), 200)][-5:]


@dataclass(frozen=True)
class AppJob(Job):
    """`artifact` is relative to the app's folder; each run has a folder of its own there, which goes with it."""

    def _files(self, run: str, stack: ExitStack) -> str:
        files = device_path(f"{HOME}/{OURS_THERE}/run-{secrets.token_hex(8)}")
        stack.callback(self._remove, files)
        return files

    def _remove(self, files: str) -> None:
        with contextlib.suppress(SetupError):
            self.link.run(f"rm -rf {quote(files)}", limit_s=60)

    def _watch(self, progress: Progress, files: str) -> Watch:
        return AppWatch(progress, id=files.rpartition("-")[2])

    def _script(self, run: str, files: str, limit_s: float, forget: bool) -> str:
        settings = {
            "PACKAGE": PACKAGE,
            "ACTIVITY": ACTIVITY,
            "HOME_DIR": HOME,
            "FILES": files.removeprefix(f"{HOME}/"),
            "FOLDER": self.artifact,
            "ID": files.rpartition("-")[2],
        }
        return supervision("app.sh", run, f"{self.folder}/lock", limit_s, [], **settings)

    def _ended(self, run: str, watch: Watch, limit_s: float) -> None:
        word, *rest = watch.words or [""]
        if word == "unstarted":
            raise SetupError(
                f"{self.link.uri}: the demo app was not begun",
                got=clip(" ".join(rest)),
                expected=f"am start -n {PACKAGE}/{ACTIVITY}",
                todo="unlock the phone, look at its screen, and start the app by hand; then run it again",
            )
        super()._ended(run, watch, limit_s)


def app_job(
    link: Link, runs: str, files: Mapping[str, Path], digest: str, boot: str | None, progress: Progress
) -> AppJob:
    """What executes plans of an artifact in the app: its files are sent."""
    store = AppStore(link)
    folder = store.keep(files, digest, progress)
    runner = Runner(PACKAGE, {}, ())
    return AppJob(link, runs, folder.removeprefix(f"{HOME}/"), "", runner, digest, boot, fresh=store.fresh)
