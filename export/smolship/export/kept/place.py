"""Where kept steps lie, and how much of them. Both come from the environment, and neither from the working folder."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from pathlib import Path
from shlex import quote

from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.files import must_fit

PLACE, LIMIT = "SMOLSHIP_CACHE", "SMOLSHIP_CACHE_LIMIT"
OFF = "off"
MOST = 20_000_000_000  # bytes
SHARE = 4  # the part of the free disk that they may take is one of so many
UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
# By it backups know what need not be saved (bford.info/cachedir).
TAG = "CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# Steps of exports, kept by smolship.\n"


def place() -> Path | None:
    """The folder, whether it is there or not; None where steps are not to be kept."""
    given = os.environ.get(PLACE, "")
    if given == OFF:
        return None
    if given:
        if not Path(given).is_absolute():
            raise InputError(f"{PLACE} cannot be used", got=given, expected=f"an absolute path, or {OFF}")
        must_fit(Path(given), PLACE)
        return Path(given)
    own = os.environ.get("XDG_CACHE_HOME", "")
    if Path(own).is_absolute():  # a relative one is to be ignored, says its specification
        return Path(own) / "smolship"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise SetupError("no place to keep steps in", got=error, todo=f"set {PLACE} to a folder, or to {OFF}") from None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "smolship"


def is_named() -> bool:
    """Whether the user has named the place: then it is refused where it cannot be used, and not passed over."""
    return bool(os.environ.get(PLACE))


def check_place(root: Path) -> bool:
    """Whether it is there. Raises where it is a link, or where somebody else could write what we take for ours."""
    try:
        info = root.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise SetupError("the folder of kept steps cannot be read", got=error, todo=_elsewhere()) from None
    what = f"the folder of kept steps, {root}, cannot be used"
    if not stat.S_ISDIR(info.st_mode):
        kind = "a link" if stat.S_ISLNK(info.st_mode) else "not a folder"
        raise InputError(what, got=kind, expected="a folder", todo=_elsewhere())
    if info.st_uid != os.geteuid():
        raise InputError(what, got=f"it belongs to user {info.st_uid}", expected="a folder of yours", todo=_elsewhere())
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        todo = f"chmod go-w {quote(str(root))}"
        raise InputError(what, got=f"mode {stat.S_IMODE(info.st_mode):03o}", expected="written by you alone", todo=todo)
    return True


def make_place(root: Path) -> None:
    """Make it, for the eyes of its owner alone."""
    if not check_place(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        root.mkdir(mode=0o700, exist_ok=True)
        check_place(root)
    name, text = TAG
    if not (root / name).exists():
        (root / name).write_text(text)


def unusable(error: OSError) -> SetupError:
    """The refusal of a place where nothing can be made."""
    return SetupError("no steps can be kept", got=error, todo=_elsewhere())


def _elsewhere() -> str:
    return f"set {PLACE} to the path of a folder of yours, or to {OFF}"


def limit(root: Path, held: int) -> int:
    """How many bytes may be kept where `held` are now: what the user says, or 20 GB, but no more than a quarter of what
    would be free without them."""
    given = given_limit()
    return min(MOST, (shutil.disk_usage(root).free + held) // SHARE) if given is None else given


def given_limit() -> int | None:
    """What the user says."""
    given = os.environ.get(LIMIT, "")
    return parse_size(given, LIMIT) if given else None


def parse_size(text: str, what: str) -> int:
    """Bytes, from text such as "20GB" or "500 MB", in powers of 1000 as we print them."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?) *([kmgt]?b)?", text.strip().lower(), re.ASCII)
    if not found:
        raise InputError(f"{what} cannot be used", got=text, expected="a size, such as 20GB or 500MB")
    return round(float(found[1]) * UNITS[found[2] or ""])
