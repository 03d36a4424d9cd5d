"""Open a bundle, generate, chat, check parity, measure. No torch, no transformers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smolship.runtime.bundle import Bundle, open_bundle
    from smolship.runtime.errors import SmolshipError
    from smolship.runtime.session import Session

__all__ = ["Bundle", "Session", "SmolshipError", "open_bundle"]

# ONNX Runtime (from 1.29 on) and its GenAI report to their makers over the network, and keep an identifier of the
# machine in the home folder, unless this is set when they are loaded. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {"Bundle": "bundle", "open_bundle": "bundle", "SmolshipError": "errors", "Session": "session"}


def __getattr__(name: str) -> Any:
    # On demand: importing one module of the runtime must not import them all.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"smolship.runtime.{_HOMES[name]}"), name)
    raise AttributeError(name)
