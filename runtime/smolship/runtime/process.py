"""How a process of ours starts and waits, in one place.

A child runs code of the installation alone: the working folder, which may be somebody else's checkpoint, is on none of
its paths. Threads that wait for one another sleep. In a loop they are a few per cent faster on an idle machine, and ten
times slower as soon as something else wants the cores; `bench` measures as an app on a device of its own would run.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import smolship

# Lists of folders in the environment. To most readers an empty entry is the working folder, as a relative one is.
SEARCHED = ("PYTHONPATH", "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
# How the threads of OpenMP wait. Its libraries read this once, when they are loaded.
PASSIVE = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
USERS = (*PASSIVE, "GOMP_SPINCOUNT", "KMP_LIBRARY")  # whoever set one of these decides
MARK = "SMOLSHIP_WAITS"  # that PASSIVE is ours, and not the user's


def python(module: str, *arguments: str, executable: str | Path = sys.executable) -> list[str]:
    """The command line that runs a module in a process of its own."""
    return [str(executable), "-P", "-m", module, *arguments]


def roots(installed: bool = True) -> str:
    """Where smolship is imported from, as PYTHONPATH wants it. Not `installed`: other packages do not lie beside it."""
    found = [Path(path).parent for path in smolship.__path__]
    return os.pathsep.join(str(p) for p in found if installed or p.name not in ("site-packages", "dist-packages"))


def environment(active: bool = False) -> dict[str, str]:
    """The environment of a child. `active`: its threads may wait in a loop."""
    found = dict(os.environ)
    # What is not installed (a source tree, in tests) is found where this process found it.
    found["PYTHONPATH"] = os.pathsep.join([roots(installed=False), found.get("PYTHONPATH", "")])
    for name in SEARCHED:
        kept = [entry for entry in found.pop(name, "").split(os.pathsep) if Path(entry).is_absolute()]
        if kept:
            found[name] = os.pathsep.join(dict.fromkeys(kept))
    found["PYTHONSAFEPATH"] = "1"  # for children of the child
    if sys.getfilesystemencoding() in ("utf-8", "ascii"):  # ascii: names pass as escapes, which both read alike
        found["PYTHONUTF8"] = "1"
    found.pop("PYTHONIOENCODING", None)  # of the user's console, which a child does not write to
    if active and MARK in found:
        for name in (*PASSIVE, MARK):
            found.pop(name, None)
    elif not active and not any(name in found for name in USERS):
        found |= PASSIVE | {MARK: "1"}
    return found


def wait_passively() -> None:
    """Let the threads of this process sleep while they wait, unless the user has said how they should wait. To be
    called before torch, llama.cpp or another library with OpenMP is loaded."""
    if not any(name in os.environ for name in USERS):
        os.environ.update(PASSIVE | {MARK: "1"})


def waits_passively() -> bool:
    """Whether threads sleep while they wait: OpenMP's own setting, which holds for engines with other pools too."""
    return os.environ.get("OMP_WAIT_POLICY", "").strip().lower() == "passive"


def forget_working_folder() -> None:
    """Take the working folder off the paths of this process: `python -m` puts it there, and an empty or relative entry
    of PYTHONPATH. What was imported before cannot be mended: that takes `python -P`."""
    given = os.environ["PYTHONPATH"].split(os.pathsep) if "PYTHONPATH" in os.environ else []
    named = {entry for entry in given if Path(entry).is_absolute()}
    try:
        unnamed = {str(Path(entry).absolute()) for entry in (*given, "")}
    except OSError:  # the working folder was removed
        unnamed = set()
    sys.path[:] = [entry for entry in sys.path if entry in named or (entry and entry not in unnamed)]
