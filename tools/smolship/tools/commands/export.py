"""`smolship export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from smolship.export.forecast.devices import DEVICES
from smolship.runtime.files import read_text
from smolship.tools.commands import options
from smolship.tools.commands.inspect import show_bundle


def export(
    typed: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A folder with config.json and safetensors, a .gguf file, or a Hub id."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The bundle to write. An older bundle there is replaced.")
    ] = None,
    to: Annotated[
        str, typer.Option(help="Targets, separated by commas: executorch, onnx, coreml, gguf; or all.")
    ] = "executorch,onnx",
    quant: Annotated[str, typer.Option(help="Weights of the layers: int4, int8 or none.")] = "int4",
    context: Annotated[int, typer.Option(help="Tokens that the cache holds.")] = 2048,
    group_size: Annotated[
        int | None, typer.Option(help="Inputs that share an int4 scale: 32, 64 or 128. Default 32.")
    ] = None,
    embedding_bits: Annotated[
        int | None, typer.Option(help="4, 8 or 16 for the embedding, and the head tied to it. Default 8.")
    ] = None,
    head_bits: Annotated[int | None, typer.Option(help="4, 8 or 16 for a head of its own. Default 8.")] = None,
    target_bpw: Annotated[
        float | None,
        typer.Option(
            metavar="BITS",
            help="Mix int4 and int8: the forms that cost least within so many bits a parameter, scales included.",
        ),
    ] = None,
    target_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The same within so many bytes of weights: 90MB, 1.8GB.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit, for a Hub id.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the tokenizer lies, for a model that brings none.")
    ] = None,
    probe_tokens: Annotated[
        int, typer.Option(min=0, max=1 << 20, help="Positions of text that parity is measured on; 0 leaves it out.")
    ] = 2048,
    probe_text: Annotated[
        Path | None, typer.Option(help="Measure parity on this UTF-8 text. Default: English and code from Python.")
    ] = None,
    arm: Annotated[
        bool,
        typer.Option(
            "--arm", help="Also measure how ONNX Runtime computes int4 on Arm (Pi 5, phones; Pi 4), for parity there."
        ),
    ] = False,
    calibrate: Annotated[
        str,
        typer.Option(
            metavar="none|self|FILE",
            help="Bring the weights nearer to the original, on text that it writes itself, or a text, or JSONL chats.",
        ),
    ] = "none",
    effort: Annotated[str | None, typer.Option(help="Of --calibrate: quick, default or best.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of --calibrate, for what is drawn at random.")] = None,
    add: Annotated[
        str | None,
        typer.Option(
            help="Add these targets to the bundle --out, with the model and the options that it was made from."
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Take no step that was kept, and keep none: see smolship cache.")
    ] = False,
    as_json: options.Json = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing: say what it would write, take, and need when it runs.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option("--for", metavar="DEVICE", help=f"Refuse (1) what it cannot hold: {', '.join(DEVICES)}."),
    ] = None,
) -> None:
    """Export a checkpoint: quantize it once and write every target, with probes for parity.

    Weights are read lazily and in pieces; each step is a process of its own, whose time and peak memory are printed.

    Examples:

    smolship export HuggingFaceTB/SmolLM2-135M-Instruct -o smollm2
    smolship export ./SmolLM3-3B -o smollm3 --to all --context 8192
    smolship export ./SmolLM3-3B -o smollm3 --calibrate self
    smolship export ./SmolLM2-135M -o smollm2 --target-bpw 5.5 --calibrate self
    smolship export model.gguf -o model --to onnx
    smolship export ./SmolLM3-3B --dry-run --for phone-8gb
    smolship export ./SmolLM3-3B -o smollm3 --add coreml
    """
    from smolship.export import add_targets
    from smolship.export import export as run_export
    from smolship.export.forecast import forecast
    from smolship.export.targets import TARGETS
    from smolship.tools.display import Steps
    from smolship.tools.forecast_table import show_forecast

    if add is not None:
        options.only(
            typed,
            "--add",
            "out",
            "model",
            "add",
            "revision",
            "tokenizer",
            "probe_text",
            "calibrate",
            "no_cache",
            "as_json",
        )
    if add is None and model is None:
        raise typer.BadParameter("missing: name the model to export", param_hint="MODEL")
    if out is None and not dry_run:
        raise typer.BadParameter("an export needs a folder to write to; only --dry-run does not", param_hint="--out")
    text = None if probe_text is None else read_text(probe_text, "probe text")
    if add is not None and out is not None:
        with Steps(options.err) as steps:
            bundle = add_targets(
                out,
                options.names(add),
                model=model,
                revision=revision,
                probe_text=text,
                tokenizer=tokenizer,
                calibrate=None if calibrate == "none" else calibrate,
                cache=not no_cache,
                progress=steps.update,
            )
        show_bundle(bundle, as_json)
        return
    assert model is not None
    asked: dict[str, Any] = {
        "to": list(TARGETS) if to == "all" else options.names(to),
        "quant": quant,
        "context": context,
        "group_size": group_size,
        "embedding": embedding_bits,
        "head": head_bits,
        "revision": revision,
        "tokenizer": tokenizer,
        "probe_tokens": probe_tokens,
        "probe_text": text,
        "arm": arm,
        "calibrate": calibrate,
        "effort": effort,
        "seed": seed,
        "target_bpw": target_bpw,
        "target_size": target_size,
        "device": device,
    }
    if dry_run or out is None:
        with Steps(options.err) as steps:
            found = forecast(model, out, **asked, progress=steps.update)
        show_forecast(found, model, as_json)
        return
    with Steps(options.err) as steps:
        bundle = run_export(model, out, **asked, cache=not no_cache, progress=steps.update)
    show_bundle(bundle, as_json)
