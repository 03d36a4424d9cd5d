"""A run on a device: a plan is sent, executed under supervision, and its result fetched and checked."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from smolship.runtime.child import Progress
from smolship.runtime.errors import Fault, GateError, InputError, SetupError, clip
from smolship.runtime.plan import Plan
from smolship.runtime.records import to_json
from smolship.runtime.result import Result
from smolship.runtime.sensors.tree import Tree, parse_dump, parse_samples, script
from smolship.tools.devices.heard import WHY, Watch, remedy, status_words
from smolship.tools.devices.link import Link, LinkLost, device_path, quote
from smolship.tools.devices.runners import Runner

BEAT_S = 5.0  # between two heartbeats
SILENT_S = 30  # without one, after which the runner is ended
START_S = 300  # of a run, beside the time for its tokens
TOKEN_S = 2.0  # for each token, at the slowest
ERRORS = {kind.__name__: kind for kind in (InputError, GateError, SetupError, Fault)}
INTERRUPTED_S = 9  # after Ctrl-C, for the runner's end
MOST_LINES = 20  # of an error that a device tells


@dataclass(frozen=True)
class Job:
    """Executes plans for one artifact with one runner.

    folder    where runs lie on the device
    artifact  and where the artifact does
    program   and the runner's files
    digest    of the artifact, as artifact.digest has it
    boot      the device's boot_id when it was looked at
    fresh     the artifact came to the device just before
    """

    link: Link
    folder: str
    artifact: str
    program: str
    runner: Runner
    digest: str
    boot: str | None = None
    limit_s: float | None = None
    fresh: bool = False
    processor: str = ""  # of the device, with its features: said where the engine has an instruction that it lacks

    def execute(self, plan: Plan, progress: Progress) -> Result:
        """Raises the runner's own SmolshipError; SetupError where the link, the device or the runner failed. What a
        prompt is and what it is answered does not stay on the device."""
        run = device_path(f"{self.folder}/{plan.digest[:16]}")
        with ExitStack() as stack:
            temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="smolship-device-"))
            if plan.answer:
                run += f"-{secrets.token_hex(4)}"  # nobody else's
                stack.callback(self._forget, run)
            files = self._files(run, stack)
            given, made = Path(temporary) / "plan.json", Path(temporary) / "result.json"
            given.write_bytes(to_json(plan))
            folders = f"{quote(run)} {quote(files)}"
            self._shell(f"mkdir -p {folders} && rm -f {quote(files)}/result.json", "a folder for the run")
            self.link.push(given, f"{files}/plan.json")
            self._run(run, files, self.limit_s or limit(plan), progress, forget=plan.answer is not None)
            self.link.pull(f"{files}/result.json", made)
            self._same_boot(self._boot_now(), "after the run")
            result = self._result(made, plan, run)
        if result.artifact != self.digest:
            raise SetupError(
                f"{self.link.uri}: the artifact on the device is another",
                got=result.artifact,
                expected=self.digest,
                todo="run again: it is sent anew",
            )
        return result

    def _result(self, made: Path, plan: Plan, run: str) -> Result:
        """What the device answered. Raises SetupError where that is no answer to the plan."""
        try:
            result = Result.load(made)
            result.answers(plan)
        except InputError as error:
            parts = error.parts()
            raise SetupError(
                f"{self.link.uri}: what the device answered is not taken: {parts['what']}",
                got="; ".join(filter(None, (parts["got"], self._log(run)))) or None,
                expected=parts["expected"],
                todo="run it again; if it stays so, look at the device's memory and disk",
            ) from None
        return result

    def samples(self, plan: Plan) -> list[Tree]:
        """What the sensors said while the plan was executed, once a second."""
        with tempfile.TemporaryDirectory(prefix="smolship-device-") as temporary:
            found = Path(temporary) / "samples"
            self.link.pull(device_path(f"{self.folder}/{plan.digest[:16]}/samples"), found)
            return parse_samples(found.read_bytes())

    def sensors(self) -> Tree:
        """What the sensors say now."""
        return parse_dump(self.link.run(script("self"), limit_s=60).out)

    def _files(self, run: str, stack: ExitStack) -> str:
        """The folder of plan.json and result.json; what must go in the end is put on the stack."""
        return run

    def _watch(self, progress: Progress, files: str) -> Watch:
        return Watch(progress)

    def _script(self, run: str, files: str, limit_s: float, forget: bool) -> str:
        """What runs the plan on the device, under supervision."""
        line = self.runner.line(self.program, f"{files}/plan.json", f"{files}/result.json", self.artifact)
        return supervised(run, f"{self.folder}/lock", line, self.runner.environment(self.program), limit_s, forget)

    def _run(self, run: str, files: str, limit_s: float, progress: Progress, forget: bool = False) -> None:
        watch, done = self._watch(progress, files), threading.Event()
        progress(f"starting; it has {limit_s:,.0f} s", 0, 1)
        text = self._script(run, files, limit_s, forget)
        try:
            self.link.run(text, feed=_beats(done), lines=watch.line, limit_s=limit_s + 2 * SILENT_S)
        except LinkLost as error:
            raise SetupError(
                f"{self.link.uri}: the link was lost while it ran ({watch.stage})",
                got=error.parts()["got"] or str(error),
                expected=f"what runs there ends by itself within {SILENT_S + 10} s",
                todo="run the command again",
            ) from None
        except KeyboardInterrupt:
            self._wait_for_end(done)
            raise
        finally:
            done.set()
        self._ended(run, watch, limit_s)

    def _wait_for_end(self, done: threading.Event) -> None:
        """After an interrupt: until what ran there has ended and its lock is gone, so that the next run finds it free.
        A link that is gone, and a second interrupt, end the wait."""
        done.set()
        with contextlib.suppress(SetupError, KeyboardInterrupt):
            self.link.run(self._unlocked(8), limit_s=INTERRUPTED_S)

    def _unlocked(self, most_s: int) -> str:
        """The script that waits until this process' supervisor has ended, so long at most."""
        return (
            f"left={most_s}; while owner=; read -r pid boot owner rest 2>/dev/null <{quote(self.folder)}/lock/holder; "
            f'[ "$owner" = {owner()} ] && [ $left -gt 0 ]; do sleep 1; left=$((left-1)); done'
        )

    def _boot_now(self) -> str:
        """The boot_id of this moment; empty where the device does not say."""
        done = self.link.run("cat /proc/sys/kernel/random/boot_id 2>/dev/null || :", limit_s=60)
        return clip(done.out.decode(errors="replace").strip(), 80)

    def _same_boot(self, boot: str, when: str) -> None:
        """Raise where the device has restarted since it was looked at."""
        if self.boot and boot not in ("", "none", self.boot):
            raise SetupError(
                f"{self.link.uri}: the device has restarted {when}: what it answered is not taken",
                got=f"boot_id {boot}",
                expected=f"{self.boot}, as before anything was sent",
                todo="run it again; if it restarts again, look at its power supply, and at its heat and memory",
            )

    def _ended(self, run: str, watch: Watch, limit_s: float) -> None:
        """Raise what went wrong; nothing where the runner answered and ended well."""
        self._same_boot(watch.boot, "before the run")
        word, *rest = watch.words or ["nothing"]
        if word == "busy":
            raise SetupError(
                f"{self.link.uri}: another run is going on",
                got=clip(" ".join(rest[1:])),
                expected="one run at a time",
                todo="wait for it, or end it there: kill " + clip(" ".join(rest[:1])),
            )
        if word == "full":
            raise SetupError(
                f"{self.link.uri}: the run's files cannot be written there; nothing was started",
                got=clip(" ".join(rest)) or "a file stayed empty",
                expected=f"some megabytes of room in {self.folder}",
                todo=f"free some space there (smolship devices clean {self.link.uri} removes all that is smolship's)",
            )
        if word == "left":
            raise SetupError(
                f"{self.link.uri}: a runner of an earlier run is still there",
                got=clip(f"process {' '.join(rest[:1])}, whose supervisor was killed"),
                expected="nothing of ours, which would take memory and time from this run",
                todo="end it there: kill -9 " + clip(" ".join(rest[:1])),
            )
        if "error" in watch.answer:
            kind, text = watch.answer["error"]
            lines = [clip(line) for line in text.split("\n")[:MOST_LINES]]
            raise ERRORS.get(kind, SetupError)("\n".join([f"{self.link.uri}: {lines[0]}", *lines[1:]]))
        if word == "ended" and len(rest) == 2 and rest[0] == "0" and "result" in watch.answer:
            return
        status = int(rest[0]) if word == "ended" and rest and rest[0].isdecimal() else None
        why = WHY.get(rest[1], "") if word == "ended" and len(rest) == 2 else ""
        late = f"{why}: {limit_s:,.0f} s" if why == WHY["late"] else why
        words = [late, status_words(status), self._illegal(status), self._log(run), *watch.other]
        raise SetupError(
            f"{self.link.uri}: the runner ended before it answered ({watch.stage})",
            got="; ".join(filter(None, words)),
            expected=f"an answer; the last sign of life was {time.monotonic() - watch.last:.0f} s ago",
            todo=remedy(status, why),
        )

    def _forget(self, run: str) -> None:
        """Remove a run's folder, once its supervisor, which removes it where nobody listens any more, has ended."""
        script = f"{self._unlocked(5)}; [ -e {quote(run)}/alive ] || rm -rf {quote(run)}"
        with contextlib.suppress(SetupError):
            self.link.run(script, limit_s=INTERRUPTED_S)

    def _illegal(self, status: int | None) -> str:
        """Which engine met which processor, where an instruction was none."""
        if status != 128 + signal.SIGILL:
            return ""
        return f"{', '.join(self.runner.versions) or self.runner.name} on {self.processor or 'an unknown processor'}"

    def _log(self, run: str) -> str:
        """The last lines that the runner wrote to its standard error."""
        log = f"{quote(run)}/log"
        try:
            return clip(
                self.link.run(f"[ ! -e {log} ] || tail -n 5 {log} 2>&1", limit_s=30).out.decode(errors="replace")
            )
        except SetupError:
            return ""

    def _shell(self, script: str, what: str) -> None:
        done = self.link.run(script, limit_s=60)
        if done.status:
            raise SetupError(
                f"{self.link.uri}: {what} cannot be made", got=(done.err or done.out).decode(errors="replace").strip()
            )


def owner() -> str:
    """This process, as a device is told of it."""
    return "".join(c if (c.isascii() and c.isalnum()) or c in "-." else "-" for c in f"{platform.node()}-{os.getpid()}")


def supervised(
    run: str, lock: str, line: Sequence[str], variables: dict[str, str], limit_s: float, forget: bool = False
) -> str:
    """The script that runs a command line under supervise.sh. `forget`: the folder goes where nobody listens."""
    given = [f"export {name}={quote(value)}" for name, value in (variables | {"TMPDIR": run}).items()]
    given += ["set -- " + " ".join(map(quote, line))]
    return supervision("supervise.sh", run, lock, limit_s, given, FORGET="1" if forget else "")


def supervision(file: str, run: str, lock: str, limit_s: float, given: Sequence[str], **more: str) -> str:
    """A script of ours that supervises a run, behind lines that are `given`. `more`: its own settings."""
    settings = {"RUN": run, "LOCK": lock, "OWNER": owner(), "LIMIT": str(int(limit_s)), "SILENT": str(SILENT_S), **more}
    lines = [f"{name}={quote(value)}" for name, value in settings.items()]
    lines += [*given, f"sample() {{\n{script('$pid', often=True)}\n}}"]
    return "\n".join([*lines, *map(shell_file, ("lock.sh", "run.sh", file))])


def shell_file(name: str) -> str:
    """A shell script, or a part of one, that lies beside this module."""
    return resources.files(__package__).joinpath(name).read_text()


def limit(plan: Plan) -> float:
    """Seconds that a plan may take: two for each token, and five minutes."""
    tokens = sum(call.stop - call.start for call in plan.calls)
    if plan.timing:
        rounds = plan.timing.repeats + 1
        tokens += rounds * (sum(plan.timing.prompts) + len(plan.timing.depths) * plan.timing.tokens)
        tokens += sum(plan.timing.depths)
        tokens += plan.timing.warmups * (min(plan.timing.prompts) + min(plan.timing.depths) + plan.timing.tokens)
        return START_S + TOKEN_S * tokens + plan.timing.sustained
    if plan.answer:
        tokens += len(plan.texts[0].ids) + plan.answer.max_tokens
    return START_S + TOKEN_S * tokens


def _beats(done: threading.Event) -> Iterator[bytes]:
    count = 0
    while not done.wait(BEAT_S if count else 0):
        count += 1
        yield b"%d\n" % count
