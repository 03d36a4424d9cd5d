"""The ExecuTorch engine on files that it cannot open, and without its package."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from smolship.export.targets.executorch.program import Program
from smolship.runtime.engines.executorch import open_session
from smolship.runtime.errors import InputError, SetupError

INFO = {"file": "model.pte"}


@pytest.mark.parametrize(
    "content", [b"", b"ET", bytes(10_000), random.Random(1).randbytes(10_000)], ids=["empty", "short", "zeros", "noise"]
)
def test_a_file_that_is_no_program(tmp_path, content):
    (tmp_path / "model.pte").write_bytes(content)
    with pytest.raises(InputError, match="not a program that ExecuTorch can open"):
        open_session(tmp_path, INFO, threads=1)


@pytest.fixture
def foreign(tmp_path):
    """A sound program that lacks what a session asks for."""
    program = Program()
    constant = program.floats(np.ones(3)).tensor
    assert constant is not None
    program.outputs = [constant, program.tensor((1,))]
    program.write(tmp_path / "model.pte", {"get_vocab_size": [7]})
    return tmp_path


def test_a_program_of_another_kind(foreign):
    with pytest.raises(InputError, match="get_max_context_len"):
        open_session(foreign, INFO, threads=1)


def test_a_truncated_program(foreign):
    path = foreign / "model.pte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="bytes and claims"):
        open_session(foreign, INFO, threads=1)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="no ExecuTorch program"):
        open_session(tmp_path, INFO, threads=1)


def test_a_file_outside_its_folder(foreign):
    with pytest.raises(InputError, match="leaves its folder"):
        open_session(foreign / "sub", {"file": "../model.pte"}, threads=1)


def test_without_the_package(foreign, monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch.extension.pybindings", None)
    with pytest.raises(SetupError, match=r"smolship\[executorch\]"):
        open_session(foreign, INFO, threads=1)


def test_the_compiler_is_not_imported():
    """Opening a program takes ExecuTorch's runtime only: its compiler would cost seconds."""
    code = "from smolship.runtime.engines.executorch import _runtime; _runtime()"
    check = "import sys; print('executorch.exir' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
