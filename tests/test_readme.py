"""What the README tells people to type works, on a tiny model in place of the real one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from smolship.tools.cli import run
from tests.conftest import make_tiny

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a checkpoint of the README's name."""
    place = tmp_path_factory.mktemp("readme")
    make_tiny(place / "SmolLM2-135M-Instruct", "llama", max_position_embeddings=8192)
    return place


@pytest.mark.real
def test_commands(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("builtins.input", lambda prompt: (_ for _ in ()).throw(EOFError))
    commands = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ smolship")]
    assert len(commands) == 8
    for command in commands:
        assert run(shlex.split(command)[1:]) == 0, command
    assert (folder / "report.html").stat().st_size > 10_000


@pytest.mark.real
def test_python(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.endswith("True\n")


def test_make_targets_exist():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", "\n".join(blocks("console")) + "`make check`"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
