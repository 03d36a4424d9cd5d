"""`export`: the whole way from a checkpoint to a bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from smolship.export.checkpoints import open_checkpoint
from smolship.export.options import Options, scheme_of
from smolship.export.output import check_output, new_bundle
from smolship.export.preflight import check_targets
from smolship.export.record import make_manifest
from smolship.export.steps import Checked, Lowered, Quantized, read
from smolship.export.weights import Bits
from smolship.export.worker import run_step
from smolship.runtime.bundle import Bundle, open_bundle
from smolship.runtime.manifest import StepCost

Progress = Callable[[str, str, int, int], None]  # (step, what, done, total)


def export(
    model: str | Path,
    out: str | Path,
    *,
    to: Sequence[str] = ("executorch", "onnx"),
    quant: Literal["int4", "int8", "none"] = "int4",
    context: int = 2048,
    group_size: int = 32,
    embedding: Bits | None = None,
    head: Bits | None = None,
    revision: str | None = None,
    probe_tokens: int = 2048,
    probe_text: str | None = None,
    progress: Progress = lambda step, what, done, total: None,
) -> Bundle:
    """Export `model` (a folder, a .gguf file or a Hub id) to the bundle `out`.

    to           targets, by name
    quant        bits of the layers' linears; `embedding` (and a tied head) and `head` default to 8, or 16 for "none"
    context      tokens that the cache holds
    group_size   inputs that share an int4 scale: 32, 64 or 128
    probe_tokens positions of real text that parity is measured on; 0: no probes, and no parity
    probe_text   your own text for it

    An older bundle in `out` is replaced when the new one is complete, and not before. Raises InputError where the
    input cannot be used (all that headers and side files tell is asked first), SetupError where the machine falls
    short, and GateError, with nothing written, where our decoder differs from the original.
    """
    scheme = scheme_of(quant, group_size, embedding, head)
    targets = tuple(dict.fromkeys(to))
    options = Options(str(model), revision, targets, quant, scheme, context, probe_tokens, probe_text)
    out = check_output(Path(out))
    check_targets(targets, probes=probe_tokens > 0)
    step = _Steps(open_checkpoint(str(model), revision).path, options, progress)
    checked = read(Checked, step("check", out=str(out)))
    step.costs.clear()  # the manifest has those of the steps that write
    with new_bundle(out) as folder:
        work = folder / ".work"
        work.mkdir()
        resolved = asdict(checked.resolved)
        quantized = read(Quantized, step("quantize", resolved=resolved, bundle=str(folder), folder=str(work)))
        lowered: dict[str, Lowered] = {}
        for name in targets:
            (folder / name).mkdir()
            places = {"work": str(work), "bundle": str(folder), "folder": str(folder / name)}
            lowered[name] = read(Lowered, step("lower", f"lower {name}", resolved=resolved, target=name, **places))
        notes = []
        if probe_tokens:
            notes = step("probe", resolved=resolved, work=str(work), path=str(folder / "probes.npz"))
        shutil.rmtree(work)
        make_manifest(options, checked, quantized, lowered, notes, step.costs).write(folder)
    return open_bundle(out)


@dataclass
class _Steps:
    """Runs the steps of one export, each in a process of its own, and keeps what they cost, by their labels."""

    model: Path
    options: Options
    progress: Progress
    costs: dict[str, StepCost] = field(default_factory=dict)

    def __call__(self, name: str, label: str = "", **arguments: Any) -> Any:
        label = label or name
        arguments |= {"model": str(self.model), "options": asdict(self.options)}
        done = run_step(name, arguments, lambda what, i, n: self.progress(label, what, i, n))
        self.costs[label] = StepCost(round(done.seconds, 2), done.peak_bytes)
        return done.result
