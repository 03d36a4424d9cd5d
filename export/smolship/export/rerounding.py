"""The set of weights that a target holds: the bundle's, or, where the target cannot hold some of what was lifted from
a GGUF file, a set of its own in which that is rounded again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from smolship.export.config import DecoderConfig
from smolship.export.targets import Target
from smolship.export.weights import Weights, reround
from smolship.runtime.manifest import OwnWeights


def make_weights_for(
    target: Target, config: DecoderConfig, weights: Weights, folder: Path, progress: Callable[[str, int, int], None]
) -> tuple[Weights, OwnWeights | None]:
    """The set to lower, and what the manifest says of it where it is the target's own. Such a set is written to
    `folder`."""
    reasons = refused(target, config, weights)
    if not reasons:
        return weights, None
    folder.mkdir()
    own = reround(weights, reasons, folder, progress)
    return own, OwnWeights(own.digest, dict(Counter(reasons.values())))


def weights_for(
    target: Target, config: DecoderConfig, weights: Weights, folder: Path, progress: Callable[[str, int, int], None]
) -> Weights:
    """The set that `make_weights_for` gave, opened again; made again where it is not there, as when the target was
    lowered in an earlier export."""
    if folder.exists():
        return Weights(folder, weights)
    return make_weights_for(target, config, weights, folder, progress)[0]


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
