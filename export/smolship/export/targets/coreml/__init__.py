"""Core ML: `model.mlpackage` for iOS 18 and macOS 15, an ML program in fp16 whose cache is the package's state.

Two functions share one set of weights: `prefill` takes a whole chunk of tokens, `decode` one. Both take `position`,
the place in the cache of the first of them, write the keys (rotated) and values there, and give the last one's logits.

Made for the GPU: int4 weights with a scale a group, and fp16 throughout. It is not made for the Neural Engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolship.export.config import DecoderConfig
from smolship.export.features import COMMON, beyond
from smolship.export.targets import Job
from smolship.export.targets.coreml.arithmetic import MIN_ROOT, STREAM
from smolship.export.targets.coreml.arithmetic import OTHER_ARITHMETICS as OTHER_ARITHMETICS
from smolship.export.targets.coreml.arithmetic import numerics as numerics
from smolship.runtime.chunks import chunk_for
from smolship.runtime.errors import missing_engine
from smolship.runtime.facts import GenerationFacts
from smolship.runtime.native import native_path
from smolship.runtime.readback.hashing import Entry

NAME = "coreml-gpu"
ENGINE = "coreml"
FILE = "model.mlpackage"
CHUNK = 64  # the most tokens of one call of `prefill`
SCORE = 4  # bytes of a score in fp16: the product with the mask, and after the softmax
MIN_NUMBERS = 10  # of an array in a package's weight.bin
MAX_RMS = 2**14  # inputs of a norm: in fp16 the mean square of numbers up to 1 is at least 1 / inputs


HOLDS = COMMON | {"heads"}  # of features.py


def problems(config: DecoderConfig) -> list[str]:
    """Why a package cannot hold such a model; empty where it can."""
    found = beyond(config, HOLDS)
    if config.hidden > MAX_RMS:
        found.append(f"a hidden size of {config.hidden:,}, where a norm in fp16 takes at most {MAX_RMS:,} inputs")
    if any(layer.norms == "both" for layer in config.layers) and config.norm_eps**0.5 * STREAM < MIN_ROOT:
        found.append(
            f"norms on both sides with an epsilon of {config.norm_eps:g}, which fp16 does not hold beside them"
        )
    return found


def refusals(
    config: DecoderConfig, entries: Mapping[str, Entry], files: dict[str, bytes], facts: GenerationFacts
) -> list[str]:
    """coremltools keeps arrays of so few numbers in the program, where nothing of ours would look for them."""
    counts = {
        name: (entry.shape[0] * (entry.shape[1] // entry.group) if entry.group else math.prod(entry.shape))
        for name, entry in entries.items()
    }
    small = [name for name, count in counts.items() if count < MIN_NUMBERS]
    return (
        [f"{small[0]} is stored in an array of {counts[small[0]]} numbers; a package's begin at {MIN_NUMBERS}"]
        if small
        else []
    )


def stored_bytes(entry: Entry) -> int:
    """Fp16 for what is not quantized and for scales."""
    count = math.prod(entry.shape)
    return 2 * count if entry.bits == 16 else count * entry.bits // 8 + count // entry.group * 2


def lower(job: Job, folder: Path) -> dict[str, Any]:
    """Write the package."""
    try:
        from smolship.export.targets.coreml.emit import INPUTS, KEYS, emit, states
    except ImportError as error:
        raise missing_engine("coremltools", "coreml", error) from None
    chunk = chunk_for(CHUNK, max(mixer.heads for mixer in job.config.attentions), job.context, SCORE)
    with native_path(folder / FILE) as path:
        emit(job, chunk, path)
    mode = folder.stat().st_mode  # coremltools writes for its own user alone
    for path in (folder / FILE, *(folder / FILE).rglob("*")):
        path.chmod(mode if path.is_dir() else mode & 0o666)
    info: dict[str, Any] = {"file": FILE, "context": job.context, "chunk": chunk}
    if len(kinds := states(job.config, job.context)) > 1:  # the layers of each state
        info["layers"] = [list(state.layers) for state in kinds if state.names == KEYS]
        if convolutions := [list(state.layers) for state in kinds if state.names == INPUTS]:
            info["convolutions"] = convolutions
    return info
