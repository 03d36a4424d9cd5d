"""The speed of a GGUF file by llama.cpp's own `llama-bench`, where a device has it: phones too, which have no Python.

It says how long whole repetitions took, and nothing else. It takes no tokens and shows none, so that the answer cannot
be held against the probes; times between tokens, loads and memory are not in it. Its rows are kept as they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from smolship.runtime.bench import Spread
from smolship.runtime.bundle import Bundle
from smolship.runtime.child import Progress
from smolship.runtime.errors import GateError, InputError, SetupError, clip, show
from smolship.runtime.files import read_json
from smolship.runtime.sensors.marks import marks
from smolship.runtime.timing import DEPTHS, PROMPTS, TOKENS
from smolship.tools.devices.facts import DeviceFacts
from smolship.tools.devices.heard import Watch
from smolship.tools.devices.job import START_S, TOKEN_S, Job, supervised
from smolship.tools.devices.link import Link, device_path, quote
from smolship.tools.devices.memory import check_memory
from smolship.tools.devices.opening import artifact, check_threads, folders, link_to, look
from smolship.tools.devices.runners import Runner
from smolship.tools.devices.stores import Stores
from smolship.tools.devices.uri import parse
from smolship.tools.devices.watching import watched
from smolship.tools.measure import Update

TOOL, ENGINE = "llama-bench", "gguf"
MOST = 1 << 20  # bytes of its answer
LONGEST = 1 << 62  # ns
Test = tuple[int, int, int]  # tokens of a prompt, tokens that are decoded, tokens in the cache before


@dataclass(frozen=True)
class Rows:
    """What it said, by test; `notes`: what speaks against it, and what it cannot say."""

    raw: list[dict[str, Any]]
    notes: list[str]

    def rows(self) -> Iterator[tuple[str, str]]:
        """(label, value with its unit and spread), for a table."""
        for row in self.raw:
            tokens, (prompt, generated, depth) = row["n_prompt"] + row["n_gen"], _test(row)
            name = f"decode after {depth} tokens" if generated else f"prefill, {prompt} tokens"
            yield name, Spread.of([1e9 * tokens / ns for ns in row["samples_ns"]]).text("tokens/s")
        yield "by", f"{TOOL}, build {clip(self.raw[0].get('build_commit'), 40)}"


@dataclass
class Ended(Watch):
    """It tells nothing while it runs."""

    def line(self, raw: bytes) -> None:
        super().line(raw)
        if self.words == ["ended", "0", "done"]:
            self.answer = {"result": None}


@dataclass(frozen=True)
class ToolJob(Job):
    """Runs the tool, which `runner` names, with `words`."""

    words: Sequence[str] = ()

    def measure(self, tests: Sequence[Test], repeats: int, threads: int, progress: Progress) -> list[dict[str, Any]]:
        """The rows of some tests that differ in one number. Raises GateError where it measured something else."""
        run = device_path(f"{self.folder}/{TOOL}")
        numbers = [",".join(map(str, dict.fromkeys(test[at] for test in tests))) for at in range(3)]
        words = [word for pair in zip(("-p", "-n", "-d"), numbers, strict=True) for word in pair]
        words += ["-r", str(repeats), "-t", str(threads), "-ngl", "0", "-o", "json"]
        job = replace(self, words=[*self.words, *words])
        limit_s = self.limit_s or START_S + TOKEN_S * (repeats + 1) * sum(map(sum, tests))
        self._shell(f"mkdir -p {quote(run)} && rm -f {quote(run)}/result.json", "a folder for the run")
        job._run(run, run, limit_s, progress)
        with tempfile.TemporaryDirectory(prefix="smolship-device-") as folder:
            self.link.pull(f"{run}/result.json", Path(folder) / "rows")
            self._same_boot(self._boot_now(), "after the run")
            try:
                rows = read_json(Path(folder) / "rows", f"{TOOL}'s answer", MOST).get("rows")
            except InputError as error:
                raise SetupError(f"{self.link.uri}: {error}") from None
            return checked(rows, tests, repeats, threads)

    def _watch(self, progress: Progress, files: str) -> Watch:
        return Ended(progress)

    def _script(self, run: str, files: str, limit_s: float, forget: bool) -> str:
        tool = self.runner.command[0]
        beside = quote(f"{tool.rpartition('/')[0]}/../lib:{tool.rpartition('/')[0]}")  # as it is laid out on phones
        start = f"""export LD_LIBRARY_PATH={beside}; exec >{quote(files)}/result.json
        echo '{{"rows":' && "$0" "$@" && echo '}}'"""
        line = ["sh", "-c", start, tool, *self.words]
        return supervised(run, f"{self.folder}/lock", line, {}, limit_s, forget)


def measured(
    device: str,
    bundle: Bundle,
    target: str,
    update: Update,
    *,
    threads: int | None,
    repeats: int,
    limit_s: float | None,
) -> Rows:
    """Have a device's llama-bench measure a target. Raises InputError for another engine than GGUF's, SetupError where
    the device has no llama-bench."""
    address = parse(device)
    if bundle.entry(target).engine != ENGINE or address.scheme == "local":
        raise InputError(
            f"--via {TOOL} is for GGUF files on a device",
            got=f"{target} on {device}",
            expected="--target gguf --device ssh://[user@]host or adb://[serial]",
        )
    context = bundle.manifest.context
    with link_to(address) as link:
        facts = look(link, address)
        tool = facts.tools.get(TOOL) or _missing(link, facts)
        check_threads(link.uri, facts, threads)
        notes = check_memory(link.uri, facts, bundle, [target], False)
        stores = Stores(link, folders(facts, link.uri))
        files, digest = artifact(bundle, target)
        there = stores.put(files, partial(update, f"send {target}"))
        model = f"{there}/{bundle.entry(target).info['file']}"
        runner = Runner(TOOL, {}, [tool])
        job = ToolJob(
            link, f"{stores.home}/runs", there, "", runner, digest, facts.boot_id, limit_s, words=["-m", model]
        )
        ask = partial(job.measure, repeats=repeats, threads=threads or facts.threads or 1)
        before, progress = job.sensors(), partial(update, f"bench {target}")
        raw = ask([(min(n, context), 0, 0) for n in PROMPTS if n <= context] or [(context, 0, 0)], progress=progress)
        raw += ask([(0, TOKENS, n) for n in DEPTHS if n + TOKENS <= context] or [(0, TOKENS, 0)], progress=progress)
        seen = watched(before, [], job.sensors())
    notes += marks(seen.before, seen.during, seen.after, emulated=bool(facts.emulated))
    return Rows(raw, [*notes, f"measured by the device's own {TOOL}: what it answers is not checked"])


def checked(raw: Any, tests: Sequence[Test], repeats: int, threads: int) -> list[dict[str, Any]]:
    """The rows of the tests, in their order. What a device says is not trusted."""
    rows = raw if isinstance(raw, list) and all(isinstance(row, dict) for row in raw) else []
    found = {_test(row): row for row in rows if _timed(row, repeats) and row.get("n_threads") == threads}
    if missing := [test for test in tests if test not in found]:
        raise GateError(
            f"{TOOL} did not measure what it was asked for",
            got=show(raw),
            expected=f"{repeats} times of each of {missing}, with {threads} threads",
            todo=f"take a newer llama.cpp, whose {TOOL} knows -d, or run the command again",
        )
    return [found[test] for test in tests]


def _test(row: dict[str, Any]) -> tuple[Any, Any, Any]:
    return row.get("n_prompt"), row.get("n_gen"), row.get("n_depth")


def _timed(row: dict[str, Any], repeats: int) -> bool:
    times = row.get("samples_ns")
    whole = all(type(one) is int for one in _test(row))
    return (
        whole
        and isinstance(times, list)
        and len(times) == repeats
        and all(type(ns) is int and 0 < ns < LONGEST for ns in times)
    )


def _missing(link: Link, facts: DeviceFacts) -> str:
    raise SetupError(
        f"{link.uri}: the device has no {TOOL}",
        got=f"it was searched in {facts.searched}",
        expected=f"llama.cpp's {TOOL}",
        todo="build llama.cpp there, in ~/llama.cpp/build or, on a phone, in /data/local/tmp/llama.cpp",
    )
