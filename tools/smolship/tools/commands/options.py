"""What several commands share: options, declared once, and what is made of them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperCommand

from smolship.runtime.bundle import Bundle
from smolship.runtime.errors import InputError, clip
from smolship.runtime.generate import Sampling
from smolship.runtime.plan import MOST
from smolship.tools.console import Screen

Loaded = TypeVar("Loaded")
err = Screen(stderr=True)

LONGEST_NOTE = 4000  # characters
LONGEST_S = MOST  # of a time that is given

INTERPRETED = 0.9  # billions of parameters, from which on a user is told what interpreting them takes

OLD_NAMES = {"--engine": "--target", "-e": "-t", "--engines": "--reveal"}  # still taken; no help shows them

BundleDir = Annotated[Path, typer.Argument(metavar="DIR", help="A bundle, as `smolship export` wrote it.")]
Target = Annotated[
    str | None, typer.Option("--target", "-t", help="Which target of the bundle to run. Default: the first it holds.")
]
Targets = Annotated[
    str | None,
    typer.Option("--target", "-t", help="Targets of the bundle, separated by commas. Default: all it holds."),
]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="Threads. Default: all processors of this process.")]
Units = Annotated[
    str | None,
    typer.Option(help="Where Core ML computes on a Mac: CPU_AND_GPU (the default), CPU_ONLY, CPU_AND_NE or ALL."),
]
MaxKl = Annotated[
    float | None, typer.Option(min=0, help="Fail where the mean KL from the original to the engine exceeds it (nats).")
]
JUnit = Annotated[Path | None, typer.Option(help="Write the checks as JUnit XML.")]
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="URI", help="Where it runs: local, ssh://\\[user@]host[:port] or adb://\\[serial]."
    ),
]
Limit = Annotated[
    str | None,
    typer.Option(
        "--limit",
        metavar="TIME",
        help="On a device, end what runs longer (600, 90s, 10m, 1h). Default: 5m, and 2s for each token of the work.",
    ),
]
ViaApp = Annotated[
    Literal["shell", "app"],
    typer.Option(
        "--via", help="On a phone: executed from adb's shell, or by the demo app (android_demo), if installed."
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Run although the device has too little memory for it; the run may be ended.")
]
NoKleidiai = Annotated[
    bool, typer.Option("--no-kleidiai", help="ONNX on Arm: without KleidiAI's kernels, as the probes simulate it.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else; failures too.")]

System = Annotated[str | None, typer.Option(help="A system prompt, said before all else.")]
NoThink = Annotated[
    bool, typer.Option("--no-think", help="Answer without thinking, by the chat template's own switch.")
]
MaxTokens = Annotated[int, typer.Option(min=1, help="The most tokens of an answer.")]

# Their ranges are those of `Sampling`, which refuses all else.
SAMPLING = "Sampling (defaults: what the model's makers recommend)"
Temperature = Annotated[
    float | None,
    typer.Option(
        help="0: greedy, always the likeliest token; above 0: sampled. Greedy where the makers recommend nothing.",
        rich_help_panel=SAMPLING,
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        help="Only the likeliest tokens that together reach this probability: above 0; 1: all.",
        rich_help_panel=SAMPLING,
    ),
]
TopK = Annotated[int | None, typer.Option(help="Only so many likeliest tokens; 0: all.", rich_help_panel=SAMPLING)]
MinP = Annotated[
    float | None,
    typer.Option(
        help="Only tokens with at least this share of the likeliest one's probability: 0 (all) to 1.",
        rich_help_panel=SAMPLING,
    ),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(
        help="Makes tokens of the text so far, prompt included, less likely: above 0; 1: no change.",
        rich_help_panel=SAMPLING,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Makes sampling repeatable: 0 or more. Default: another each time.", rich_help_panel=SAMPLING),
]


class Command(TyperCommand):
    """A command that takes the old names of its options, too."""

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)
        for option in self.params:
            if old := [name for name, new in OLD_NAMES.items() if new in option.opts]:
                alias = copy(option)
                alias.opts = old
                alias.add_to_parser(parser, ctx)
        return parser


def duration(text: str, option: str, bare: bool = False) -> int:
    """Seconds of a time such as "90s", "10m" or "1h"; `bare`: or of a number alone."""
    found = re.fullmatch(r"([0-9]{1,5})([smh]?)", text.strip().lower())
    seconds = int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0
    if not found or not 0 < seconds <= LONGEST_S or not (found[2] or bare):
        expected = "a time such as 600, 90s, 10m or 1h" if bare else "a time such as 90s, 10m or 1h"
        raise InputError(f"{option} cannot be used", got=text, expected=f"{expected}, of {LONGEST_S // 3600}h at most")
    return seconds


def limit_of(device: str, limit: str | None, force: bool) -> int | None:
    """Seconds of --limit. Refuses it, and --force, where nothing runs on a device."""
    given = [name for name, there in (("--limit", limit is not None), ("--force", force)) if there]
    if given and device == "local":
        raise InputError(
            f"{' and '.join(given)}: for runs on a device",
            got="--device local, which is this machine",
            expected="--device ssh://[user@]host[:port][/folder] or adb://[serial][/folder]",
            todo="name a device, or leave it out",
        )
    return None if limit is None else duration(limit, "--limit", bare=True)


def names(text: str) -> list[str]:
    """A list that was written with commas."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def targets_of(bundle: Bundle, given: str | None) -> list[str]:
    """The targets asked for by --target, each of which the bundle holds; all, where none was asked for."""
    found = list(bundle.manifest.targets) if given is None else names(given)
    if given is None and not found:
        raise InputError("the bundle holds no target", got=bundle.path, todo="export it again")
    for name in found or [""]:
        bundle.entry(name)
    return found


def target_of(bundle: Bundle, given: str | None) -> str:
    """The one target asked for; the bundle's first, where none was."""
    if given is None:
        return targets_of(bundle, None)[0]
    bundle.entry(given)
    return given


def set_units(bundle: Bundle, targets: Sequence[str], units: str | None) -> None:
    """Have the Core ML packages among the targets run on `units`. Says so where there is none."""
    packages = [entry for entry in map(bundle.entry, targets) if entry.engine == "coreml"]
    if units is None:
        return
    if not packages:
        say_notes(["--units is for Core ML, and changes nothing for " + ", ".join(targets)])
    for entry in packages:
        entry.info["units"] = units


def set_kleidiai(bundle: Bundle, targets: Sequence[str], without: bool) -> None:
    """Have ONNX Runtime compute without KleidiAI."""
    for entry in map(bundle.entry, targets if without else ()):
        if entry.engine == "onnx":
            entry.info["kleidiai"] = False


def say_interpreted(bundle: Bundle, targets: Sequence[str], float32: bool = False) -> None:
    """Says, before the work, what the interpreter of Core ML's packages will take of a large model. `float32`: that it
    will compute in float32, too."""
    billions = bundle.manifest.model.parameters / 1e9
    for name in targets:
        if sys.platform != "darwin" and bundle.entry(name).engine == "coreml" and billions >= INTERPRETED:
            memory = f"{2 * billions + 1:.0f} GB of memory" + (
                f", then {4 * billions:.0f} in float32" if float32 else ""
            )
            say_notes(
                [
                    f"{name} is interpreted in numpy here: about {memory}, and {billions:.0f} s for each token that is "
                    "fed alone; Core ML itself runs on a Mac"
                ]
            )


def sampling_of(bundle: Bundle, **given: float | None) -> Sampling:
    """What the model's makers recommend, and instead what was given. Says so where an option changes nothing."""
    asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    found = replace(bundle.sampling, **asked)
    neutral = {"top_p": Sampling.top_p, "top_k": Sampling.top_k, "min_p": Sampling.min_p}
    if found.temperature == 0 and (idle := [flag(n) for n in neutral if asked.get(n, neutral[n]) != neutral[n]]):
        say_notes([f"without --temperature, greedy: {', '.join(idle)} can change nothing"])
    return found


def flag(name: str) -> str:
    """An option as it is typed."""
    return "--" + name.replace("_", "-")


def only(context: typer.Context, option: str, *allowed: str) -> None:
    """Refuses what was typed beside `option` and is not `allowed`: it would change nothing."""
    sources = {name: context.get_parameter_source(name) for name in context.params if name not in allowed}
    if idle := [flag(name) for name, source in sources.items() if source and source.name == "COMMANDLINE"]:
        raise InputError(
            f"options that {option} does not go with",
            got=", ".join(idle),
            expected=f"{option}, and the bundle's own options",
            todo="leave them out; to change them, export the bundle again",
        )


def say_notes(notes: Iterable[str]) -> None:
    """What a user should know, on standard error; devices and files may have had their say in it."""
    for note in notes:
        err.print("note:", clip(note, LONGEST_NOTE), style="yellow", markup=False)


def load_each(load: Callable[[Path], Loaded], paths: Iterable[Path]) -> Iterator[tuple[Path, Loaded]]:
    """What each of the files holds. Raises InputError that names the file."""
    for path in paths:
        try:
            yield path, load(path)
        except InputError as error:
            raise InputError(f"{clip(path)}: {error}") from None


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))
