"""mobius: ONNX graphs declared by hand, from llama.cpp's Q4_0 file, whose blocks it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smolship.runtime.session import Session
from smolship.tools.peers.onnxfile import open_onnx

REQUIREMENTS = ("mobius-onnx[gguf]==0.1.0", "onnxruntime==1.32.0", "torch==2.13.0", "transformers==5.23.0")
OURS = False
VERSIONS = ("mobius-onnx", "onnxruntime")
PACKAGES = ("onnxruntime",)


def export(source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    from mobius.__main__ import main  # type: ignore[import-not-found]

    main(["build-gguf", str(source / "model.gguf"), "-o", str(folder), "--keep-quantized", "--ep", "cpu"])
    return {"files": sorted(path.name for path in folder.glob("model.onnx*"))}


def open_session(folder: Path, options: dict[str, Any], threads: int) -> Session:
    return open_onnx(folder / "model.onnx", options, threads, shared=True)
