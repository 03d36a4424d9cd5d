"""torchao's int8-dynamic-activation-int4-weight, its weights: groups of 32, and a table of 8 bits with a scale a row.

Codes and scales are torchao's own (`quantize_`), kept in a file by our names. A head of 4 bits is a matrix of its own,
as in ExecuTorch's export_llm; one of 8 bits is the table, where the model ties them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

REQUIREMENTS: tuple[str, ...] = ()
OURS = False
VERSIONS = ("torchao", "torch")
FILE, GROUP = "weights.npz", 32


def export(source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    from smolship.export.checkpoints import open_checkpoint

    checkpoint = open_checkpoint(str(source))
    config, arrays = checkpoint.config, {}
    bits = dict.fromkeys(config.linears(), 4) | {"embed": options["table"]}
    if not config.tied_head or options["head"] != options["table"]:
        bits["head"] = options["head"]
    for name, wanted in bits.items():
        stored = config.head if name == "head" else name
        arrays[f"{name}.codes"], arrays[f"{name}.scales"] = quantized(checkpoint.read(stored), wanted)
    np.savez(folder / FILE, **arrays)  # type: ignore[arg-type]
    return {"files": [FILE]}


def quantized(matrix: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes int8 [out, in] and scales float32 [out, groups]."""
    import torch
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup

    linear = torch.nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    linear.weight = torch.nn.Parameter(torch.from_numpy(matrix))
    if bits == 4:
        int4 = torch.int4  # type: ignore[attr-defined]
        quantize_(linear, Int8DynamicActivationIntxWeightConfig(int4, PerGroup(GROUP)))
    else:
        quantize_(linear, IntxWeightOnlyConfig(torch.int8, PerAxis(0)))
    held: Any = linear.weight  # a tensor of torchao's
    if held.zero_point.any():
        raise ValueError("torchao chose a zero point, where a symmetric grid was asked for")
    return held.qdata.numpy(), held.scale.float().reshape(len(matrix), -1).numpy()
