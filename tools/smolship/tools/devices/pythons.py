"""Interpreters of a device, its C library, and the wheels that they take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from smolship.tools.devices.elf import Elf

PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(14, 6, -1)))
# One line of JSON. ensurepip is looked for, and not imported: Debian ships it apart.
PYTHON = (
    "import sys, json, platform, sysconfig, os, struct, importlib.util as u; v = sysconfig.get_config_var; "
    "s = sysconfig.get_path('stdlib') or ''; "
    "print(json.dumps({'executable': sys.executable, 'version': list(sys.version_info[:3]), "
    "'implementation': sys.implementation.name, 'platform': sysconfig.get_platform(), 'soabi': v('SOABI') or '', "
    "'bits': struct.calcsize('P') * 8, 'free_threaded': bool(v('Py_GIL_DISABLED')), "
    "'pip': u.find_spec('pip') is not None, 'ensurepip': u.find_spec('ensurepip') is not None, "
    "'venv': u.find_spec('venv') is not None, 'managed': os.path.exists(os.path.join(s, 'EXTERNALLY-MANAGED'))}))"
)
TYPES = {"executable": str, "implementation": str, "platform": str, "soabi": str, "bits": int}
TYPES |= dict.fromkeys(("free_threaded", "pip", "ensurepip", "venv", "managed"), bool)


@dataclass(frozen=True)
class Python:
    """An interpreter of the device.

    path       absolute
    platform   as sysconfig has it, such as "linux-aarch64"
    platforms  tags of wheels that it takes, the best first
    managed    its packages are the system's, and pip refuses to add to them
    """

    path: str
    version: tuple[int, int, int]
    implementation: str
    platform: str
    soabi: str
    bits: int
    free_threaded: bool
    pip: bool
    ensurepip: bool
    venv: bool
    managed: bool
    platforms: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """Of wheels, such as "cp311"."""
        short = {"cpython": "cp", "pypy": "pp"}.get(self.implementation, self.implementation)
        return f"{short}{self.version[0]}{self.version[1]}{'t' * self.free_threaded}"


def read_libc(texts: Mapping[str, str], elf: Elf | None) -> tuple[str, str | None] | None:
    """The C library and its version, which is None where the device does not say."""
    ldd, conf = texts.get("$ ldd --version", ""), texts.get("$ getconf GNU_LIBC_VERSION", "")
    kind = elf.libc if elf else None
    kind = kind or (
        "musl"
        if "musl" in ldd
        else "glibc"
        if conf.startswith("glibc") or "GLIBC" in ldd or "GNU libc" in ldd
        else None
    )
    if kind == "bionic":
        return kind, texts.get("$ getprop ro.build.version.sdk")
    for pattern, text in (
        (r"glibc (\d+\.\d+)", conf),
        (r"^ldd.*?(\d+\.\d+)\s*$", ldd),
        (r"^Version (\d+\.\d+\.\d+)", ldd),
    ):
        if kind and (found := re.search(pattern, text, re.MULTILINE)) and pattern.startswith("^V") == (kind == "musl"):
            return kind, found[1]
    return (kind, None) if kind else None


def wheel_platforms(platform: str, libc: tuple[str, str | None] | None) -> tuple[str, ...]:
    """Platform tags of wheels for an interpreter of `platform`, such as "linux-aarch64", the best first."""
    system, _, machine = platform.replace(".", "_").partition("-")
    machine = machine.replace("-", "_")
    version = re.match(r"([0-9]{1,3})\.([0-9]{1,3})(?![0-9])", (libc[1] or "") if libc else "")
    if system != "linux" or not version or not libc or libc[0] not in ("glibc", "musl"):
        return (f"{system}_{machine}",)
    name, lowest = ("manylinux", 5 if machine in ("x86_64", "i686") else 17) if libc[0] == "glibc" else ("musllinux", 0)
    old = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"} if name == "manylinux" else {}
    found = []
    for minor in range(int(version[2]), lowest - 1, -1):
        found.append(f"{name}_{version[1]}_{minor}_{machine}")
        found += [f"{old[minor]}_{machine}"] if minor in old else []
    return (*found, f"linux_{machine}")


def _platform(platform: str, bits: int) -> str:
    """An interpreter of 32 bits on a kernel of 64 takes the kernel for its machine."""
    return (
        {"linux-aarch64": "linux-armv7l", "linux-x86_64": "linux-i686"}.get(platform, platform)
        if bits == 32
        else platform
    )


def read_pythons(texts: Mapping[str, str], libc: tuple[str, str | None] | None) -> Iterator[Python]:
    """Those that answered `PYTHON`, each path once."""
    seen = set()
    for name in PYTHONS:
        try:
            raw = json.loads(texts.get(f"python {name}", "").splitlines()[-1])
            if any(type(raw[key]) is not kind for key, kind in TYPES.items()):
                continue
            found = Python(
                path=str(raw.pop("executable")),
                version=tuple(int(part) for part in raw.pop("version"))[:3],  # type: ignore[arg-type]
                platforms=wheel_platforms(_platform(str(raw["platform"]), raw["bits"]), libc),
                **raw,
            )
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            continue
        if found.path.startswith("/") and found.path not in seen:
            seen.add(found.path)
            yield found
