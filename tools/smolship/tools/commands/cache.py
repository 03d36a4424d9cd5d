"""`smolship cache`."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from smolship.runtime.errors import InputError, clip
from smolship.tools.commands import options
from smolship.tools.console import Screen

if TYPE_CHECKING:
    from smolship.export.kept.entries import Entry

PERIODS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}  # seconds


def cache(
    action: Annotated[
        Literal["list", "clear"], typer.Argument(help="list: show what is kept. clear: remove it.")
    ] = "list",
    older_than: Annotated[
        str | None, typer.Option(help="clear: only steps not used for so long, such as 30d, 12h or 2w.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show or clear the steps of exports that are kept for the next export that asks for the same.

    An interrupted export goes on where it was, a repeated one takes all, export --add makes what is new.

    A step is found by the checkpoint's content, its options and all versions. Its files are hashed before use.

    Place: ~/.cache/smolship (on a Mac ~/Library/Caches/smolship). SMOLSHIP_CACHE names another, or is "off".

    Limit: 20 GB, or a quarter of the free disk where that is less. SMOLSHIP_CACHE_LIMIT sets another, such as 50GB.

    What was used longest ago goes first. Files that are still those of the bundle they were made for take no room.

    Examples:

    smolship cache
    smolship cache clear --older-than 30d
    """
    from smolship.export.kept import place
    from smolship.export.kept.entries import entries, sweep

    if older_than is not None and action != "clear":
        raise InputError(
            "--older-than is for clear", got=f"--older-than {older_than}", todo="smolship cache clear --older-than 30d"
        )
    oldest = None if older_than is None else time.time() - seconds(older_than)
    root = place.place()
    if root is None:
        raise InputError(f"no steps are kept: {place.PLACE} is {place.OFF}", todo=f"set {place.PLACE} to a folder")
    there = place.check_place(root)
    if there and action == "clear":
        sweep(root)
    found = entries(root) if there else []
    if action == "list":
        _show(root, found, as_json)
    else:
        _clear(root, [entry for entry in found if oldest is None or entry.used < oldest], len(found), as_json)


def seconds(text: str) -> int:
    """A period such as "30d"."""
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip().lower(), re.ASCII)
    if not found:
        raise InputError("--older-than cannot be used", got=text, expected="a period such as 30d, 12h, 45m or 2w")
    return int(found[1]) * PERIODS[found[2]]


def _show(root: Path, found: list[Entry], as_json: bool) -> None:
    from smolship.export.kept import place
    from smolship.tools.tables import kept_table

    total = sum(entry.size for entry in found)
    limit = place.limit(_existing(root), total)
    if as_json:
        where = {"place": str(root), "bytes": total, "limit_bytes": limit}
        options.print_json(where | {"steps": [_to_json(entry) for entry in found]})
        return
    Screen().print(kept_table(root, found, total, limit))


def _existing(root: Path) -> Path:
    return next(path for path in (root, *root.parents) if path.is_dir())


def _clear(root: Path, chosen: list[Entry], count: int, as_json: bool) -> None:
    from smolship.export.kept.entries import remove
    from smolship.tools.units import number, size

    gone = [entry for entry in chosen if remove(entry.path)]
    in_use = [entry for entry in chosen if entry not in gone]
    freed = sum(entry.size for entry in gone)
    if as_json:
        removed, left = ([_to_json(entry) for entry in some] for some in (gone, in_use))
        options.print_json({"place": str(root), "bytes": freed, "removed": removed, "in_use": left})
        return
    Screen().print(
        f"{number(len(gone))} of {number(count)} kept steps removed, {size(freed)}, from {clip(root)}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if in_use:
        options.say_notes([f"{number(len(in_use))} are in use by an export that runs, and were left"])


def _to_json(entry: Entry) -> dict[str, Any]:
    record = entry.record
    return {
        "kind": entry.kind,
        "model": record.model,
        "options": record.words,
        "bytes": entry.size,
        "seconds": record.seconds,
        "made": record.made,
        "last_used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.used)),
        "folder": entry.path.name,
    }
