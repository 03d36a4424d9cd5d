"""Walking a trace: what every target does alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch.fx import Node

from smolship.runtime.errors import InputError

T = TypeVar("T")


def handler(handlers: Mapping[Any, T], node: Node, target: str) -> T:
    """What a target does with a node. Raises InputError, which names the operator, where it knows none of its kind."""
    if node.target not in handlers:
        raise InputError(
            f"{target} cannot hold an operator of this model",
            got=node.target,
            expected=", ".join(sorted(str(known) for known in handlers)),
            todo="export without this target",
        )
    return handlers[node.target]
