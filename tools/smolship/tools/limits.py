"""Which targets of a bundle load and answer where memory is short: `python -P -m smolship.tools.limits DIR`.

Each target is opened in a process of its own, in a memory cgroup with that limit and no swap, as on a smaller machine:
mapped files count, and the system drops and rereads them. Where no cgroup can be made, the limit is on anonymous memory
alone (`prlimit --data`), and the table says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from smolship.runtime.bundle import Bundle, default_threads, open_bundle
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.execute import COMMAND, in_child
from smolship.runtime.plan import Plan, Text, Timing
from smolship.runtime.result import Result
from smolship.tools import console
from smolship.tools.commands import options
from smolship.tools.units import number, size

ROOTS = ((Path("/sys/fs/cgroup"), "memory.max"), (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"))
TOKENS = 32  # of the prompt, and of the answer


@dataclass(frozen=True)
class Limit:
    """Begins commands under a limit; `how` says which."""

    how: str
    command: tuple[str, ...]


@contextlib.contextmanager
def limited(count: int) -> Iterator[Limit]:
    """A limit of `count` bytes. Raises SetupError where this machine has none to give."""
    for root, name in ROOTS:
        group = root / f"smolship-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if not (group / name).exists():
                continue
            (group / name).write_text(str(count))
            inside = ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs"))
            yield Limit("memory cgroup, mapped files included", inside)
            return
        finally:
            with contextlib.suppress(OSError):
                group.rmdir()
    if prlimit := shutil.which("prlimit"):
        yield Limit("prlimit --data, anonymous memory alone", (prlimit, f"--data={count}", "--"))
        return
    raise SetupError("no memory limit can be set here", todo="run it as root on Linux, or install util-linux")


def measured(bundle: Bundle, target: str, threads: int, limit: Limit) -> Result:
    """One target, loaded cold and warm, with a short answer. Raises SetupError where it is killed."""
    entry = bundle.entry(target)
    text = Text.plain(np.arange(2 * TOKENS) % bundle.manifest.model.vocab)
    timing = Timing((TOKENS,), (TOKENS,), TOKENS, 1)
    plan = Plan("bench", target, entry.engine, entry.info, threads, texts=(text,), timing=timing, loads=True)
    return in_child(plan, bundle.path / entry.folder, (*limit.command, *COMMAND))


def row(result: Result) -> list[str]:
    assert result.loads and result.times and result.memory
    speed = float(np.median(result.times.decode_tokens_per_s(TOKENS)))
    return [
        number(result.loads.cold_ms / 1000, "s"),
        number(result.loads.warm_ms / 1000, "s"),
        number(result.times.ttft_ms[TOKENS][0] / 1000, "s"),
        number(speed, "tokens/s"),
        size(result.memory.anonymous_bytes),
        size(result.memory.file_backed_bytes),
    ]


def table(bundle: Bundle, targets: Sequence[str], limits: Sequence[float], threads: int) -> Table:
    """A row for each target at each limit, in GB."""
    found = Table("target", "limit", "load cold", "warm", f"first of {TOKENS}", "decode", "anonymous", "mapped")
    how, why = "", list[str]()
    for gigabytes in limits:
        for target in targets:
            with limited(int(gigabytes * 1e9)) as limit:
                how = f"{limit.how}; {threads} threads"
                try:
                    cells = row(measured(bundle, target, threads, limit))
                except SetupError as error:
                    cells = ["no"]
                    why.append(f"{target}, {gigabytes:g} GB: {str(error).splitlines()[0]}")
            found.add_row(target, f"{gigabytes:g} GB", *cells)
    found.caption = "\n".join([how, *why])
    return found


def main(
    folder: options.BundleDir,
    limits: Annotated[str, typer.Option(help="In GB, separated by commas.")] = "8,4,3",
    target: options.Targets = None,
    threads: options.Threads = None,
) -> None:
    """Say which targets load and answer in so much memory."""
    bundle = open_bundle(folder)
    sizes = [_gigabytes(text) for text in options.names(limits)]
    targets = options.targets_of(bundle, target)
    bundle.verify()
    console.Screen().print(table(bundle, targets, sizes, threads or default_threads()))


def _gigabytes(text: str) -> float:
    try:
        if 0 < (found := float(text)) < 1e6:
            return found
    except ValueError:
        pass
    raise InputError("a limit cannot be used", got=text, expected="gigabytes, such as 4 or 2.5")


if __name__ == "__main__":
    console.begin()
    app = typer.Typer(add_completion=False)
    app.command()(main)
    sys.exit(console.exit_code(lambda: app(standalone_mode=False) or 0, console.Screen(stderr=True)))
