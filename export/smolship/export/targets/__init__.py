"""Targets: a format with a backend and a profile. One module each; they never import each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from smolship.export.config import DecoderConfig
from smolship.export.weights import Weights
from smolship.runtime.errors import unknown
from smolship.runtime.facts import GenerationFacts
from smolship.runtime.readback.hashing import Entry

if TYPE_CHECKING:  # it imports torch, and an export's own process does without
    from smolship.export.numerics import Numerics

TARGETS = {  # target name -> module; the bare format names its default
    "coreml": "smolship.export.targets.coreml",
    "executorch": "smolship.export.targets.executorch",
    "gguf": "smolship.export.targets.gguf",
    "onnx": "smolship.export.targets.onnx",
}

NEEDS = {  # what each imports while it lowers; the name is also that of smolship's extra
    "coreml": ("coremltools",),
    "executorch": ("executorch", "torchao"),
    "gguf": ("gguf",),
    "onnx": ("onnx_ir",),
}

Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class Job:
    """What a target lowers.

    context  tokens that the cache holds
    files    side files of the bundle (tokenizer.json, chat_template.jinja, …), for formats that want a copy
    facts    what ends an answer, the recommended sampling, BOS: for formats that state them
    """

    config: DecoderConfig
    weights: Weights
    context: int
    files: dict[str, bytes] = field(default_factory=dict)
    facts: GenerationFacts = field(default_factory=GenerationFacts)
    progress: Progress = lambda what, done, total: None


class Target(Protocol):
    """What a target module holds."""

    NAME: str  # format-backend, such as "onnx-cpu"
    ENGINE: str  # the runtime engine that opens it

    def problems(self, config: DecoderConfig) -> list[str]:
        """Why this target cannot hold such a model; empty where it can."""
        ...

    def numerics(self, weights: Weights) -> Callable[[str], Numerics]:
        """How the engine computes the linear of a given name."""
        ...

    def stored_bytes(self, entry: Entry) -> int:
        """Bytes of a tensor in the artifact, codes and scales, as the engine reads them for a token."""
        ...

    # Optional: refusals(config, entries, files, facts) -> list[str]: why it cannot hold weights in these layouts (by
    # name), the bundle's side files, or what they say of generating. Asked, as `problems` is, before any work.

    # Optional: OTHER_ARITHMETICS, dict[str, Numerics]: in what else its engine computes on request, by the name that
    # `info["arithmetic"]` asks for it. Parity judges each, as TARGET.NAME in the probes.

    # Optional: ON_ARM, dict[str, Callable[[Weights], Callable[[str], Numerics]]]: how its engine computes on other
    # processors, by the names of runtime/engines, as `numerics`. Measured where an export is asked for them.

    # Optional: kept_head(head_dim) -> int: numbers of a head as its cache keeps it, where that is more than it has.

    # Optional: cannot_hold(config, name, entry, scales) -> str: why the format cannot hold rows of a lifted matrix that
    # have these scales; empty where it can. Such matrices are rounded again for it (see rerounding.py).

    def lower(self, job: Job, folder: Path) -> dict[str, Any]:
        """Write the artifact into `folder` and return what the manifest should say of it (at least `file`; `notes` are
        for the user)."""
        ...


def load_target(name: str) -> Target:
    """The target module of that name."""
    if name not in TARGETS:
        raise unknown("target", name, TARGETS)
    return import_module(TARGETS[name])
