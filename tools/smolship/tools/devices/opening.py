"""From a device's name to what executes plans there."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from packaging.version import InvalidVersion, Version

from smolship.runtime.artifact import listed_digest
from smolship.runtime.bundle import Bundle
from smolship.runtime.child import Progress
from smolship.runtime.errors import InputError, SetupError, clip
from smolship.runtime.execute import Execute
from smolship.runtime.plan import Plan
from smolship.runtime.result import Result
from smolship.tools.devices.app import app_job, check_app, find_app
from smolship.tools.devices.cores import processor
from smolship.tools.devices.facts import FOLDERS, DeviceFacts, read_device
from smolship.tools.devices.job import Job
from smolship.tools.devices.link import Link
from smolship.tools.devices.memory import check_memory
from smolship.tools.devices.programs import problems
from smolship.tools.devices.recording import Recorder
from smolship.tools.devices.runners import Runner, carried_runner, native_runner, python_runner
from smolship.tools.devices.setup import installed, versions
from smolship.tools.devices.stores import Stores
from smolship.tools.devices.uri import Address, parse
from smolship.tools.devices.watching import Here, Sensed
from smolship.tools.devices.wheels import NEEDED
from smolship.tools.measure import Elsewhere, Update

LARGEST_PAGE, OLDEST_GLIBC = 1 << 14, (2, 28)  # where a device does not say; bytes
Via = Literal["shell", "app"]
CARRIED = (2, 9999)  # the C library comes with the program
MACHINES: tuple[Literal["x86_64"], Literal["aarch64"]] = ("x86_64", "aarch64")


def folders(facts: DeviceFacts, uri: str) -> list[str]:
    """Those of ours on a device. The first is the same whatever is sent, and has the lock. The ones above may hold an
    export's cache."""
    return [f"{folder.path}/device" for folder in facts.good_folders(uri)]


def look(link: Link, address: Address) -> DeviceFacts:
    """What a device is; our folders lie in the one that its name gives, where it gives one."""
    return read_device(link, (f"{address.folder}/smolship",) if address.folder else FOLDERS)


def link_to(address: Address) -> Link:
    """Raises SetupError with the cure where the device cannot be reached."""
    if address.scheme == "ssh":
        from smolship.tools.devices.ssh import connect

        return connect(address, ask=sys.stdin.isatty())
    from smolship.tools.devices.adb import connect as connect_adb

    return connect_adb(address)


@dataclass(frozen=True)
class Place:
    """Where plans are executed.

    sensed   by target: what executes its plans there, and asks the sensors
    threads  how many it has for them; None: as many as this process
    facts    of the device; None: it is this machine
    keep     the folder in which results that answer something are left
    notes    what must be said of a run there
    fresh    targets whose artifact came there just before
    """

    uri: str
    sensed: Callable[[str], Sensed]
    threads: int | None = None
    facts: DeviceFacts | None = None
    keep: Path | None = None
    notes: Sequence[str] = ()
    fresh: Collection[str] = ()

    @property
    def here(self) -> bool:
        return self.facts is None

    @property
    def elsewhere(self) -> Elsewhere | None:
        """By target, what executes its plans; None where sessions of this process may answer as well."""
        return None if self.here and not self.keep else lambda name: keeping(self.keep, name, self.sensed(name).execute)

    def recorder(self, name: str, cool_s: float, update: Callable[[str, int, int], None]) -> Recorder:
        return Recorder(self.sensed(name), self.uri, self.facts, name in self.fresh, cool_s, update)


@contextmanager
def executing(
    device: str,
    bundle: Bundle,
    targets: Sequence[str],
    update: Update,
    keep: Path | None = None,
    threads: int | None = None,
    limit_s: float | None = None,
    force: bool = False,
    via: Via = "shell",
) -> Iterator[Place]:
    """The place where plans for the targets are executed.

    keep     a folder in which the results lie afterwards
    limit_s  after which a device ends a plan; None: by the plan's tokens
    force    go on where the device's memory is too small, and say so
    via      "app": executed by the demo app of a phone
    """
    address = parse(device)
    if via == "app":
        check_app(device, {name: bundle.entry(name).engine for name in targets})
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
    if address.scheme == "local":
        yield Place("local", lambda name: Here(bundle.path / bundle.entry(name).folder), keep=keep)
        return
    if refused := [name for name in targets if bundle.entry(name).engine not in ("executorch", *NEEDED)]:
        raise InputError(
            "nothing executes these targets on a device",
            got=f"{', '.join(refused)} on {device}",
            expected=", ".join(("executorch", *NEEDED)),
            todo="leave them out with --target",
        )
    with ExitStack() as stack:
        link = stack.enter_context(link_to(address))
        facts = look(link, address)
        check_threads(link.uri, facts, threads)
        notes = [*check_memory(link.uri, facts, bundle, targets, force), *limited(link.uri, facts)]
        for note in notes:  # before anything is sent
            print("note:", clip(note), file=sys.stderr)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smolship-device-")))
        stores = Stores(link, folders(facts, link.uri))
        if via == "app":
            find_app(link)
        make = partial(_app_job, link, facts, stores) if via == "app" else partial(_job, link, facts, stores, work)
        jobs = {name: make(bundle, name, partial(update, f"send {name}")) for name in targets}
        jobs = {name: replace(job, limit_s=limit_s) for name, job in jobs.items()}
        fresh = {name for name, job in jobs.items() if job.fresh}
        yield Place(link.uri, jobs.__getitem__, facts.threads, facts, keep, notes, fresh)


def limited(uri: str, facts: DeviceFacts) -> list[str]:
    """What must be said of the processors that a run gets."""
    if not facts.quota:
        return []
    return [f"{uri}: {facts.quota[1]} leaves the session the time of {facts.quota[0]:g} processors"]


def check_threads(uri: str, facts: DeviceFacts, threads: int | None) -> None:
    """Raise InputError where more are asked for than a device has cores for a run."""
    most = facts.most_threads()
    if threads and most and threads > most:
        raise InputError(
            f"{uri}: more threads than a run there has cores",
            got=threads,
            expected=f"at most {most}",
            todo="give fewer",
        )


def keeping(folder: Path | None, name: str, execute: Execute) -> Execute:
    """The same, with each result that answers something left as a file."""

    def kept(plan: Plan, progress: Progress) -> Result:
        result = execute(plan, progress)
        if folder and plan.calls:
            result.save(folder / f"{'.'.join(filter(None, (name, plan.arithmetic)))}.json")
        return result

    return kept


def _job(
    link: Link, facts: DeviceFacts, stores: Stores, work: Path, bundle: Bundle, name: str, progress: Progress
) -> Job:
    """Sends what a target's plans need; what is there already is not sent again."""
    files, digest = artifact(bundle, name)
    runner = _runner(link, facts, stores.home, name, bundle.entry(name).engine, work)
    for note in older(link.uri, runner.versions, bundle.manifest.tools):
        print("note:", clip(note), file=sys.stderr)
    program = stores.put(runner.files, progress)
    there = stores.put(files, progress)
    runs = f"{stores.home}/runs"
    job = Job(link, runs, there, program, runner, digest, facts.boot_id, fresh=stores.last.fresh)
    return replace(job, processor=processor(facts.cores))


def older(uri: str, there: Iterable[str], made_with: Mapping[str, str]) -> list[str]:
    """What must be said of engines on a device that are older than those that the artifact was made with: they may lack
    operators. `there` has texts such as "onnxruntime 1.32.0"."""
    found = []
    for name, _, version in (one.partition(" ") for one in there):
        try:
            if name in made_with and Version(version) < Version(made_with[name]):
                found.append(
                    f"{uri}: {name} {version} is older there than {made_with[name]}, which the artifact was made with; "
                    f"where it does not load: smolship devices setup {uri}"
                )
        except InvalidVersion:
            continue
    return found


def _app_job(link: Link, facts: DeviceFacts, stores: Stores, bundle: Bundle, name: str, progress: Progress) -> Job:
    """The same for the demo app, which needs the artifact alone."""
    files, digest = artifact(bundle, name)
    return app_job(link, f"{stores.home}/runs", files, digest, facts.boot_id, progress)


def artifact(bundle: Bundle, name: str) -> tuple[dict[str, Path], str]:
    """A target's files, by their names in its folder, and the artifact's digest."""
    entry, listed = bundle.entry(name), bundle.manifest.files
    start = entry.folder + "/"
    files = {file.removeprefix(start): bundle.path / file for file in listed if file.startswith(start)}
    hashes = {file: listed[start + file].sha256 for file in files}
    return files, listed_digest(hashes, str(entry.info["file"]))


def _runner(link: Link, facts: DeviceFacts, folder: str, target: str, engine: str, work: Path) -> Runner:
    if engine == "executorch":
        from smolship.tools.devices.build import ANDROID_HOME, build, build_carried

        if facts.machine not in MACHINES:
            raise SetupError(
                f"{link.uri}: no runner can be built for it", got=facts.machine, expected=", ".join(MACHINES)
            )
        libc = facts.libc[0] if facts.libc else None
        if libc == "bionic" and facts.machine == "aarch64" and os.environ.get(ANDROID_HOME):
            runner = native_runner(build("android-aarch64", runners()))
        elif libc == "glibc":
            runner = native_runner(build(facts.machine, runners()))
        else:
            runner = carried_runner(build_carried(facts.machine, runners()))
        check_programs(link.uri, facts, runner.name, runner.files.values(), carries=runner.carries)
        return runner
    found = installed(link, folder, engine)
    if found is None and not facts.pythons:
        raise SetupError(
            f"{link.uri}: {target} needs Python there, and it has none",
            got=facts.missing.get("python", "none was found"),
            expected="a board with Python, or the target executorch, which brings all that it needs (phones too)",
            todo="smolship export MODEL --to executorch, then --target executorch",
        )
    if found is None:
        raise SetupError(
            f"{link.uri}: nothing there executes {target}",
            got=f"no Python was set up for {engine}{_unused(facts, engine)}",
            expected="numpy and the engine in a folder of smolship's own",
            todo=f"smolship devices setup {link.uri} --target {engine}",
        )
    return python_runner(*found, work, versions(link, found[1]))


def _unused(facts: DeviceFacts, engine: str) -> str:
    """The engine's own programs on the device, which no plan can be given: they take texts, and tell no times of single
    tokens and no layers."""
    there = [path for name in ("llama-bench", "llama-server") if engine == "gguf" and (path := facts.tools.get(name))]
    if not there:
        return ""
    times = "; its times alone: smolship bench --via llama-bench" if facts.tools.get("llama-bench") else ""
    return f"; llama.cpp's own {' and '.join(there)} cannot execute plans{times}"


def runners() -> Path:
    """Where compiled runners are kept, each in a folder by its content."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "smolship-runners"


def check_programs(
    uri: str, facts: DeviceFacts, name: str, files: Iterable[Path], todo: str | None = None, carries: bool = False
) -> None:
    """Raise SetupError where the device could not load what would be sent, which `carries` its own C library or not."""
    glibc = CARRIED if carries else None
    if not carries and facts.libc and facts.libc[0] == "glibc":
        found = re.match(r"(\d{1,4})\.(\d{1,4})", facts.libc[1] or "")
        glibc = (int(found[1]), int(found[2])) if found else OLDEST_GLIBC
    page = facts.page_size or LARGEST_PAGE
    if wrong := [one for path in files for one in problems(path, str(facts.machine), page, glibc)]:
        raise SetupError(f"{uri}: it cannot load {name}", got="; ".join(wrong), todo=todo)
