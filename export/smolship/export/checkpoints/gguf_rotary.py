"""The scaling of a rotary embedding, out of the tensors in which a GGUF file holds it: divisors of the frequencies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from smolship.export.checkpoints.gguf_file import GgufSlot
from smolship.export.config import DecoderConfig, only
from smolship.export.rotary import Llama3Scaling
from smolship.runtime.errors import InputError, show

ALWAYS = "rope_freqs.weight"
SHORT, LONG = "rope_factors_short.weight", "rope_factors_long.weight"  # by the length of the context
AMPLITUDE = "rope.scaling.attn_factor"
ORIGINAL = "rope.scaling.original_context_length"

# Llama 3.1's frequency smoothing as llama.cpp's converter knows it; GGUF holds only what comes out of it.
LLAMA3_LOW, LLAMA3_HIGH, LLAMA3_POSITIONS = 1.0, 4.0, 8192


def take_scaling(
    metadata: dict[str, Any], stored: dict[str, GgufSlot], config: DecoderConfig, path: Path
) -> dict[str, Any] | None:
    """config.json's `rope_scaling`, out of the tensors that say it, which leave `stored`. None where there are none.

    config  what the rest of the file describes
    """
    found = {name: stored.pop(name) for name in (ALWAYS, SHORT, LONG) if name in stored}
    amplitude = metadata.get(f"{metadata['general.architecture']}.{AMPLITUDE}", 1.0)
    if not found and (isinstance(amplitude, np.ndarray) or amplitude != 1):
        raise InputError(
            f"{AMPLITUDE}, and no tensor of a scaled rotary embedding",
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
