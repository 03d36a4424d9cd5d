"""Checkpoint -> quantized weights -> traced decoder -> artifact -> bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smolship.export.adding import add_targets
    from smolship.export.pipeline import export

__all__ = ["add_targets", "export"]


def __getattr__(name: str) -> Any:
    # On demand: a step's process imports a module of this package, and needs no more than that.
    if name == "export":
        from smolship.export.pipeline import export

        return export
    if name == "add_targets":
        from smolship.export.adding import add_targets

        return add_targets
    raise AttributeError(name)
