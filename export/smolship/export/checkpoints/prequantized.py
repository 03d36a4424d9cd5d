"""Checkpoints that are quantized already, by config.json or by what is stored: none of them can be taken but GGUF."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolship.export.checkpoints.advice import SOURCE
from smolship.runtime.errors import InputError, show

METHODS = {
    "gptq": "GPTQ",
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "compressed-tensors": "compressed-tensors",
    "hqq": "HQQ",
    "torchao": "torchao",
    "aqlm": "AQLM",
    "quanto": "quanto",
    "bitnet": "BitNet",
    "mxfp4": "MXFP4",
    "nvfp4": "NVFP4",
    "eetq": "EETQ",
    "auto-round": "AutoRound",
    "modelopt": "ModelOpt",
    "quark": "Quark",
}

# What quantizers store beside or in place of a weight -> who does. The first that matches all its expressions counts.
COMPANIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("GPTQ", (r"\.qweight$", r"\.g_idx$")),
    ("AWQ or GPTQ", (r"\.(qweight|qzeros|g_idx)$",)),
    ("bitsandbytes, 4 bits", (r"\.(absmax|quant_map|nested_absmax)$|\.quant_state\.bitsandbytes",)),
    ("bitsandbytes, 8 bits", (r"\.(SCB|weight_format)$",)),
    ("fp8 in blocks", (r"\.weight_scale_inv$",)),
    ("NVFP4", (r"\.weight_scale_2$",)),
    ("compressed-tensors", (r"\.(weight_packed|weight_zero_point|weight_shape|weight_global_scale)$",)),
    ("HQQ", (r"\.W_q$|\.(nbits|unpack_view_dtype|compute_dtype)$",)),
    ("torchao", (r"[:_]qdata$|\._weight_|\.weight:|\.tensor_impl",)),
    ("AQLM", (r"\.(codes|codebooks)$",)),
    ("quanto", (r"\.weight\._(data|scale|shift)$",)),
    ("MXFP4", (r"_blocks$", r"_scales$")),
    ("MLX", (r"\.scales$", r"\.biases$")),
    (
        "fp8 or int8 with scales",
        (
            r"\.(weight_scale|input_scale|output_scale|weight_scales|scales|qscales|zeros|"
            r"k_scale|v_scale)$",
        ),
    ),
)
QUANTIZATION_KEYS = ("quantization_config", "compression_config", "quantization")
WHOLE = ("F32", "F16", "BF16", "F64")


def quantization_of(raw: Mapping[str, Any]) -> str | None:
    """The quantization that a config.json declares, in words, whether or not its weights are quantized."""
    found = raw.get("quantization_config")
    if isinstance(found, Mapping) and found:
        method = found.get("quant_method")
        if isinstance(method, str):
            return METHODS.get(method, show(method))
        if found.get("load_in_4bit") or found.get("load_in_8bit"):
            return "bitsandbytes"
        return "MLX" if {"group_size", "bits"} <= set(found) else "an unnamed method"
    if raw.get("compression_config"):
        return "compressed-tensors"
    return "MLX" if isinstance(raw.get("quantization"), Mapping) and raw["quantization"] else None


def quantized(raw: Mapping[str, Any], types: Mapping[str, str], path: Path) -> InputError | None:
    """The refusal of weights that are quantized already, by what lies beside them or how they are stored. `types` are
    the safetensors types by tensor name."""
    names = "\n".join(types)
    method, shown = None, ""
    for found, expressions in COMPANIONS:
        if all(re.search(expression, names, re.M) for expression in expressions):
            shown = next(name for name in types if re.search(expressions[0], name))
            method = found
            break
    if method is None:
        shown = next((n for n, kind in types.items() if n.endswith(".weight") and kind not in WHOLE), "")
        if not shown:
            return None
        method = "fp8" if types[shown].startswith("F8") else f"weights of type {types[shown]}"
    declared = quantization_of(raw)
    how = f"{declared}, as config.json says" if declared else method
    return InputError(
        "the checkpoint is quantized already",
        got=f"{how}: {shown} ({types[shown]}) in {path}",
        expected="weights in floating point (one of " + ", ".join(WHOLE) + ")",
        todo=f"{SOURCE}, or a GGUF of it: Q4_0 and Q8_0 are taken as they are",
    )
