"""Memory before a run: the least that an artifact takes with a full cache, against what a device has available.

The least: buffers and scores of a chunk come on top, which engines size as they run. Weights count as each engine keeps
them (export/forecast/run.py has the measurements), mapped pages among them: each token reads every weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smolship.runtime.bundle import Bundle
from smolship.runtime.errors import SetupError
from smolship.runtime.readback.compare import expected
from smolship.runtime.readback.hashing import Entry
from smolship.tools.devices.facts import DeviceFacts
from smolship.tools.units import size

MB = 1_000_000
KEPT = 20  # a device keeps one part in so many available, or supervise.sh ends the run
PHONE = 2  # a phone leaves one part in so many to one process: export/forecast/devices.py has the sources
# Of a process that has its engine, before it opens an artifact, anonymous and mapped: of smolship-run on the emulated
# board, and of Python.
ENGINE = {"executorch": 21 * MB, "onnx": 56 * MB, "gguf": 44 * MB}


@dataclass(frozen=True)
class Need:
    """Bytes. `cache`: of the states of all layers; None where the bundle does not say it."""

    weights: int
    cache: int | None
    engine: int
    context: int

    @property
    def total(self) -> int:
        return self.weights + (self.cache or 0) + self.engine

    def __str__(self) -> str:
        cache = "without the cache, whose size the bundle does not say"
        if self.cache is not None:
            cache = f"the cache of {self.context:,} tokens {size(self.cache)}"
        return f"at least {size(self.total)}: weights {size(self.weights)}, {cache}, the engine {size(self.engine)}"


def need_of(bundle: Bundle, target: str) -> Need:
    """Of one of `ENGINE`'s. Raises InputError where the list of the target's weights cannot be used."""
    entry, manifest = bundle.entry(target), bundle.manifest
    if entry.engine == "gguf":  # mapped; int4 matrices are packed anew, and their pages are not read again
        path = f"{entry.folder}/{entry.info['file']}"
        weights = sum(listed.size for name, listed in manifest.files.items() if name == path)
    else:
        weights = packed_bytes(entry.engine, expected(bundle, target))
    return Need(weights, entry.cache_bytes, ENGINE[entry.engine], manifest.context)


def packed_bytes(engine: str, entries: Mapping[str, Entry]) -> int:
    """Every matrix is packed by the engine, and the head, which may be the embedding's own table. ExecuTorch maps that
    table besides, of whole bytes or float32; of ONNX Runtime's, only rows in use are in memory."""
    table = entries.get("embed")
    matrices = [one for name, one in entries.items() if len(one.shape) == 2 and name != "embed"]
    if table and "head" not in entries:
        matrices.append(table)
    packed = sum(_matrix(engine, one) for one in matrices)
    mapped = math.prod(table.shape) * (4 if table.bits == 16 else 1) if table and engine == "executorch" else 0
    return packed + mapped


SCALES = {"executorch": 2.0, "onnx": 4 * 3.4}  # bytes a scale: as it is packed, with sums of its block, and as mapped


def _matrix(engine: str, entry: Entry) -> int:
    """As it is packed: float32 where it is not quantized."""
    count = math.prod(entry.shape)
    return 4 * count if entry.bits == 16 else count * entry.bits // 8 + int(SCALES[engine] * count / entry.group)


def share(facts: DeviceFacts) -> tuple[int, str] | None:
    """What one process may have there, and why in words; None where the device does not say."""
    available, total = facts.memory_available, facts.memory_total
    if not available or not total:
        return None
    kept = total // KEPT
    most, why = max(0, available - kept), f"{size(available)} available, of which {size(kept)} (5 %) must stay so"
    if facts.memory_allowance and facts.memory_allowance[0] < most:
        most, limit = facts.memory_allowance
        why = f"{limit} leaves {size(most)} to the session"
    if (facts.system or "").startswith("Android") and total // PHONE < most:
        most, why = total // PHONE, f"half of a phone's {size(total)}"
    return most, why


def check_memory(uri: str, facts: DeviceFacts, bundle: Bundle, targets: Sequence[str], force: bool) -> list[str]:
    """What must be said of a run's memory. Raises SetupError where a target needs more than the device has for it,
    unless it is forced."""
    found = share(facts)
    if found is None:
        why = facts.missing.get("memory_available") or "/proc/meminfo says 0"
        return [f"{uri}: memory was not looked at before the run: {why}"]
    most, why = found
    needs = {name: need_of(bundle, name) for name in targets}
    short = {name: need for name, need in needs.items() if need.total > most}
    if not short:
        return []
    wanted = "; ".join(f"{name} needs {need}" for name, need in short.items())
    if force:
        return [f"{uri}: memory: --force: {wanted}; there are {size(most)} ({why}). The run may be ended there"]
    raise SetupError(
        f"{uri}: memory: the device has too little for {', '.join(short)}; nothing was sent",
        got=f"{size(most)} for one process: {why}",
        expected=wanted,
        todo="end what else runs there, export with a smaller --context or fewer bits, or try it with --force",
    )
