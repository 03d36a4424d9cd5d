"""Wheels for another machine's Python: chosen from a folder, or fetched by this machine's pip."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from smolship.runtime.errors import SetupError, clip
from smolship.runtime.process import python
from smolship.tools.devices.pythons import Python

OLDEST = (3, 11)  # that smolship's runtime runs on
LLAMA = "llama-cpp-python"  # which no index has as a wheel: llama.py makes one
# By engine: distributions, and what is imported to see that they are good.
NEEDED = {
    "onnx": (("numpy", "onnxruntime", "flatbuffers", "protobuf", "packaging"), ("numpy", "onnxruntime")),
    "gguf": (("numpy", LLAMA, "diskcache", "jinja2", "markupsafe", "typing-extensions"), ("numpy", "llama_cpp")),
}
FETCH_S = 900.0
PIP = python("pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps")
SHOWN = 6  # platforms that are named, the best first


def tags(device: Python) -> list[Tag]:
    """What an interpreter of a device can install, best first."""
    version = device.version[:2]
    own = cpython_tags(version, [device.tag], device.platforms) if device.implementation == "cpython" else ()
    return [*own, *compatible_tags(version, device.tag, device.platforms)]


def chosen(device: Python, names: Sequence[str], wheelhouse: Path) -> list[Path]:
    """The best wheel of each distribution in a folder. Raises SetupError that lists what is missing, with
    the tags that would fit, and what lies there in its place."""
    ranks = {tag: i for i, tag in enumerate(tags(device))}
    best: dict[str, tuple[tuple[object, ...], Path]] = {}
    others: dict[str, list[str]] = {}
    for path in sorted(wheelhouse.glob("*.whl")):
        try:
            name, version, build, its = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        fitting = [ranks[tag] for tag in its if tag in ranks]
        if not fitting:
            others.setdefault(name, []).append(path.name)
            continue
        rank = (version, -min(fitting), build)
        if name not in best or rank > best[name][0]:
            best[name] = rank, path
    if missing := [name for name in names if canonicalize_name(name) not in best]:
        there = [file for name in missing for file in others.get(canonicalize_name(name), [])]
        raise SetupError(
            f"no wheel of {', '.join(missing)} fits the device's Python {'.'.join(map(str, device.version))}",
            got=clip(", ".join(there)) or f"none in {wheelhouse}",
            expected=f"{device.tag} or abi3, on {', '.join(device.platforms[:SHOWN])}, …",
            todo=f"put one there: python {' '.join(_line(*_tagged(device), Path('WHEELHOUSE'), missing)[1:])}",
        )
    return [best[canonicalize_name(name)][1] for name in names]


def fetched(device: Python, names: Sequence[str], into: Path) -> list[Path]:
    """Wheels of this machine's versions of the distributions, by pip."""
    said = download(*_tagged(device), into, [_pinned(name) for name in names])
    if said:
        raise SetupError(
            "pip cannot fetch wheels for the device",
            got=said,
            expected=f"wheels of {', '.join(names)} for {device.tag} on {device.platforms[0]}",
            todo="fetch them where there is a network, and name their folder with --wheelhouse",
        )
    return chosen(device, names, into)


def holds(device: Python, name: str, wheelhouse: Path) -> bool:
    """Whether a folder has a wheel of a distribution that fits."""
    try:
        return bool(chosen(device, [name], wheelhouse))
    except SetupError:
        return False


def download(version: str, abis: Sequence[str], places: Sequence[str], into: Path, wanted: Sequence[str]) -> str:
    """Fetch wheels for another machine. What pip said went wrong; empty where nothing did."""
    return _said(_line(version, abis, places, into, wanted))


def download_sources(into: Path, name: str, version: str) -> str:
    """Fetch a distribution's source archive. What pip said went wrong; empty where nothing did."""
    return _said([*PIP, f"--no-binary={name}", "--dest", str(into), f"{name}=={version}"])


def _said(line: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=FETCH_S
        )
    except subprocess.TimeoutExpired:
        return f"pip did not end within {FETCH_S:,.0f} s"
    return clip((done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]) if done.returncode else ""


def _line(version: str, abis: Sequence[str], places: Sequence[str], into: Path, wanted: Sequence[str]) -> list[str]:
    line = [*PIP, "--only-binary=:all:", "--implementation=cp", f"--python-version={version}"]
    return [*line, *(f"--abi={abi}" for abi in abis), *places, "--dest", str(into), *wanted]


def _tagged(device: Python) -> tuple[str, list[str], list[str]]:
    """Version, ABIs and platforms as pip wants them."""
    version = f"{device.version[0]}.{device.version[1]}"
    return version, [device.tag, "abi3", "none"], [f"--platform={platform}" for platform in device.platforms]


def _pinned(name: str) -> str:
    """With the version that is installed here, so that both machines run the same."""
    try:
        return f"{name}=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return name
