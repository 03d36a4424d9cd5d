"""Engines: what opens an artifact. One module each, imported only when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from smolship.runtime.errors import unknown
from smolship.runtime.session import Session

ENGINES = {
    "coreml": "smolship.runtime.engines.coreml",
    "executorch": "smolship.runtime.engines.executorch",
    "gguf": "smolship.runtime.engines.gguf",
    "onnx": "smolship.runtime.engines.onnx",
}

# What each imports when it opens its first session: a benchmark imports it before the clock starts.
PACKAGES = {
    "coreml": ("coremltools",) if sys.platform == "darwin" else ("google.protobuf",),
    "executorch": ("torch", "executorch.extension.pybindings._C"),
    "gguf": ("llama_cpp",),
    "onnx": ("onnxruntime",),
}

# How the probes simulate an engine that chooses its arithmetic by the processor (`Traits.computes`).
SIMULATED = {"onnx": "activations in int8, by blocks of 32"}
# And how else it computes on some processors, with the simulation of that, which probes may hold.
BY_PROCESSOR = {"onnx": {"activations in int8, by rows (KleidiAI)": "rows", "activations in float32": "float32"}}
# Bits of the matrices that are multiplied so; others are as in the target's own.
ON_BITS = {"rows": {4}, "float32": {4, 8}}


def simulation(engine: str, computes: str | None) -> str:
    """The simulation of what an engine computes by the processor's choice; empty: that of the target itself."""
    return BY_PROCESSOR.get(engine, {}).get(computes or "", "")


class Engine(Protocol):
    """What an engine module holds."""

    def open_session(self, folder: Path, info: dict[str, Any], threads: int) -> Session:
        """Open the artifact in `folder`; `info` is its entry in the manifest. Raises SetupError where the engine's
        package is not installed and InputError where the artifact cannot be opened."""
        ...


def load_engine(name: str) -> Engine:
    """The engine module of that name."""
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    return import_module(ENGINES[name])
