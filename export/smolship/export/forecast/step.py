"""The step `forecast`: what headers and side files tell of an export, before it is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from smolship.export.bits.asked import WINDOWS, Budget
from smolship.export.bits.units import foreseen
from smolship.export.checkpoints import Checkpoint
from smolship.export.forecast import costs
from smolship.export.forecast.devices import Device, find_device
from smolship.export.forecast.judge import changes, fit, need_on, systems_for
from smolship.export.forecast.record import Forecast, Need, StepForecast, TargetForecast
from smolship.export.forecast.run import Memory, apple_memory, run_memory
from smolship.export.forecast.sizes import Entries, artifact_bytes, count_tokenizer, kept_bytes
from smolship.export.forecast.speed import Speed, measure_speed
from smolship.export.options import Options
from smolship.export.targets import TARGETS
from smolship.export.weights import Scheme
from smolship.runtime.bundle import default_threads


def make_forecast(
    checkpoint: Checkpoint, files: Mapping[str, bytes], options: Options, device: Device | None, speed: Speed
) -> Forecast:
    """`files` are the side files that the bundle will have."""
    config, entries = checkpoint.config, foreseen(checkpoint, options.scheme, options.budget)
    look = Foreseen(checkpoint, files, device, options.budget)
    targets = {name: look.target(name, options.scheme, options.context) for name in options.targets}
    artifacts = {name: target.artifact_bytes for name, target in targets.items()}
    arithmetics = costs.arithmetics_of(options.targets, options.arm)
    shared = sum(map(len, files.values())) + 4 * len(entries) * 60  # lists of tensors
    probes = costs.probes_bytes(options.probe_tokens, arithmetics) if options.probe_tokens else 0
    return Forecast(
        parameters=sum(map(math.prod, config.shapes().values())),
        quant=options.quant,
        context=options.context,
        bundle_bytes=sum(artifacts.values()) + shared + probes,
        disk_bytes=costs.disk_bytes(config, entries, artifacts, probes, options.calibration is not None) + shared,
        steps=_steps(checkpoint, files, options, entries, artifacts, speed),
        targets=targets,
        device=device.name if device else None,
        notes=_notes(look, options, targets),
    )


@dataclass(frozen=True)
class Foreseen:
    """What a checkpoint's targets take, `files` being the side files of the bundle, and need on a device."""

    checkpoint: Checkpoint
    files: Mapping[str, bytes]
    device: Device | None
    budget: Budget | None = None

    def target(self, name: str, scheme: Scheme, context: int) -> TargetForecast:
        """With the options that would make it fit, where it does not."""
        artifact, memory, needs = self._look(name, scheme, context)
        config, again = self.checkpoint.config, partial(self.needs, name)
        options = (
            [] if fit(needs) or not self.device else changes(again, scheme, context, self.device, config.tied_head)
        )
        cache = kept_bytes(config, context, name)
        return TargetForecast(artifact, cache, memory.anonymous, memory.mapped, needs, options)

    def needs(self, name: str, scheme: Scheme, context: int) -> list[Need]:
        """On the device's systems that run the target."""
        return self._look(name, scheme, context)[2]

    def _look(self, name: str, scheme: Scheme, context: int) -> tuple[int, Memory, list[Need]]:
        config = self.checkpoint.config
        entries = held_by(name, foreseen(self.checkpoint, scheme, self.budget))
        artifact = artifact_bytes(name, config, entries, context, self.files)
        memory = run_memory(name, config, entries, context, artifact)
        added = memory.added_anonymous, memory.added_mapped - memory.idle
        if name == "coreml":
            added = apple_memory(config, entries, context, artifact)
        here = memory.anonymous, memory.mapped - memory.idle
        systems = systems_for(name, self.device) if self.device else []
        return artifact, memory, [need_on(system, here, added) for system in systems]


def held_by(target: str, entries: Entries) -> Entries:
    """Layouts as the target holds them: XNNPACK rounds lifted matrices of 8 bits again, with a scale a row."""
    if target != "executorch":
        return entries
    return {
        name: replace(entry, group=entry.shape[1]) if entry.origin == "lifted" and entry.bits == 8 else entry
        for name, entry in entries.items()
    }


def _steps(
    checkpoint: Checkpoint,
    files: Mapping[str, bytes],
    options: Options,
    entries: Entries,
    artifacts: Mapping[str, int],
    speed: Speed,
) -> dict[str, StepForecast]:
    config = checkpoint.config
    counted = count_tokenizer(files["tokenizer.json"])
    tokenizer = len(files["tokenizer.json"]), counted.tokens, counted.merges
    found = {}
    if options.budget:
        writes = options.calibration is None or options.calibration.sha256 is None
        found["bits"] = costs.bits_cost(config, entries, WINDOWS, writes, speed, default_threads())
    found |= {"quantize": costs.quantize_cost(config, entries, speed)}
    if asked := options.calibration:
        writes, processors = asked.sha256 is None, default_threads()
        found["calibrate"] = costs.calibrate_cost(config, entries, asked.amount, writes, speed, processors)
    for name, artifact in artifacts.items():
        found[f"lower {name}"] = costs.lower_cost(name, config, entries, artifact, tokenizer, speed)
    if options.probe_tokens:
        found["probe"] = costs.probe_cost(
            config, entries, options.context, options.probe_tokens, options.targets, speed, options.arm
        )
    if not checkpoint.path.is_dir():
        whole = {"probe": 4 * sum(math.prod(shape) for shape in config.shapes().values())}
        found = {name: costs.with_gguf(one, counted.tokens, whole.get(name, 0)) for name, one in found.items()}
    return found


def _notes(foreseen: Foreseen, options: Options, targets: Mapping[str, TargetForecast]) -> list[str]:
    notes, device = [], foreseen.device
    if "coreml" in targets and not (device and targets["coreml"].needs):
        notes.append("coreml: memory is that of smolship's interpreter; Core ML's own was not measured")
    if device is None:
        return notes
    if "coreml" in targets and targets["coreml"].needs:
        notes.append("coreml: Core ML's own memory was not measured; that the GPU has a copy of the weights is assumed")
    notes += [f"{name} does not run on {device.name}: not judged" for name, one in targets.items() if not one.needs]
    if any(one.over_bytes for one in targets.values()):
        others = {name: foreseen.needs(name, options.scheme, options.context) for name in TARGETS}
        if fitting := [name for name, needs in others.items() if needs and fit(needs)]:
            notes.append(f"fits {device.name} as it is: {', '.join(fitting)}")
    return notes


def forecast(
    model: str,
    options: Any,
    device: str | None,
    progress: Callable[[str, int, int], None],
    tokenizer: str | None = None,
) -> dict[str, Any]:
    """The step. Raises InputError with every problem of this export."""
    from smolship.export import preflight
    from smolship.export.checkpoints import open_checkpoint
    from smolship.export.steps import read

    asked, checkpoint = read(Options, options), open_checkpoint(model, tokenizer=tokenizer)
    tokens, text = asked.probe_tokens, asked.probe_text
    resolved = preflight.check(
        checkpoint, asked.targets, asked.scheme, asked.context, progress, tokens=tokens, text=text, budget=asked.budget
    )
    known = device if device is None else find_device(device)
    return asdict(make_forecast(checkpoint, resolved.shared_files(checkpoint), asked, known, measure_speed()))
