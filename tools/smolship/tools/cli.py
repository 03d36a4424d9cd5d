"""The `smolship` command.

Exit codes: 0 done, 1 a gate failed, 2 bad input, 3 the environment falls short, 70 a fault of smolship, 130
interrupted, 143 terminated.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from smolship.runtime.bundle import Bundle, default_threads, open_bundle
from smolship.runtime.errors import InputError, clip
from smolship.runtime.files import read_text
from smolship.runtime.generate import Sampling
from smolship.runtime.generate import generate as generate_ids
from smolship.tools.console import Screen, argument_text, begin, exit_code, read_stdin

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="From a checkpoint to a device: small language models, quantized once, exported to ExecuTorch and ONNX, "
    "and proven to say the same.\n\n"
    "A first run:  [bold]smolship export HuggingFaceTB/SmolLM2-135M-Instruct -o smollm2[/bold], then "
    "[bold]smolship parity smollm2[/bold], [bold]smolship bench smollm2[/bold] and [bold]smolship chat smollm2[/bold].",
)
err = Screen(stderr=True)
ENDINGS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

BundleDir = Annotated[Path, typer.Argument(metavar="DIR", help="A bundle, as `smolship export` wrote it.")]
Engine = Annotated[
    str | None, typer.Option("--engine", "-e", help="Which target of the bundle to run. Default: the first it holds.")
]
Engines = Annotated[
    str | None, typer.Option("--engine", "-e", help="Targets to run, separated by commas. Default: all it holds.")
]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="Threads. Default: all processors of this process.")]
Units = Annotated[
    str | None,
    typer.Option(help="Where Core ML computes on a Mac: CPU_AND_GPU (the default), CPU_ONLY, CPU_AND_NE or ALL."),
]
Temperature = Annotated[float | None, typer.Option(min=0, help="0 is greedy. Default: the model's own.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="Nucleus sampling. Default: the model's own.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Makes sampling repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ends in SystemExit."""
    begin()
    for ending in ENDINGS:
        if signal.getsignal(ending) is not signal.SIG_IGN:  # nohup wants it ignored
            signal.signal(ending, _terminated)
    sys.exit(run(arguments))


def _terminated(signum: int, frame: object) -> NoReturn:
    """Leave as from Ctrl-C, so that what is half-made is put away; another signal does not disturb that."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    raise SystemExit(128 + signum)


def run(arguments: list[str] | None = None) -> int:
    """The exit code of the command line `arguments` (sys.argv without them). No traceback for a bad input."""
    return exit_code(lambda: int(app(arguments, standalone_mode=False) or 0), err)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"smolship {version('smolship')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A folder with config.json and safetensors, a .gguf file, or a Hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle to write. An older bundle there is replaced.")],
    to: Annotated[
        str, typer.Option(help="Targets, separated by commas: executorch, onnx, coreml, gguf; or all.")
    ] = "executorch,onnx",
    quant: Annotated[str, typer.Option(help="Weights of the layers: int4, int8 or none.")] = "int4",
    context: Annotated[int, typer.Option(help="Tokens that the cache holds.")] = 2048,
    group_size: Annotated[int, typer.Option(help="Inputs that share an int4 scale: 32, 64 or 128.")] = 32,
    embedding_bits: Annotated[
        int | None, typer.Option(help="4, 8 or 16 for the embedding, and the head tied to it. Default 8.")
    ] = None,
    head_bits: Annotated[int | None, typer.Option(help="4, 8 or 16 for a head of its own. Default 8.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit, for a Hub id.")] = None,
    probe_tokens: Annotated[
        int, typer.Option(min=0, max=1 << 20, help="Positions of text that parity is measured on; 0 leaves it out.")
    ] = 2048,
    probe_text: Annotated[
        Path | None, typer.Option(help="Measure parity on this UTF-8 text. Default: English and code from Python.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a checkpoint: quantize it once and write every target, with probes for parity.

    Weights are read lazily and in pieces; each step is a process of its own, whose time and peak memory are printed.

    Examples:  smolship export ./SmolLM3-3B -o smollm3 --context 8192   |   smolship export model.gguf -o m --to onnx
    """
    from smolship.export import export as run_export
    from smolship.export.targets import TARGETS
    from smolship.tools.display import Steps

    text = None if probe_text is None else read_text(probe_text, "probe text")
    targets = list(TARGETS) if to == "all" else _names(to)
    with Steps(err) as steps:
        bundle = run_export(
            model,
            out,
            to=targets,
            quant=quant,  # type: ignore[arg-type]
            context=context,
            group_size=group_size,
            embedding=embedding_bits,  # type: ignore[arg-type]
            head=head_bits,  # type: ignore[arg-type]
            revision=revision,
            probe_tokens=probe_tokens,
            probe_text=text,
            progress=steps.update,
        )
    _show_bundle(bundle, as_json)


@app.command()
def inspect(folder: BundleDir, as_json: Json = False) -> None:
    """Show what a bundle holds, and check every file against its hash."""
    bundle = open_bundle(folder)
    bundle.verify()
    _show_bundle(bundle, as_json)


@app.command()
def parity(
    folder: BundleDir,
    engine: Engines = None,
    quick: Annotated[bool, typer.Option("--quick", help="64 positions of each text, and fewer prefills.")] = False,
    threads: Threads = None,
    units: Units = None,
    max_kl: Annotated[
        float | None, typer.Option(help="Fail where the mean KL from the original to the engine exceeds it (nats).")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the checks as JUnit XML.")] = None,
    as_json: Json = False,
) -> None:
    """Check, stage by stage, that each engine says what the original said. Exit code 1 where a gate fails."""
    from smolship.tools.display import Steps
    from smolship.tools.junit import write_junit
    from smolship.tools.measure import parity_of
    from smolship.tools.outputs import check_file
    from smolship.tools.tables import parity_table

    if junit:
        check_file(junit, "the JUnit file")
    bundle = _bundle(folder, units)
    bundle.verify()
    with Steps(err) as steps:
        reports = parity_of(
            bundle,
            _targets(bundle, engine),
            steps.update,
            quick=quick,
            threads=threads or default_threads(),
            max_kl=max_kl,
        )
    if junit:
        write_junit(junit, reports)
    if as_json:
        _print_json([report.to_dict() for report in reports])
    else:
        for report in reports:
            Screen().print(parity_table(report))
            for note in filter(None, (check.note for check in report.checks)):
                err.print("note:", clip(note), style="yellow", markup=False)
            if report.found:
                Screen().print(report.found, style="red", markup=False)
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


@app.command()
def weights(
    folder: BundleDir,
    engine: Engines = None,
    every: Annotated[bool, typer.Option("--all", help="A row for each tensor, not for each kind of layer.")] = False,
    engines: Annotated[
        bool, typer.Option("--engines", help="Also let each engine reveal the matrices of the first layer.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read codes, scales and all the rest back out of each artifact and compare them, bit for bit, with the digest of
    the set. Exit code 1 where a tensor is missing, differs, or is not of the set."""
    from smolship.runtime.readback.compare import compare
    from smolship.tools.display import Steps
    from smolship.tools.weights import findings, revealed, to_json, verdicts_table, weights_table

    bundle = open_bundle(folder)
    with Steps(err) as steps:
        held = compare(bundle, _targets(bundle, engine), lambda target, n, total: steps.update(target, "", n, total))
        verdicts = revealed(bundle, _targets(bundle, engine), steps.update) if engines else []
    if as_json:
        _print_json(to_json(bundle, held, verdicts))
    else:
        Screen().print(weights_table(bundle, held, every))
        for line in findings(held, verdicts):
            Screen().print(line, style="red", markup=False, highlight=False)
        if verdicts:
            Screen().print(verdicts_table(verdicts))
    if findings(held, verdicts):
        raise typer.Exit(1)


@app.command()
def bench(
    folder: BundleDir,
    engine: Engines = None,
    threads: Threads = None,
    units: Units = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Measured repeats, after a warm-up.")] = 5,
    as_json: Json = False,
) -> None:
    """Measure load, time to first token, prefill, decode and memory, each engine in a fresh process."""
    from smolship.tools.display import Steps
    from smolship.tools.measure import bench_of
    from smolship.tools.tables import bench_table

    bundle = _bundle(folder, units)
    bundle.verify()
    with Steps(err) as steps:
        reports = bench_of(
            bundle, _targets(bundle, engine), steps.update, threads=threads or default_threads(), repeats=repeats
        )
    if as_json:
        _print_json([report.to_dict() for report in reports])
    else:
        Screen().print(bench_table(reports))


@app.command()
def generate(
    folder: BundleDir,
    prompt: Annotated[str, typer.Argument(help="What to say; `-` reads it from standard input.")],
    engine: Engine = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Stop after so many tokens.")] = 256,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text as it is, without the chat template.")] = False,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Answer one prompt, streaming."""
    from smolship.tools.display import generation_line
    from smolship.tools.measure import facts

    bundle = open_bundle(folder)
    text = read_stdin("the prompt") if prompt == "-" else argument_text(prompt, "the prompt")
    if raw:
        ids = bundle.tokenizer.encode(text)
    else:
        ids = bundle.tokenizer.encode(bundle.template.render([{"role": "user", "content": text}]), special=False)
    sampling = _sampling(bundle, temperature, top_p, seed)
    with bundle.session(_target(bundle, engine), threads) as session:
        stream, pieces = bundle.tokenizer.stream(), []
        generation = generate_ids(session, ids, max_tokens, bundle.stop_ids, sampling)
        for token in generation:
            pieces.append(stream.push(token))
            if not as_json:
                print(pieces[-1], end="", flush=True)
        pieces.append(stream.finish())
    if as_json:
        _print_json({"text": "".join(pieces), **facts(generation)})
    else:
        print(pieces[-1])
        err.print(generation_line(generation), style="dim", highlight=False)


@app.command()
def chat(
    folder: BundleDir,
    engine: Engine = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 1024,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    threads: Threads = None,
) -> None:
    """Talk to the model; the cache is kept from turn to turn. Ctrl-C stops an answer, Ctrl-D ends."""
    from smolship.tools.display import talk

    bundle = open_bundle(folder)
    system = system and argument_text(system, "the system prompt")
    with bundle.session(_target(bundle, engine), threads) as session:
        talk(bundle, session, _sampling(bundle, temperature, top_p, seed), system, max_tokens, err)


@app.command()
def report(
    folder: BundleDir,
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("report.html"),
    quick: Annotated[bool, typer.Option("--quick", help="Quick parity and three repeats.")] = False,
    threads: Threads = None,
) -> None:
    """Parity, bench and one answer of every engine, as one HTML page. Exit code 1 where a gate fails."""
    from smolship.tools.demo import full_report
    from smolship.tools.outputs import check_file

    check_file(out, "the report")
    if not full_report(open_bundle(folder), out, quick=quick, threads=threads, console=err):
        raise typer.Exit(1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _bundle(folder: Path, units: str | None) -> Bundle:
    """The bundle, its Core ML packages to be run on `units`."""
    bundle = open_bundle(folder)
    for entry in bundle.manifest.targets.values():
        if units and entry.engine == "coreml":
            entry.info["units"] = units
    return bundle


def _targets(bundle: Bundle, engines: str | None) -> list[str]:
    names = _names(engines) if engines else list(bundle.manifest.targets)
    for name in names:
        bundle.entry(name)
    return names


def _target(bundle: Bundle, engine: str | None) -> str:
    if not bundle.manifest.targets:
        raise InputError("the bundle holds no target", got=bundle.path)
    return engine or next(iter(bundle.manifest.targets))


def _sampling(bundle: Bundle, temperature: float | None, top_p: float | None, seed: int | None) -> Sampling:
    from dataclasses import replace

    given: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "seed": seed}
    return replace(bundle.sampling, **{key: value for key, value in given.items() if value is not None})


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1))


def _show_bundle(bundle: Bundle, as_json: bool) -> None:
    from dataclasses import asdict

    from smolship.tools.tables import manifest_table
    from smolship.tools.units import notes

    if as_json:
        _print_json(asdict(bundle.manifest))
        return
    Screen().print(manifest_table(bundle.manifest, bundle.path))
    for note in notes(bundle.manifest):
        err.print("note:", note, style="yellow", markup=False)


if __name__ == "__main__":
    main()
