"""What the documentation tells people to type works, on a tiny model in place of the real one.

Console blocks of README.md and docs/commands.md are run in order, as they stand. What a command prints must have the
form of what stands below it: the same lines, but for numbers and the model's own words; `…` stands for lines left out.
All other command lines are parsed, so that none names what does not exist, and links lead somewhere.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from itertools import groupby
from pathlib import Path

import pytest
import typer

from smolship.tools import cli
from tests.conftest import make_tiny

ROOT = Path(__file__).parents[1]
README, COMMANDS = ROOT / "README.md", ROOT / "docs" / "commands.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODEL = "SmolLM2-135M-Instruct"
GAP = "…"
# What differs from model to model and machine to machine, and the word that stands for it.
FORMS = [
    (r"\b[0-9a-f]{15}…", "DIGEST"),
    (r"\d+(,\d{3})*(\.\d+)?(e[+-]\d+)?|\bnone\b|\bunavailable\b", "N"),
    (r"\bN ± N\b", "N"),  # a single position has no interval
    (r"\bN [kMG]?B\b", "N B"),
    (r"─+", "─"),
    (r"ended by [^;]+;", "ended by …;"),
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def shown(page: Path) -> list[tuple[str, list[str]]]:
    """Each smolship command of a page's console blocks, with the lines below it."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks(page, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return [(command, lines) for command, lines in found if command.startswith("smolship ")]


def form(line: str) -> str:
    for pattern, word in FORMS:
        line = re.sub(pattern, word, line)
    return " ".join(line.split())


def differs(wanted: list[str], printed: list[str]) -> str:
    """What of the lines `wanted` was not printed like that; empty where all was."""
    forms, at, free = [form(line) for line in printed if line.strip()], 0, False
    for is_gap, lines in groupby(wanted, lambda line: line == GAP):
        if is_gap:
            free = True
            continue
        piece = [form(line) for line in lines]
        starts = range(at, len(forms) - len(piece) + 1) if free else [at]
        at = next((i + len(piece) for i in starts if forms[i : i + len(piece)] == piece), -1)
        if at < 0:
            return "\n".join(["not printed, without gaps:", *piece, "", "but:", *forms])
        free = False
    return "" if free or at == len(forms) else "\n".join(["printed, and neither shown nor …:", *forms[at:]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny checkpoint of the README's name."""
    place = tmp_path_factory.mktemp("readme")
    make_tiny(place / MODEL, "llama", max_position_embeddings=8192)
    return place


@pytest.fixture(autouse=True)
def typed_there(folder, monkeypatch):
    """Commands run in that folder, in a wide terminal, by somebody who has nothing to say."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("builtins.input", lambda prompt: (_ for _ in ()).throw(EOFError))


def test_commands_print_what_is_shown(loads_once, capsys):
    commands = shown(README)
    assert [command.split()[1] for command, _ in commands] == ["export", "weights", "parity", "bench", "generate"]
    for command, wanted in commands:
        capsys.readouterr()
        fewer = ["--probe-tokens", "512"] if "export" in command else []  # the form is the same
        assert cli.run(shlex.split(command)[1:] + fewer) == 0, command
        printed = capsys.readouterr()
        lines = printed.out.splitlines()
        if "generate" in command:  # what the model says is its own, and the line below it goes to the other stream
            wanted, lines = wanted[-1:], printed.err.splitlines()[-1:]
            assert printed.out.strip()
        problem = differs(wanted, lines)
        assert wanted and not problem, f"{command}\n{problem}"
    for code in blocks(README, "python"):  # of the bundle that the first command made
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    for command, _ in shown(COMMANDS):
        if command.split()[1] != "report":  # which takes longer
            assert cli.run(shlex.split(command)[1:]) == 0, command


@pytest.mark.real
def test_the_rest(folder, capsys):
    """On a bundle of its own, which the Python page makes."""
    (code,) = blocks(ROOT / "docs" / "python.md", "python")
    exec(compile(code, "python.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.endswith("True\n")
    (report,) = (command for command, _ in shown(COMMANDS) if command.split()[1] == "report")
    assert cli.run(shlex.split(report)[1:]) == 0
    assert (folder / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    "wanted, printed, good",
    [
        (["a  1.5 MB", "b"], ["", "a 20 kB", "", "b"], True),
        (["a", GAP, "c"], ["a", "b", "c"], True),
        (["a", "c"], ["a", "b", "c"], False),
        (["a", GAP], ["a", "b"], True),
        (["a"], ["a", "b"], False),
        ([GAP, "b"], ["a", "b"], True),
        (["mean KL  top-1"], ["mean KL  p99"], False),
        (["decode ± 0.1"], ["prefill ± 0.1"], False),
        (["floor 0.1 none"], ["floor none 3"], True),
        (["x 1 2"], ["x 1"], False),
    ],
)
def test_forms_are_compared(wanted, printed, good):
    assert (not differs(wanted, printed)) == good


def command_lines() -> list[str]:
    """Every smolship command line of the documentation, in blocks and in running text."""
    found = []
    for page in PAGES:
        for block in [*blocks(page, "console"), *blocks(page, "sh")]:
            found += re.findall(r"^(?:\$ )?(smolship .*)$", block, re.MULTILINE)
        found += [" ".join(line.split()) for line in re.findall(r"`(smolship [^`]+)`", page.read_text())]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_can_be_parsed(line):
    """Commands and options exist, values have their types; nothing is run."""
    name, *given = shlex.split(line, comments=True)[1:]
    if name != "COMMAND":
        command = typer.main.get_command(cli.app).commands[name]
        if given:  # else the command is only spoken of
            command.make_context(name, given)


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = link.partition("#")
            if "://" in link:
                continue
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{page.name}: {link}"


def test_make_targets_and_modules_exist():
    makefile, text = (ROOT / "Makefile").read_text(), "\n".join(page.read_text() for page in PAGES)
    for target in set(re.findall(r"(?:`|\$ )make (\w+)", text)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for module in set(re.findall(r"-m (smolship[\w.]+)", text)):
        path = ROOT / module.split(".")[1] / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_extras_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    table = README.read_text().partition("| extra |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= {"executorch", "onnx", "coreml", "gguf", "export", "all"}
    text = "\n".join(page.read_text() for page in PAGES)
    for names in re.findall(r"(?:smolship|\.)\[([\w,]+)\]'?`?", text):
        assert set(names.split(",")) <= extras.keys(), names


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 130


@pytest.mark.parametrize("package", ["export", "runtime", "tools"])
def test_packages_are_typed(package):
    assert (ROOT / package / "smolship" / package / "py.typed").exists()
