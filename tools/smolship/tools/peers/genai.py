"""onnxruntime-genai's own model builder, int4; run by ONNX Runtime, past and present in one buffer as genai does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smolship.runtime.session import Session
from smolship.tools.peers.onnxfile import open_onnx

REQUIREMENTS: tuple[str, ...] = ()
OURS = False
VERSIONS = ("onnxruntime-genai", "onnxruntime", "transformers")
PACKAGES = ("onnxruntime",)


def export(source: Path, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    from onnxruntime_genai.models.builder import create_model, parse_extra_options

    where = None, str(source), str(folder), "int4", "cpu", str(folder / "cache")
    create_model(*where, **parse_extra_options(*where, options.get("extra", [])))
    return {"files": sorted(path.name for path in folder.glob("model.onnx*"))}


def open_session(folder: Path, options: dict[str, Any], threads: int) -> Session:
    return open_onnx(folder / "model.onnx", options, threads, shared=True)
