"""The weights as a target holds them: the one set, or, where it cannot hold what was lifted, a set of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smolship.export.config import DecoderConfig
from smolship.export.targets import Target
from smolship.export.weights import Weights, reround


def refused(target: Target, config: DecoderConfig, weights: Weights) -> dict[str, str]:
    """The lifted matrices that `target` cannot hold, each with the reason."""
    cannot_hold = getattr(target, "cannot_hold", None)
    if cannot_hold is None:
        return {}
    found = {}
    for name, entry in weights.entries.items():
        if entry.origin != "lifted":
            continue
        scales = (weights.scales(name, *rows) for rows in weights.chunks(name))
        reason = next(filter(None, (cannot_hold(config, name, entry, some) for some in scales)), "")
        if reason:
            found[name] = reason
    return found


def hold(
    target: Target, config: DecoderConfig, weights: Weights, folder: Path, progress: Callable[[str, int, int], None]
) -> tuple[Weights, dict[str, Any]]:
    """The set to lower, and what the manifest says of it: nothing where it is the one set; else `weights`, with its
    digest and how many matrices were rounded again for which reason. Such a set is written to `folder`."""
    why = refused(target, config, weights)
    if not why:
        return weights, {}
    folder.mkdir()
    own = reround(weights, why, folder, progress)
    return own, {"weights": {"digest": own.digest, "rerounded": dict(Counter(why.values()))}}


def held(weights: Weights, folder: Path) -> Weights:
    """The set that `hold` gave, opened again."""
    return Weights(folder, weights) if folder.exists() else weights
