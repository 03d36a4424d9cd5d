"""How a process of ours starts and waits, in one place.

A child runs code of the installation alone: the working folder, which may be somebody else's checkpoint, is on none of
its paths. Threads that wait for one another look for some microseconds in a loop, and then sleep. Those that loop on
take ten times as long as soon as something else wants the cores; those that sleep at once are woken late by cores that
slept with them. `bench` measures as an app on a device of its own would run: with the engines' own ways of waiting.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Literal

import smolship

# Lists of folders in the environment. To most readers an empty entry is the working folder, as a relative one is.
SEARCHED = ("PYTHONPATH", "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")
# How the threads of OpenMP wait: 300 looks of GNU's, a millisecond of LLVM's, which yields too. The libraries read
# it once, when they are loaded. llama.cpp on SmolLM2, two processors, tokens a second alone and of each of two at once:
# 47 and 100 with no look, 178 and 72 with 200, 210 and 65 with 300, 224 and 33 with 1,000, 171 and 0 to 42 without end.
BRIEF = {"GOMP_SPINCOUNT": "300", "KMP_BLOCKTIME": "1"}
SPIN_US = 20  # of ONNX Runtime's own threads: 210 and 112; 169 and 110 with none, 240 and 71 as it is by itself
USERS = (*BRIEF, "OMP_WAIT_POLICY", "KMP_LIBRARY")  # whoever set one of these decides
MARK = "SMOLSHIP_WAITS"  # that BRIEF is ours, and not the user's

PR_SET_PDEATHSIG = 1  # linux/prctl.h

Waiting = Literal["briefly", "asleep", "actively"]


def python(module: str, *arguments: str, executable: str | Path = sys.executable) -> list[str]:
    """The command line that runs a module in a process of its own."""
    return [str(executable), "-P", "-m", module, *arguments]


def roots(installed: bool = True) -> str:
    """Where smolship is imported from, as PYTHONPATH wants it. Not `installed`: other packages do not lie beside it."""
    found = [Path(path).parent for path in smolship.__path__]
    return os.pathsep.join(str(p) for p in found if installed or p.name not in ("site-packages", "dist-packages"))


def environment(active: bool = False) -> dict[str, str]:
    """The environment of a child. `active`: its threads may wait in a loop for long."""
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
        for name in (*BRIEF, MARK):
            found.pop(name, None)
    elif not active and not any(name in found for name in USERS):
        found |= BRIEF | {MARK: "1"}
    return found


def wait_briefly() -> None:
    """Let the threads of this process sleep where they wait for long, unless the user has said how they should wait. To
    be called before torch, llama.cpp or another library with OpenMP is loaded."""
    if not any(name in os.environ for name in USERS):
        os.environ.update(BRIEF | {MARK: "1"})


def waiting() -> Waiting:
    """How threads wait for one another: OpenMP's own setting, which holds for engines with other pools too."""
    if os.environ.get("OMP_WAIT_POLICY", "").strip().lower() == "passive":
        return "asleep"
    return "briefly" if MARK in os.environ else "actively"


def be_supervised() -> None:
    """On a device, where a supervisor says so: lead a process group, which it can end as a whole, and end when it does
    itself."""
    if os.environ.get("SMOLSHIP_SUPERVISED") and sys.platform.startswith("linux"):
        with suppress(OSError):  # it leads one already
            os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


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
