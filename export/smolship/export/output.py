"""Where a bundle is written: what may lie there, whether the disk has room, how the new bundle replaces an old one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath

from smolship.export.bits.units import foreseen
from smolship.export.checkpoints import Checkpoint
from smolship.export.checkpoints.folder import SIDE_FILES
from smolship.export.forecast.costs import arithmetics_of, disk_bytes, probes_bytes
from smolship.export.forecast.sizes import artifact_bytes, set_bytes
from smolship.export.options import Options
from smolship.export.targets import TARGETS
from smolship.runtime.disk import size_limit
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.folders import destination, new_folder
from smolship.runtime.manifest import NAME as MANIFEST
from smolship.runtime.manifest import listed_files
from smolship.runtime.template import PROGRAM

# What lies at the top of a bundle, and of one that is being made.
NAMES = frozenset(
    {
        ".work",
        MANIFEST,
        "config.json",
        "tokenizer.json",
        *SIDE_FILES,
        PROGRAM,
        "probes.npz",
        "weights.json",
        *TARGETS,
        *(f"weights-{name}.json" for name in TARGETS),
    }
)
SURE = 0.75  # of what an export needs must be free: a file system that compresses holds more than it says


def check_output(out: Path) -> Path:
    """Where the bundle will lie. Raises, before any work, where none can or may be written there."""
    return destination(out, replaceable, NAMES)


def new_bundle(out: Path) -> AbstractContextManager[Path]:
    """A temporary folder that takes the place of `out`, empty or an older bundle, when the block ends well."""
    return new_folder(out, replaceable, NAMES)


def replaceable(folder: Path) -> None:
    """Refuses a folder that holds anything but a bundle, of this or another version. An empty one is fine."""
    todo = "choose another folder; this one is left as it is"
    if not any(folder.iterdir()):
        return
    try:
        known = listed_files(folder)
    except InputError:
        stranger = next((name for name in _contents(folder) if name != MANIFEST), MANIFEST)
        why = f"its {MANIFEST} is not a bundle's" if os.path.lexists(folder / MANIFEST) else f"no {MANIFEST}"
        raise InputError(
            "the output folder holds something else",
            got=f"{stranger} in {folder} ({why})",
            expected="a new folder, or an older bundle",
            todo=todo,
        ) from None
    known |= {f"{parent}/" for name in known for parent in PurePosixPath(name).parents}  # emptied folders
    if stranger := next((name for name in _contents(folder) if name not in known), ""):
        raise InputError(
            "the output folder holds something else beside a bundle",
            got=f"{stranger} in {folder}",
            expected="a bundle with nothing but its own files",
            todo=f"move that file away, or choose another folder; {folder} is left as it is",
        )


def _contents(folder: Path) -> Iterator[str]:
    """The names of all files, links and empty folders below `folder`. Those of empty folders end in a slash."""

    def refuse(error: OSError) -> None:
        raise InputError("the output folder cannot be read", got=error, todo="choose another folder") from None

    for below, folders, files in os.walk(folder, onerror=refuse):
        links = [name for name in folders if (Path(below) / name).is_symlink()]
        here = Path(below).relative_to(folder)
        yield from ((here / name).as_posix() for name in sorted([*links, *files]))
        if below != str(folder) and not folders and not files:
            yield f"{here.as_posix()}/"


def check_space(out: Path, checkpoint: Checkpoint, asked: Options, files: Mapping[str, bytes]) -> None:
    """Raises SetupError where the disk has no room for what the export is going to write, or no file may be so large.
    `files` are the side files of the bundle."""
    config, entries = checkpoint.config, foreseen(checkpoint, asked.scheme, asked.budget)
    artifacts = {name: artifact_bytes(name, config, entries, asked.context, files) for name in asked.targets}
    probes = probes_bytes(asked.probe_tokens, arithmetics_of(asked.targets, asked.arm))
    size, limit = set_bytes(entries), size_limit()
    if limit is not None and size > limit:
        raise SetupError(
            f"a file may not grow so large: weights.safetensors needs {size:,} bytes, and the limit of "
            f"this process (ulimit -f) is {limit:,}",
            todo="raise the limit (ulimit -f)",
        )
    check_disk(out, disk_bytes(config, entries, artifacts, probes, asked.calibration is not None))


def check_disk(out: Path, need: int) -> None:
    """Raises SetupError where fewer bytes are free for the bundle `out`."""
    place = out
    while not place.is_dir():
        place = place.parent
    with contextlib.suppress(OSError):
        disk = shutil.disk_usage(place)
        if disk.total and disk.free < SURE * need:
            raise SetupError(
                f"the disk is full: {out} needs {need:,} bytes, and {disk.free:,} are free there",
                todo="free some space, or choose a folder on another disk; fewer targets or fewer bits need less",
            )
