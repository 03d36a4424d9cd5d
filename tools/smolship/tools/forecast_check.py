"""`python -P -m smolship.tools.forecast_check`: forecasts against measurements, on random weights of several shapes.

Each shape is exported without probes to every target, and each artifact is opened in a fresh process that fills its
cache. Measurements are kept in the cache folder as JSON lines, so that an interrupted run goes on. Memory is measured
well on a busy machine; times are processor seconds, and compared with a forecast from processor seconds.

The coefficients of export/forecast/ were found on the shapes of `FOUND`, and are checked on those of `CHECKED`.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

from smolship.export import export
from smolship.export.checkpoints import Checkpoint, open_checkpoint
from smolship.export.forecast.speed import Speed, measure_speed
from smolship.export.forecast.step import make_forecast
from smolship.export.options import Options, scheme_of
from smolship.runtime.bundle import Bundle
from smolship.runtime.errors import unknown
from smolship.runtime.execute import in_child
from smolship.runtime.plan import Call, Plan
from smolship.runtime.plan import Text as Tokens
from smolship.tools.console import Screen, begin, exit_code
from smolship.tools.peers.shapes import SHAPES, write_shape
from smolship.tools.tables import plain_table
from smolship.tools.units import number, size

FED = 512  # tokens of a prompt that are fed at once
INTERPRETED = 1024  # tokens that Core ML's interpreter is fed at most: it is slow
LIMIT = 0.15  # of what a size or a memory may be off
TARGETS = ("executorch", "onnx", "coreml", "gguf")


def shape(
    hidden: int, width: int, layers: int, heads: int, kv_heads: int, head_dim: int, vocab: int, tied: bool
) -> dict[str, Any]:
    """A config.json of the Llama family."""
    return SHAPES["toy"] | {
        "hidden_size": hidden,
        "intermediate_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 8192,
    }


FOUND = {
    "a-19m": shape(256, 1024, 8, 4, 4, 64, 32_000, True),
    "a-61m": shape(512, 1536, 10, 8, 2, 64, 32_000, False),
    "a-96m": shape(640, 2048, 16, 10, 5, 64, 8_192, True),
    "a-229m": shape(1024, 2816, 12, 16, 8, 64, 96_000, True),
    "a-420m": shape(1536, 4096, 14, 12, 4, 128, 32_000, True),
}
CHECKED = {
    "b-41m": shape(384, 1024, 12, 6, 3, 64, 49_152, True),
    "b-104m": shape(768, 2048, 8, 12, 4, 64, 32_768, False),
    "b-167m": shape(896, 2560, 14, 7, 7, 128, 16_384, True),
    "b-362m": shape(1280, 3584, 18, 20, 4, 64, 50_304, True),
}


def measure(name: str, raw: dict[str, Any], quant: str, contexts: list[int], cache: Path) -> Iterator[dict[str, Any]]:
    """What an export and each of its artifacts take, one record a target and context."""
    model, out = cache / name, cache / "bundle"
    if not model.exists():
        write_shape(raw, model, raw["vocab_size"])
    for context in contexts:
        used: dict[str, float] = {}

        def count(step: str, what: str, done: int, total: int, used: dict[str, float] = used) -> None:
            used.setdefault(step, children_seconds())  # before the step's process has ended

        asked: dict[str, Any] = {"to": TARGETS, "quant": quant, "context": context, "probe_tokens": 0, "cache": False}
        bundle = export(model, out, **asked, progress=count)
        ends = [*used.values(), children_seconds()]
        cpu = {step: end - start for step, start, end in zip(used, ends, ends[1:], strict=False)}
        steps = {step: [cpu.get(step), cost.peak_bytes] for step, cost in bundle.manifest.steps.items()}
        record = {"shape": name, "config": raw, "quant": quant, "context": context}
        yield record | {"steps": steps, "bundle_bytes": sum(f.size for f in bundle.manifest.files.values())}
        for target in TARGETS:
            yield record | {"target": target} | run(bundle, target, context)
        shutil.rmtree(out)


def children_seconds() -> float:
    """Processor time of all child processes that have ended: it says more than the clock on a machine with other
    work."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(bundle: Bundle, target: str, context: int) -> dict[str, Any]:
    """Memory of a fresh process with a full cache, and what the artifact's folder takes on disk."""
    entry = bundle.entry(target)
    files = [f for name, f in bundle.manifest.files.items() if name.startswith(f"{entry.folder}/")]
    filled = min(context, INTERPRETED) if target == "coreml" else context
    ids = np.arange(filled) % 200 + 3
    ends = [*range(FED, filled - 1, FED), filled - 1, filled]
    calls = tuple(Call("fill", 0, start, end) for start, end in zip([0, *ends], ends, strict=False))
    plan = Plan("bench", target, entry.engine, entry.info, 1, texts=(Tokens.plain(ids),), calls=calls)
    found = in_child(plan, bundle.path / entry.folder)
    assert found.memory and found.memory_before_load
    return {
        "filled": filled,
        "artifact_bytes": sum(f.size for f in files),
        "anonymous": found.memory.anonymous_bytes,
        "mapped": found.memory.file_backed_bytes,
        "peak": found.memory.peak_bytes,
        "anonymous_before": found.memory_before_load.anonymous_bytes,
        "mapped_before": found.memory_before_load.file_backed_bytes,
        "seconds": found.seconds,
    }


def gather(shapes: dict[str, dict[str, Any]], cache: Path, quants: list[str], contexts: list[int]) -> None:
    """Measure what the cache does not hold yet."""
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / "measured.jsonl"
    lines = kept.read_text().splitlines() if kept.exists() else []
    last = [one for one in map(json.loads, lines) if one.get("target") == TARGETS[-1]]  # of a measurement that ended
    done = {(one["shape"], one["quant"], one["context"]) for one in last}
    for name, raw in shapes.items():
        for quant in quants:
            missing = [context for context in contexts if (name, quant, context) not in done]
            for record in measure(name, raw, quant, missing, cache):
                with kept.open("a") as file:
                    file.write(json.dumps(record) + "\n")


@dataclass(frozen=True)
class Pair:
    """One quantity, forecast and measured."""

    what: str
    forecast: float
    measured: float
    seconds: bool = False

    @property
    def off(self) -> float:
        return self.forecast / self.measured - 1


def pairs(record: dict[str, Any], checkpoint: Checkpoint, speed: Speed) -> Iterator[Pair]:
    """What a record measured of that checkpoint, beside its forecast."""
    scheme = scheme_of(record["quant"], 32, None, None)
    targets = (record["target"],) if "target" in record else TARGETS
    options = Options("", None, targets, record["quant"], scheme, record["context"], 0, None)
    found = make_forecast(checkpoint, checkpoint.files, options, None, speed)
    if "target" in record:
        target = found.targets[record["target"]]
        for name in ("artifact", "anonymous", "mapped"):
            measured = record["artifact_bytes"] if name == "artifact" else record[name]
            yield Pair(f"{record['target']}, {name}", getattr(target, f"{name}_bytes"), measured)
        return
    yield Pair("bundle", found.bundle_bytes, record["bundle_bytes"])
    for step, (seconds, peak) in record["steps"].items():
        yield Pair(f"{step}, peak", found.steps[step].peak_bytes, peak)
        yield Pair(f"{step}, seconds", found.steps[step].seconds, seconds, seconds=True)


def report(records: Sequence[dict[str, Any]], cache: Path, every: bool) -> int:
    """Print a table; returns how many sizes and memories are off by more than `LIMIT`."""
    table = plain_table(Text("Forecast against measurement", "bold"), None)
    table.padding = (0, 2, 0, 0)
    for name in ("shape", "", "tokens", "quantity", "forecast", "measured", "off"):
        table.add_column(name, justify="left" if name in ("shape", "", "quantity") else "right", no_wrap=True)
    speed, worst, wrong, count = measure_speed(time.process_time), dict[str, Pair](), 0, 0
    opened = {name: open_checkpoint(str(cache / name)) for name in {record["shape"] for record in records}}
    for record in records:
        for pair in pairs(record, opened[record["shape"]], speed):
            count += not pair.seconds
            bad = abs(pair.off) > LIMIT and not pair.seconds
            wrong += bad
            if pair.what not in worst or abs(pair.off) > abs(worst[pair.what].off):
                worst[pair.what] = pair
            if every or bad:
                at = (record["shape"], record["quant"], f"{record['context']:,}")
                table.add_row(*map(Text, (*at, *_cells(pair))), style="red" if bad else "")
    if not every:
        for pair in worst.values():
            table.add_row(*map(Text, ("the worst of all", "", "", *_cells(pair))))
    Screen().print(table)
    print(f"{count - wrong} of {count} sizes and memories within {LIMIT:.0%}; times are not judged")
    return wrong


def _cells(pair: Pair) -> tuple[str, str, str, str]:
    said = [number(value, "s") if pair.seconds else size(value) for value in (pair.forecast, pair.measured)]
    return pair.what, *said, f"{pair.off:+.1%}"  # type: ignore[return-value]


def main(
    shapes: Annotated[str, typer.Option(help="found, checked, or names of shapes with commas.")] = "checked",
    quant: Annotated[str, typer.Option(help="Quantizations, with commas.")] = "int4,int8",
    contexts: Annotated[str, typer.Option(help="Contexts, with commas.")] = "512,4096",
    cache: Annotated[Path, typer.Option(help="Keeps checkpoints and measurements.")] = Path(".cache/forecast"),
    every: Annotated[bool, typer.Option("--every", help="Show every quantity, not the worst of each kind.")] = False,
) -> None:
    """Measure what is not measured yet, and compare all of it with forecasts. Ends with 1 where a size or a memory is
    off by more than 15 %."""
    groups = {"found": FOUND, "checked": CHECKED}
    known = FOUND | CHECKED
    names = list(groups.get(shapes, {})) or shapes.split(",")
    for name in names:
        if name not in known:
            raise unknown("shape", name, [*groups, *known])
    sizes = [int(context) for context in contexts.split(",")]
    gather({name: known[name] for name in names}, cache, quant.split(","), sizes)
    records = [json.loads(line) for line in (cache / "measured.jsonl").read_text().splitlines()]
    wanted = [r for r in records if r["shape"] in names and r["quant"] in quant.split(",") and r["context"] in sizes]
    if report(wanted, cache, every):
        raise typer.Exit(1)


if __name__ == "__main__":
    begin()
    app = typer.Typer(add_completion=False)
    app.command()(main)
    sys.exit(exit_code(lambda: int(app(standalone_mode=False) or 0), Screen(stderr=True)))
