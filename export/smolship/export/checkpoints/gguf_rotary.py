"""The scaling of a rotary embedding, out of the keys of a GGUF file, or out of tensors: divisors of the frequencies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from smolship.export.checkpoints.gguf_file import GgufSlot
from smolship.export.config import DecoderConfig, only
from smolship.export.rotary import Llama3Scaling, YarnScaling
from smolship.runtime.errors import InputError, show

ALWAYS = "rope_freqs.weight"
SHORT, LONG = "rope_factors_short.weight", "rope_factors_long.weight"  # by the length of the context
AMPLITUDE = "rope.scaling.attn_factor"
ORIGINAL = "rope.scaling.original_context_length"

# Llama 3.1's frequency smoothing as llama.cpp's converter knows it; GGUF holds only what comes out of it.
LLAMA3_LOW, LLAMA3_HIGH, LLAMA3_POSITIONS = 1.0, 4.0, 8192

# Linear scaling and YaRN, in keys that llama.cpp reads for every architecture.
TYPE, FACTOR = "rope.scaling.type", "rope.scaling.factor"
SCALING_KEYS = (TYPE, FACTOR, ORIGINAL, AMPLITUDE)


def said_scaling(get: Callable[[str], Any], path: Path) -> dict[str, Any]:
    """config.json's `rope_scaling`, out of keys, with llama.cpp's defaults for those that are absent; empty where there
    is none. `get` is a key's value by its name after the architecture's, or None. Numbers are checked where the config
    is read."""
    kind, factor = get(TYPE), get(FACTOR)
    if kind not in (None, "none", "linear", "yarn"):
        raise InputError(
            f"{TYPE} is not understood", got=f"{show(kind)} in {path}", expected="'none', 'linear' or 'yarn'"
        )
    if factor in (None, 0):
        factor = 1.0
    if kind == "yarn":
        found = {
            "rope_type": kind,
            "factor": factor,
            "original_max_position_embeddings": get(ORIGINAL),
            "attention_factor": _amplitude(get(AMPLITUDE), factor),
        }
        return {name: value for name, value in found.items() if value is not None}
    return {} if kind == "none" or factor == 1 else {"rope_type": "linear", "factor": factor}


def _amplitude(times: Any, factor: Any) -> Any:
    """YaRN's own, where the file multiplies it; None where it does not."""
    if times in (None, 1) or not all(isinstance(one, float) and one > 0 for one in (times, factor)):
        return None if times in (None, 1) else times
    return times * (1 + 0.1 * math.log(max(factor, 1)))


def take_scaling(
    metadata: dict[str, Any], stored: dict[str, GgufSlot], config: DecoderConfig, path: Path
) -> dict[str, Any] | None:
    """config.json's `rope_scaling`, out of the tensors that say it, which leave `stored`. None where there are none.

    config  what the rest of the file describes
    """
    found = {name: stored.pop(name) for name in (ALWAYS, SHORT, LONG) if name in stored}
    scalings = {rotary.scaling for rotary in config.rotaries.values()}
    if found and scalings != {None}:
        raise InputError(
            "the rotary embedding is scaled twice",
            got=f"{', '.join(found)}, and keys of {metadata['general.architecture']}.rope.scaling, in {path}",
            expected="one of them",
        )
    amplitude = metadata.get(f"{metadata['general.architecture']}.{AMPLITUDE}", 1.0)
    has_none = not {SHORT, LONG} & set(found) and not any(isinstance(one, YarnScaling) for one in scalings)
    if has_none and (isinstance(amplitude, np.ndarray) or amplitude != 1):
        raise InputError(
            f"{AMPLITUDE}, and no tensor of a scaled rotary embedding that has one",
            got=f"{show(amplitude)} in {path}",
            expected=f"{SHORT} and {LONG} beside it",
        )
    if not found:
        return None
    plain = only(config.rotaries.values())
    if plain is None:
        raise InputError(
            f"{', '.join(found)}, and no rotary embedding to scale", got=path, expected="layers with rotary embedding"
        )
    if set(found) == {ALWAYS}:
        return _llama3(found[ALWAYS], config)
    for name in (SHORT, LONG):
        shape = found[name].shape if name in found else None
        if ALWAYS in found or shape != (plain.width // 2,):
            raise InputError(
                "LongRoPE's divisors cannot be used",
                got=f"{', '.join(f'{name} {list(slot.shape)}' for name, slot in found.items())} in {path}",
                expected=f"{SHORT} and {LONG} of {plain.width // 2} numbers, and no {ALWAYS}",
            )
    divisors = {"short_factor": found[SHORT], "long_factor": found[LONG]}
    return {
        "rope_type": "longrope",
        "attention_factor": amplitude,
        **{key: slot.read().astype(float).tolist() for key, slot in divisors.items()},
    }


def _llama3(slot: GgufSlot, config: DecoderConfig) -> dict[str, Any]:
    """Llama 3's scaling, found again from what came out of it."""
    plain = next(iter(config.rotaries.values()))
    divisors = slot.read() if slot.shape == (plain.width // 2,) else np.zeros(1, np.float32)
    scaling = Llama3Scaling(float(divisors.max()), LLAMA3_LOW, LLAMA3_HIGH, float(LLAMA3_POSITIONS))
    meant = plain.frequencies() / replace(plain, scaling=scaling).frequencies() if divisors.min() >= 1 else divisors * 0
    if not np.allclose(divisors, meant, rtol=1e-5, atol=0):
        raise InputError(
            f"{ALWAYS} holds frequencies that are not Llama 3's",
            got=f"{slot.path}",
            expected=f"low 1, high 4 and {LLAMA3_POSITIONS} original positions",
        )
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": LLAMA3_LOW,
        "high_freq_factor": LLAMA3_HIGH,
        "original_max_position_embeddings": LLAMA3_POSITIONS,
    }
