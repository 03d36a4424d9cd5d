"""What executes plans on a device: the files it needs there, and its command line."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import smolship.runtime
from smolship.tools.devices.carried import loader

ZIP = "smolship.zip"
DATE = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same files make the same archive


@dataclass(frozen=True)
class Runner:
    """files      by their names on the device
    command    before PLAN RESULT FOLDER; "{}" stands for the folder where the files lie
    variables  of its environment, "{}" likewise
    versions   of what it consists of, such as "onnxruntime 1.32.0", as far as known
    carries    it brings its own loader and C library
    cure       what to do where the device has lost what it starts from
    """

    name: str
    files: Mapping[str, Path]
    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    versions: Sequence[str] = ()
    carries: bool = False
    cure: str = ""

    def line(self, folder: str, *arguments: str) -> list[str]:
        return [word.replace("{}", folder) for word in self.command] + list(arguments)

    def environment(self, folder: str) -> dict[str, str]:
        return {name: value.replace("{}", folder) for name, value in self.variables.items()}


def python_runner(python: str, site: str, work: Path, versions: Sequence[str] = ()) -> Runner:
    """smolship's runtime for the interpreter `python` of a device, where `site` is a folder with numpy and the engines.
    The archive is written to the folder `work`."""
    return Runner(
        "python",
        {ZIP: runtime_archive(work / ZIP)},
        [python, "-P", "-m", "smolship.runtime.execute"],
        {"PYTHONPATH": f"{{}}/{ZIP}:{site}", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"},
        versions,
    )


def native_runner(folder: Path) -> Runner:
    """`smolship-run` as build.py left it in a folder, with the libraries that it needs."""
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    return Runner("smolship-run", files, ["{}/smolship-run"], versions=[f"executorch {metadata.version('executorch')}"])


def carried_runner(folder: Path) -> Runner:
    """The same as build.build_carried left it. The loader is told where libraries are by its own option: a variable
    would reach the device's programs too, and one that the device sets for them must not reach it."""
    found = native_runner(folder)
    start = [f"{{}}/{loader(folder, found.name)}", "--inhibit-cache", "--library-path", "{}", *found.command]
    return Runner(found.name, found.files, start, {"LD_PRELOAD": ""}, carries=True)


def runtime_archive(path: Path) -> Path:
    """smolship.runtime as an archive that Python imports from."""
    root = Path(smolship.runtime.__file__).parent
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        add_entry(archive, "smolship/", b"")  # a package without __init__.py is a folder
        for file in sorted(root.rglob("*.py")):
            add_entry(archive, f"smolship/runtime/{file.relative_to(root).as_posix()}", file.read_bytes())
        version = metadata.version("smolship")
        about = f"Metadata-Version: 2.1\nName: smolship\nVersion: {version}\n"
        add_entry(archive, f"smolship-{version}.dist-info/METADATA", about.encode())
    return path


def add_entry(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """An entry of an archive that the same content makes again."""
    entry = zipfile.ZipInfo(name, DATE)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)
