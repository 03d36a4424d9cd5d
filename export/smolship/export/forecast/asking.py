"""`forecast`: asks for one, in a process of its own, as an export's steps run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from smolship.export.bits.asked import ask_budget
from smolship.export.calibrate.asked import ask
from smolship.export.checkpoints import open_checkpoint
from smolship.export.forecast.devices import find_device
from smolship.export.forecast.record import Forecast
from smolship.export.options import Options, scheme_of
from smolship.export.output import check_disk, check_output
from smolship.export.preflight import check_targets
from smolship.export.weights import Bits
from smolship.export.worker import run_step
from smolship.runtime.errors import GateError
from smolship.runtime.records import read_record

Progress = Callable[[str, str, int, int], None]  # (step, what, done, total)


def forecast(
    model: str | Path,
    out: str | Path | None = None,
    *,
    to: Sequence[str] = ("executorch", "onnx"),
    quant: Literal["int4", "int8", "none"] = "int4",
    context: int = 2048,
    group_size: int | None = None,
    embedding: Bits | None = None,
    head: Bits | None = None,
    revision: str | None = None,
    probe_tokens: int = 2048,
    probe_text: str | None = None,
    arm: bool = False,
    tokenizer: str | Path | None = None,
    calibrate: str | Path = "none",
    effort: str | None = None,
    seed: int | None = None,
    target_bpw: float | None = None,
    target_size: str | int | None = None,
    device: str | None = None,
    progress: Progress = lambda step, what, done, total: None,
) -> Forecast:
    """What `export` with the same arguments would write and take; nothing is written, and of the weights no more than
    headers is read. `device` is one of devices.py.

    Raises what `export` raises before its work, for `out` too where it is given.
    """
    scheme = scheme_of(quant, group_size, embedding, head)
    targets = tuple(dict.fromkeys(to))
    given = None if tokenizer is None else str(tokenizer)
    calibration, _ = ask(calibrate, effort, seed)
    options = Options(
        str(model),
        revision,
        targets,
        quant,
        scheme,
        context,
        probe_tokens,
        probe_text,
        arm,
        tokenizer=given,
        calibration=calibration,
        budget=ask_budget(target_bpw, target_size, quant, group_size, embedding, head),
    )
    return forecast_of(options, None if out is None else Path(out), device, progress)


def forecast_of(options: Options, out: Path | None, device: str | None, progress: Progress) -> Forecast:
    """See `forecast`."""
    if device is not None:
        find_device(device)
    place = None if out is None else check_output(out)
    check_targets(options.targets, probes=options.probe_tokens > 0)
    checkpoint = open_checkpoint(options.model, options.revision, options.tokenizer)
    arguments = checkpoint.places | {"options": asdict(options), "device": device}
    done = run_step("forecast", arguments, lambda what, i, n: progress("forecast", what, i, n))
    found = read_record(Forecast, done.result, "the forecast")
    if place is not None:
        check_disk(place, found.disk_bytes)
    return found


def must_fit(found: Forecast) -> None:
    """Raises GateError where the device cannot hold every target that runs on it."""
    over = {name: target for name, target in found.targets.items() if target.over_bytes}
    if not over:
        return
    tightest = {name: need for name, target in over.items() if (need := target.tightest)}
    raise GateError(
        f"{found.device} cannot hold this model at {found.context:,} tokens",
        got="; ".join(
            f"{name} needs {_mb(need.anonymous_bytes)} anonymous and {_mb(need.mapped_bytes)} mapped under "
            f"{need.system}, {_mb(need.over_bytes)} too much"
            for name, need in tightest.items()
        ),
        expected="; ".join(
            dict.fromkeys(
                f"{need.system}: at most {_mb(need.anonymous_limit)} anonymous, {_mb(need.total_limit)} in all"
                for need in tightest.values()
            )
        ),
        todo="; ".join(
            f"{name}: {', or '.join(target.changes) or 'no single option makes it fit'}"
            for name, target in over.items()
        ),
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
