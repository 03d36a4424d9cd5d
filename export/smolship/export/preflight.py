"""Everything that headers, config and side files can tell of an export, asked before the first byte is worked on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import NoReturn

from smolship.export.bits.asked import Budget
from smolship.export.bits.units import foreseen
from smolship.export.checkpoints import Checkpoint
from smolship.export.config import DecoderConfig
from smolship.export.facts import Resolved, resolve
from smolship.export.targets import NEEDS, TARGETS, load_target
from smolship.export.tokenizer_trial import tokenizer_problems
from smolship.export.weights import Scheme
from smolship.runtime.errors import InputError, SetupError, unknown
from smolship.runtime.readback.hashing import Entry
from smolship.runtime.tokenizer import Tokenizer


def check_targets(targets: Sequence[str], probes: bool) -> None:
    """Raise InputError where a target is unknown, and SetupError, with the pip line, where a package is not installed
    that a step will import."""
    strange = [name for name in targets if name not in TARGETS]
    if strange or not targets:
        raise unknown("target", strange[0] if strange else "none", TARGETS)
    needs = {"export": ("torch", "transformers") if probes else ("torch",)} | {name: NEEDS[name] for name in targets}
    missing = {extra: lost for extra, packages in needs.items() if (lost := [p for p in packages if not _found(p)])}
    if missing:
        names = dict.fromkeys(name for lost in missing.values() for name in lost)
        raise SetupError(
            "packages that this export needs are not installed",
            got=f"no {', '.join(names)}",
            todo=f"pip install 'smolship[{','.join(missing)}]'",
        )


def _found(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def check(
    checkpoint: Checkpoint,
    targets: Sequence[str],
    scheme: Scheme,
    context: int,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    *,
    tokens: int = 0,
    text: str | None = None,
    budget: Budget | None = None,
) -> Resolved:
    """What the checkpoint's files say about generating. Raises one InputError that lists all that cannot be done with
    this checkpoint. `tokens` positions of `text` are what the probes are going to take."""
    found = context_problems(checkpoint.config, context)
    bad = tokenizer_problems(
        checkpoint.files["tokenizer.json"], checkpoint.config.vocab, context=max(context, 2), tokens=tokens, text=text
    )
    if bad:  # it could hang or end this process, and what follows asks it
        _refuse(found + bad)
    found += given_problems(checkpoint)
    resolved = resolve(checkpoint)
    found += resolved.problems
    resolved.notes.extend(context_notes(checkpoint.config, context))
    entries = foreseen(checkpoint, scheme, budget)
    for done, name in enumerate(targets):
        progress(name, done, len(targets))
        found += [f"{name}: {problem}" for problem in target_problems(name, checkpoint, entries, resolved)]
    progress("done", len(targets), len(targets))
    if found:
        _refuse(found)
    return resolved


def _refuse(found: list[str]) -> NoReturn:
    if len(found) == 1:
        raise InputError(found[0])
    raise InputError(f"{len(found)} problems, found before any work:\n" + "\n".join(f"  - {one}" for one in found))


def context_problems(config: DecoderConfig, context: int) -> list[str]:
    """Why the cache cannot be that long."""
    if 2 <= context <= config.positions:
        return []
    made = f"2 to {config.positions:,} are what the model was made for"
    return [f"the context cannot be that long: {context:,} tokens, where {made}"]


def context_notes(config: DecoderConfig, context: int) -> list[str]:
    """What so long a cache changes."""
    if context <= config.longest:
        return []
    return [
        f"context {context:,}: all texts get the rotary embedding of those of more than {config.longest:,} tokens. "
        "transformers has another for shorter ones, which a cache that outgrows it cannot take back; parity compares "
        f"with the original as it is for long ones. With --context {config.longest} short ones are as in transformers"
    ]


def given_problems(checkpoint: Checkpoint) -> list[str]:
    """Why a tokenizer that was given is not the model's. (Its own may be smaller: tables are filled up to a size.)"""
    if checkpoint.tokenizer is None:
        return []
    count, vocab = Tokenizer(checkpoint.files["tokenizer.json"]).vocab_size, checkpoint.config.vocab
    return (
        []
        if count == vocab
        else [f"--tokenizer has {count:,} tokens, and the model {vocab:,}: give the one that it was trained with"]
    )


def target_problems(name: str, checkpoint: Checkpoint, entries: Mapping[str, Entry], resolved: Resolved) -> list[str]:
    """Why a target cannot hold this checkpoint with its weights in the layouts of `entries`."""
    target = load_target(name)
    found = target.problems(checkpoint.config)
    refusals = getattr(target, "refusals", None)
    if refusals is not None:
        found = found + refusals(checkpoint.config, entries, resolved.side_files(checkpoint), resolved.facts)
    return found
