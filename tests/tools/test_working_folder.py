"""Code that lies in the working folder does not run, whatever the command."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from smolship.runtime.manifest import read_manifest
from smolship.runtime.process import environment, python, roots
from smolship.tools.cli import app
from tests.tools.commands import environ, run_commands

# What imports when they are started, or in a corner that these commands do not reach.
MORE = {
    "sitecustomize",
    "usercustomize",
    "conftest",
    "setup",
    "pip",
    "venv",
    "pytest",
    "triton",
    "apex",
    "flash_attn",
    "bitsandbytes",
    "configuration_llama",
    "modeling_llama",
    "tokenization_llama",
}
OURS = (
    "smolship/tools/cli.py",
    "smolship/export/worker.py",
    "smolship/export/__init__.py",
    "smolship/runtime/execute.py",
    "smolship/runtime/__init__.py",
)
# As pip writes it into bin/.
SCRIPT = "import sys\nfrom smolship.tools.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


@pytest.fixture
def trap(tmp_path):
    """trap(names) -> a folder with a canary under each name; what ran is in "sang" beside it."""

    def make(names: set[str]) -> Path:
        folder = tmp_path / "trap"
        folder.mkdir()
        song = f"open({str(tmp_path / 'sang')!r}, 'a').write(__name__ + '\\n')\nraise RuntimeError(__name__)\n"
        for name in names:
            path = folder / name if name.endswith(".py") else folder / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(song)
        return folder

    return make


@pytest.fixture
def sang(tmp_path):
    return lambda: (tmp_path / "sang").read_text().split() if (tmp_path / "sang").exists() else []


def every_name() -> set[str]:
    """Top-level packages: the standard library's, all that are installed, all that are imported here."""
    installed = importlib.metadata.packages_distributions()
    names = {*sys.stdlib_module_names, *installed, *MORE, *(name.partition(".")[0] for name in sys.modules)}
    names = {name for name in names if name.isidentifier() and name not in ("smolship", "tests", "__main__")}
    assert {"typing", "json", "numpy", "torch", "tokenizers", "onnxruntime", "llama_cpp", "executorch"} < names
    return names


@pytest.mark.real
def test_no_command_imports_from_the_working_folder(trap, sang, tiny, tiny_bundle, tmp_path, monkeypatch):
    """The folder is the checkpoint, as for `smolship export .`, and holds the bundle."""
    monkeypatch.setenv("SMOLSHIP_CACHE", str(tmp_path / "kept"))
    folder = trap(every_name() | set(OURS))
    shutil.copytree(tiny("llama"), folder, dirs_exist_ok=True)
    shutil.copytree(tiny_bundle("llama", "int4"), folder / "b")
    for target in ("executorch", "gguf"):  # each costs seconds; they are in ../out
        shutil.rmtree(folder / "b" / target)
    manifest = read_manifest(folder / "b")
    replace(manifest, targets={"onnx": manifest.targets["onnx"]}).write(folder / "b")
    commands = [
        ["export", ".", "-o", "../out", "--to", "all", "--context", "48", "--probe-tokens", "32"],
        ["cache"],
        ["inspect", "b"],
        ["parity", "b", "--quick", "--keep", "../results"],
        ["judge", "b", "../results/onnx.json"],
        ["devices"],
        ["weights", "b"],
        ["weights", "../out", "--reveal", "-t", "executorch"],
        ["bench", "b", "--repeats", "1"],
        ["generate", "b", "hi", "--max-tokens", "3"],
        ["generate", "../out", "hi", "--max-tokens", "2", "-t", "gguf"],
        ["generate", "../out", "hi", "--max-tokens", "2", "-t", "coreml"],
        ["chat", "b", "-t", "onnx", "--max-tokens", "3"],
        ["report", "b", "--quick", "-o", "../report.html"],
    ]
    assert {command.name or command.callback.__name__ for command in app.registered_commands} == {
        name for name, *_ in commands
    }
    codes, _, said = run_commands(commands, folder, tmp_path / "smolship")
    assert sang() == [], said.decode()
    assert codes == [0] * len(commands), said.decode()


@pytest.mark.parametrize("how", ["script", "module", "path"])
def test_what_is_imported_late_is_safe_without_the_flag(trap, sang, tiny_bundle, tmp_path, how):
    """`python -m` and an empty or relative entry of PYTHONPATH put the working folder on Python's path."""
    folder = trap({"onnxruntime", "google", "torch", "jinja2", "unicodedata"})
    script = tmp_path / "smolship"
    script.write_text(SCRIPT)
    start = [sys.executable, "-m", "smolship.tools.cli"] if how == "module" else [sys.executable, str(script)]
    path = os.pathsep.join(["", roots(), "."]) if how == "path" else roots()
    command = [*start, "generate", str(tiny_bundle("llama", "int4")), "hi", "-t", "onnx", "--max-tokens", "2"]
    done = subprocess.run(command, cwd=folder, env=environ(PYTHONPATH=path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sang() == []


def test_children_search_no_relative_folder(trap, sang, tmp_path, monkeypatch):
    folder = trap({"json", "typing", "encodings", "sitecustomize"})
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.chdir(folder)
    for name in ("PYTHONPATH", "PATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, os.pathsep.join(["", str(kept), ".", "sub", str(kept), ""]))
    found = environment()
    assert found["PATH"] == found["LD_LIBRARY_PATH"] == str(kept)
    assert found["PYTHONPATH"].split(os.pathsep)[-1] == str(kept)
    assert all(Path(entry).is_absolute() for entry in found["PYTHONPATH"].split(os.pathsep))
    code = "import json, typing, sys; print(sys.path)"
    again = f"import subprocess; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    (kept / "child.py").write_text(f"{code}\n{again}")
    done = subprocess.run(python("child"), env=found, capture_output=True, text=True, check=True)
    assert sang() == [] and str(folder) not in done.stdout and done.stdout.count(str(kept)) == 2
    monkeypatch.setenv("PATH", os.pathsep.join(["", "."]))
    assert "PATH" not in environment()


def test_the_trap_bites(trap, sang):
    """The canaries sing where nothing is done about them."""
    folder = trap({"colorsys"})
    subprocess.run([sys.executable, "-c", "import colorsys"], cwd=folder, env=environ(), capture_output=True)
    subprocess.run([sys.executable, "-m", "smolship.tools.cli"], cwd=folder, env=environ(), capture_output=True)
    assert sang() == ["colorsys", "colorsys"]


def test_no_child_is_started_by_hand():
    """Every child's command line comes from process.py, or isolates itself (-I)."""
    for root in ("export", "runtime", "tools"):
        for path in Path(__file__).parents[2].joinpath(root).rglob("*.py"):
            for line in path.read_text().splitlines():
                # pythons.py asks a device's interpreter where it lies.
                if "sys.executable" in line and path.name not in ("process.py", "pythons.py"):
                    assert '"-I"' in line or "Path(sys.executable)" in line, f"{path}: {line.strip()}"
