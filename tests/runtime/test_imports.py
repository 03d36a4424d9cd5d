"""The runtime runs where there is no torch, and an engine where there is no other engine."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import smolship.runtime
from smolship.runtime.engines import ENGINES

HEAVY = ["torch", "transformers", "torchao", "safetensors", "huggingface_hub", "typer", "rich", "gguf", "onnx"]
ENGINE_PACKAGES = ["executorch", "onnxruntime", "onnxruntime_genai", "coremltools", "llama_cpp"]
MODULES = sorted(m.name for m in pkgutil.walk_packages(smolship.runtime.__path__, "smolship.runtime."))
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
import importlib
for name in {modules!r}:
    importlib.import_module(name)
found = sorted({{name.split(".")[0] for name in sys.modules}} & set({blocked!r}))
assert not found, found
"""

FIRST = """
import importlib, os, sys, traceback
import numpy  # which takes most of the time
failed = []
for name in {modules!r}:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
assert not [name for name in sys.modules if name.startswith("smolship")]
print(failed)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_the_list_is_complete() -> None:
    assert {"smolship.runtime.chat", "smolship.runtime.bench", "smolship.runtime.engines.onnx"} <= set(MODULES)


@pytest.mark.parametrize("blocked", [HEAVY + ENGINE_PACKAGES], ids=["all"])
def test_every_module_imports_with_numpy_alone(blocked: list[str]) -> None:
    blocked = [*blocked, "tokenizers", "jinja2", "markupsafe"]  # inside the functions that need them
    modules = [name for name in MODULES if name != "smolship.runtime.template_worker"]  # a script: jinja2 is its job
    done = run(BLOCK.format(blocked=blocked, modules=modules))
    assert done.returncode == 0, done.stderr


def test_every_module_imports_first() -> None:
    """Each in a fork of a process that holds none of them yet."""
    done = run(FIRST.format(modules=MODULES))
    assert done.returncode == 0 and done.stdout == "[]\n", done.stdout + done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_does_without_the_others(engine: str) -> None:
    """Without its own package as well: the module imports, and opening says what to install."""
    code = (
        BLOCK.format(blocked=HEAVY + ENGINE_PACKAGES, modules=[ENGINES[engine]])
        + f"""
import pathlib, struct, tempfile
from smolship.runtime.engines import load_engine
from smolship.runtime.errors import SetupError
folder = pathlib.Path(tempfile.mkdtemp())
frame = b"....ET12eh00...." + struct.pack("<3Q", 40, 40, 0)  # an empty program, for ExecuTorch's engine
(folder / "m").write_bytes(frame)
try:
    load_engine({engine!r}).open_session(folder, {{"file": "m", "context": 8}}, 1)
except SetupError as error:
    assert "pip install 'smolship[" in str(error), error
    assert {engine!r} in str(error), error
else:
    raise AssertionError("opened")
"""
    )
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_the_guard_bites() -> None:
    assert run(BLOCK.format(blocked=["numpy"], modules=["smolship.runtime.session"])).returncode != 0
