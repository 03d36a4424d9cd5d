"""`smolship export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smolship.runtime.files import read_text
from smolship.tools.commands import options
from smolship.tools.commands.inspect import show_bundle


def export(
    typed: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle to write. An older bundle there is replaced.")],
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A folder with config.json and safetensors, a .gguf file, or a Hub id."),
    ] = None,
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
) -> None:
    """Export a checkpoint: quantize it once and write every target, with probes for parity.

    Weights are read lazily and in pieces; each step is a process of its own, whose time and peak memory are printed.

    Examples:

    smolship export HuggingFaceTB/SmolLM2-135M-Instruct -o smollm2
    smolship export ./SmolLM3-3B -o smollm3 --to all --context 8192
    smolship export model.gguf -o model --to onnx
    smolship export ./SmolLM3-3B -o smollm3 --add coreml
    """
    from smolship.export import add_targets
    from smolship.export import export as run_export
    from smolship.export.targets import TARGETS
    from smolship.tools.display import Steps

    text = None if probe_text is None else read_text(probe_text, "probe text")
    if add is not None:
        options.only(typed, "--add", "out", "model", "add", "revision", "probe_text", "no_cache", "as_json")
        with Steps(options.err) as steps:
            bundle = add_targets(
                out,
                options.names(add),
                model=model,
                revision=revision,
                probe_text=text,
                cache=not no_cache,
                progress=steps.update,
            )
        show_bundle(bundle, as_json)
        return
    if model is None:
        raise typer.BadParameter("missing: name the model to export", param_hint="MODEL")
    with Steps(options.err) as steps:
        bundle = run_export(
            model,
            out,
            to=list(TARGETS) if to == "all" else options.names(to),
            quant=quant,  # type: ignore[arg-type]
            context=context,
            group_size=group_size,
            embedding=embedding_bits,  # type: ignore[arg-type]
            head=head_bits,  # type: ignore[arg-type]
            revision=revision,
            probe_tokens=probe_tokens,
            probe_text=text,
            cache=not no_cache,
            progress=steps.update,
        )
    show_bundle(bundle, as_json)
