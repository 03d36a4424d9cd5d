"""transformers' own ONNX exporter (its ORT fusions for the CPU), then ONNX Runtime's int4 quantizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from smolship.runtime.session import Session
from smolship.tools.peers.onnxfile import open_onnx

REQUIREMENTS = ("transformers==5.23.0", "torch==2.13.0", "onnx==1.23.2", "onnxscript==0.7.2", "onnxruntime==1.32.0")
OURS = False
VERSIONS = ("transformers", "torch", "onnxscript", "onnxruntime")
PACKAGES = ("onnxruntime",)


def export(source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    import onnx
    import torch
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from transformers import AutoModelForCausalLM
    from transformers.exporters import OnnxConfig, OnnxExporter
    from transformers.exporters.utils import decompose_for_generation

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    ids = torch.arange(8)[None]
    # The stage that continues from any past, an empty one included, serves as prefill too.
    parts = decompose_for_generation(
        model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, multi_token_decode=True
    )
    OnnxExporter().export(*parts["decode"], OnnxConfig(dynamic=True, ort_fusions="cpu")).save_pretrained(
        folder / "wide"
    )
    wide = next((folder / "wide").glob("*.onnx"))
    quantizer = MatMulNBitsQuantizer(onnx.load(wide), block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(folder / "model.onnx"), use_external_data_format=True)
    shutil.rmtree(folder / "wide")
    return {"files": sorted(path.name for path in folder.glob("model.onnx*"))}


def open_session(folder: Path, options: dict[str, Any], threads: int) -> Session:
    return open_onnx(folder / "model.onnx", options, threads, shared=False)
