"""What `smolship devices` shows and does."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from smolship.runtime.bundle import default_threads
from smolship.runtime.errors import InputError, SetupError, clip
from smolship.runtime.memory import cpu_model
from smolship.tools.devices import adb, app, llama
from smolship.tools.devices.adb_server import remedy
from smolship.tools.devices.facts import DeviceFacts
from smolship.tools.devices.job import shell_file
from smolship.tools.devices.link import SAFE, quote
from smolship.tools.devices.opening import check_programs, folders, link_to, look, runners
from smolship.tools.devices.pythons import Python
from smolship.tools.devices.setup import install, installed
from smolship.tools.devices.stores import Stores
from smolship.tools.devices.uri import Address
from smolship.tools.devices.wheels import LLAMA, NEEDED, OLDEST, chosen, fetched, holds
from smolship.tools.measure import Update
from smolship.tools.tables import plain_table
from smolship.tools.units import UNAVAILABLE, size

WRONG_S = 60  # of a clock
# Prints what it removes. The folders above are ours where nothing else lies in them. Over an old adb a script's
# standard error goes to a file, which stays where the command was killed.
CLEAN = """
for folder in $folders; do
  if held "$folder/runs/lock/holder"; then exit 75; fi
done
for folder in $folders; do
  [ -d "$folder" ] && [ -O "$folder" ] || continue
  rm -rf "$folder" || exit 1
  echo "$folder"
  rmdir "${folder%/*}" 2>/dev/null
done
rm -f "$scratch"/smolship-*.err 2>/dev/null
[ -z "$app" ] || [ ! -d "$app" ] || rm -rf "$app" || exit 1
exit 0
"""


def reachable() -> list[dict[str, Any]]:
    """This machine, and what adb knows. Boards have no list: they are named by their URI."""
    here = {"uri": "local", "state": "ready", "model": cpu_model(), "system": platform.platform()}
    return [here | {"threads": default_threads()}, *_phones()]


def _phones() -> Iterator[dict[str, Any]]:
    try:
        for found in adb.devices():
            todo = {} if found.state == "device" else {"todo": remedy(found)}
            yield {"uri": f"adb://{found.serial}", "state": found.state, "model": found.model, **todo}
    except SetupError as error:  # no client, or another server
        yield {"uri": "adb://", "state": error.parts()["what"]}


def described(address: Address) -> dict[str, Any]:
    """What one device is, and for which engines a Python was set up there."""
    if address.scheme == "local":
        return reachable()[0]
    with link_to(address) as link:
        facts = look(link, address)
        ours, folder = folders(facts, link.uri)[0], facts.good_folders(link.uri)[0]
        ready = [engine for engine in NEEDED if installed(link, ours, engine)]
    return {
        "uri": address.uri,
        "state": f"set up for {', '.join(ready)}" if ready else "reachable",
        "model": facts.model,
        "soc": facts.soc,
        "machine": facts.machine,
        "system": facts.system,
        "kernel": facts.kernel,
        "libc": facts.libc and " ".join(filter(None, facts.libc)),
        "page_bytes": facts.page_size,
        "threads": facts.threads,
        "memory_bytes": facts.memory_total,
        "available_bytes": facts.memory_available,
        "python": facts.python and f"{facts.python.path} {'.'.join(map(str, facts.python.version))}",
        "folder": ours,
        "free_bytes": folder.free,
        "clock": clock(facts.clock_s),
        "identity": facts.identity,
        "missing": facts.missing,
    }


def clock(ahead_s: float | None) -> str | None:
    """How far a device's clock is from this machine's; above a minute, what follows of it."""
    if ahead_s is None:
        return None
    said = f"{abs(ahead_s):,.0f} s {'behind' if ahead_s < 0 else 'ahead of'} this machine's"
    return said + (": results have the time of this machine" if abs(ahead_s) > WRONG_S else "")


def table(found: Sequence[dict[str, Any]]) -> Table:
    """A column a device; what a device does not say is unavailable."""
    shown = plain_table(Text("Devices"), "a board is named by its URI, such as ssh://pi@raspberrypi.local")
    shown.add_column("")
    for one in found:
        shown.add_column(Text(clip(one["uri"])), overflow="fold")
    for name in dict.fromkeys(name for one in found for name in one if name not in ("uri", "missing")):
        label = "to do" if name == "todo" else name.removesuffix("_bytes").replace("_", " ")
        shown.add_row(label, *(Text(_cell(name, one.get(name))) for one in found))
    return shown


def _cell(name: str, value: Any) -> str:
    if value is None:
        return UNAVAILABLE
    return size(value) if name.endswith("_bytes") else clip(value)


def set_up(address: Address, targets: Sequence[str], wheelhouse: Path | None, update: Update) -> dict[str, Any]:
    """Send numpy and the engines of `targets` to a board."""
    if unknown := [name for name in targets if name not in NEEDED]:
        raise InputError(
            "setup sends engines that have wheels for boards",
            got=", ".join(unknown),
            expected=", ".join(NEEDED),
            todo="leave them out: what they need is sent with their first run",
        )
    with link_to(address) as link:
        facts = look(link, address)
        python = _python(link.uri, facts)
        names = list(dict.fromkeys(name for target in targets for name in NEEDED[target][0]))
        engines = {target: NEEDED[target][1] for target in targets}
        with tempfile.TemporaryDirectory(prefix="smolship-wheels-") as temporary:
            work = Path(temporary)
            update("wheels", "choosing", 0, 1)
            compiled = LLAMA in names and not (wheelhouse and holds(python, LLAMA, wheelhouse))
            plain = [name for name in names if name != LLAMA or not compiled]
            wheels = chosen(python, plain, wheelhouse) if wheelhouse else fetched(python, plain, work)
            if compiled:
                wheels.append(llama.made(link.uri, facts, wheelhouse, runners(), partial(update, "llama.cpp")))
                check_programs(link.uri, facts, "llama.cpp", llama.libraries_of(wheels[-1], work), llama.OTHERWISE)
            stores = Stores(link, folders(facts, link.uri))
            site = install(link, python, stores, wheels, engines, partial(update, "setup"))
    return {
        "uri": address.uri,
        "site": site,
        "wheels": [path.name for path in wheels],
        "said": f"{address.uri} is ready for {', '.join(targets)}: {site}",
    }


def _python(uri: str, facts: DeviceFacts) -> Python:
    fitting = [python for python in facts.pythons if python.version >= OLDEST and python.bits == 64]
    if not fitting:
        there = ", ".join(f"{one.path} {'.'.join(map(str, one.version))}" for one in facts.pythons)
        raise SetupError(
            f"{uri}: no Python there runs smolship",
            got=there or facts.missing.get("python", "none was found"),
            expected=f"Python {OLDEST[0]}.{OLDEST[1]} or newer, of 64 bits",
            todo="install one, or run ExecuTorch's artifact, which needs none",
        )
    return fitting[0]


def cleaned(address: Address) -> dict[str, Any]:
    """Remove all that smolship has put on a device, wherever that was: a disk that is full takes nothing any more."""
    with link_to(address) as link:
        tried = [one.path for one in look(link, address).folders]
        ours = [f"{path}/device" for path in tried if path.startswith("/") and set(path) <= SAFE]
        there = f"{app.HOME}/{app.OURS_THERE}" if address.scheme == "adb" else ""  # of the demo app's
        given = f"folders={quote(' '.join(ours))} scratch={quote(adb.SCRATCH)} app={quote(there)}"
        done = link.run("\n".join([given, shell_file("lock.sh"), CLEAN]), limit_s=600)
        if done.status:
            raise SetupError(
                f"{address.uri}: it cannot be cleaned",
                got="a run is going on" if done.status == 75 else clip(done.err.decode(errors="replace")),
                todo="wait for the run, or look at the folder there",
            )
    removed = done.out.decode(errors="replace").split()
    said = f"{address.uri}: {', '.join(removed) or 'nothing was there'}: nothing of smolship's is left"
    return {"uri": address.uri, "folders": removed, "said": said}
