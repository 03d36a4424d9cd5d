"""A command that was asked for JSON says in JSON that it failed, and on standard error as ever."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from smolship.runtime.errors import Fault, GateError, InputError, SetupError
from smolship.tools import busy
from smolship.tools.cli import app, run
from smolship.tools.console import INTERRUPTED
from smolship.tools.failures import Failure, asks_json
from smolship.tools.fidelity.__main__ import run as fidelity
from smolship.tools.peers.__main__ import run as peers
from tests.tools.commands import environ, run_commands

GROUP = typer.main.get_command(app)
COMMANDS = [name for name, command in GROUP.commands.items() if any("--json" in p.opts for p in command.params)]
# What a command needs; else a bundle. What is refused of `cache` is a period.
GIVEN = {
    "export": ["./model", "-o", "out"],
    "generate": ["bundle", "hi"],
    "judge": ["bundle", "result.json"],
    "devices": ["list", "telnet://pi"],
    "cache": ["clear", "--older-than", "long"],
}
FIRST = {  # that can fail
    "export": "export.pipeline.check_output",
    "cache": "tools.commands.cache.seconds",
    "devices": "tools.devices.uri.parse",
}
KEYS = ["kind", "exit_code", "message", "what", "got", "expected", "todo"]


def arguments(command: str, *more: str) -> list[str]:
    return [command, *GIVEN.get(command, ["bundle"]), *more, "--json"]


@pytest.fixture
def failed(capsys, tmp_path, monkeypatch):
    """failed(command line, code) -> the error; standard output holds nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def ask(line, code, command=run):
        assert command(line) == code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        (key, error), *rest = json.loads(printed.out).items()
        assert key == "error" and not rest and list(error) == KEYS and error["exit_code"] == code
        if error["kind"] != "usage":  # which typer draws in a box
            assert f"smolship: {error['message']}\n" in printed.err
        return error

    return ask


def test_every_command_but_two_has_json():
    assert set(GROUP.commands) - set(COMMANDS) == {"chat", "report"}


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_input(failed, command):
    error = failed(arguments(command), 2)
    assert error["kind"] == "input" and error["got"] and error["expected"]
    assert error["message"].splitlines()[0] == error["what"] and "got:" not in error["what"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("more", [["--frobnicate"], ["too", "many", "words"], ["--target"], ["--out"]])
def test_a_command_line_that_cannot_be_read(failed, command, more):
    if command == "judge":  # which takes any number of results
        more = [*more, "--threads"]
    assert failed([command, "--json", "a", "b", *more], 2)["kind"] == "usage"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["bench", "b", "--repeats", "0", "--json"], "--repeats"),
        (["--json", "generate", "b", "hi", "--seed", "one"], "--json"),
        (["generate", "b", "hi", "--seed", "one", "--json"], "--seed"),
        (["export", "--json"], "MODEL"),
        (["publish", "--json"], "publish"),
    ],
)
def test_values_that_cannot_be_read(failed, line, words):
    error = failed(line, 2)
    assert error["kind"] == "usage" and words in error["message"]


RAISED = [
    (GateError("they differ", got=0.3, expected="less"), "gate", 1),
    (SetupError("no engine", todo="install it\nand run it again"), "setup", 3),
    (Fault("a fault of smolship"), "fault", 70),
    (KeyError("x"), "fault", 70),
    (MemoryError(), "setup", 3),
    (KeyboardInterrupt(), "interrupted", INTERRUPTED),
    (SystemExit(143), "interrupted", 143),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("raised", "kind", "code"), RAISED, ids=[f"{type(r[0]).__name__}-{r[2]}" for r in RAISED])
def test_whatever_ends_a_command(failed, command, raised, kind, code, monkeypatch, capsys, faults):
    def raise_it(*args, **kwargs):
        raise raised

    first = FIRST.get(command, f"tools.commands.{command}.open_bundle")
    monkeypatch.setattr(f"smolship.{first}", raise_it)
    if isinstance(raised, SystemExit):
        assert run(arguments(command)) == code
        error = json.loads(capsys.readouterr().out)["error"]
    else:
        error = failed(arguments(command), code)
    assert error["kind"] == kind and len(faults()) == isinstance(raised, KeyError)
    if isinstance(raised, SetupError):
        assert (error["what"], error["got"], error["todo"]) == ("no engine", None, "install it\nand run it again")


def test_parts_are_read_back_from_a_text_that_a_child_sent():
    whole = InputError("two things:\n  - a\n  - b", got="x\ny", expected=[1], todo="look:\n  got:      not this")
    again = InputError(str(whole))
    assert (
        whole.parts()
        == again.parts()
        == {"what": "two things:\n  - a\n  - b", "got": "x y", "expected": "[1]", "todo": "look:\n  got:      not this"}
    )
    assert Failure.of(InputError("it")).todo is None


def test_without_the_option_nothing_is_printed(capsys, tmp_path):
    assert run(["inspect", str(tmp_path)]) == 2 == run(["generate", "x", "--", "--json"])
    assert capsys.readouterr().out == ""
    assert not asks_json(["generate", "b", "--", "--json"]) and asks_json(["generate", "b", "--json", "--", "x"])


def test_a_failed_gate_is_a_report_and_no_error(tiny_bundle, capsys):
    assert run(["parity", str(tiny_bundle("llama", "int4")), "-t", "onnx", "--quick", "--max-kl", "0", "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert not report["passed"]


def test_the_other_tools_too(failed):
    assert failed(["--json"], 2, peers)["kind"] == "input"
    assert failed(["--bitz", "--json", "3"], 2, peers)["kind"] == "usage"
    assert failed(["--json"], 2, fidelity)["kind"] == "input"
    assert failed(["--tokens", "1", "--small", "--json"], 2, fidelity)["kind"] == "usage"
    assert failed(["--rounds", "0", "--json"], 2, busy.main)["kind"] == "usage"
    assert failed(["nothing", "--json"], 2, busy.main)["kind"] == "input"


def test_on_every_console(tiny_bundle, tmp_path):
    """ASCII, as all JSON is."""
    made = tmp_path / "made"
    made.mkdir()
    shutil.copytree(tiny_bundle("llama", "int4"), made / "b")
    lines = [["parity", "b", "-t", "flåsh→", "--json"], ["generate", "b", "--bäd→", "--json"]]
    for encoding in ("ascii:strict", "cp1252", "utf-8"):
        codes, out, err = run_commands(lines, made, tmp_path / "smolship", PYTHONIOENCODING=encoding)
        assert codes == [2, 2], err
        decoder, text, found = json.JSONDecoder(), out.decode("ascii"), []
        while text := text.lstrip():
            value, end = decoder.raw_decode(text)
            found.append(value["error"])
            text = text[end:]
        assert [error["kind"] for error in found] == ["input", "usage"]
        assert "flåsh→" in found[0]["got"]


COMMAND = [sys.executable, "-P", "-m", "smolship.tools.cli"]


def test_nobody_reads_it():
    line = [*COMMAND, "inspect", "/nothing", "--json"]
    with Path("/dev/full").open("wb") as full:
        assert subprocess.run(line, env=environ(), stdout=full, stderr=subprocess.DEVNULL).returncode == 2
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(line, env=environ(), stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 2 and b"BrokenPipe" not in done.stderr


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_of_a_running_command(signum, code):
    """While it waits for the prompt on standard input."""
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "from smolship.tools.commands import generate\nfrom smolship.tools import cli\n"
    script += "def wait(*a):\n    import time\n    print('waiting', flush=True)\n    time.sleep(60)\n"
    script += "generate.open_bundle = wait\ncli.main(['generate', 'b', 'hi', '--json'])\n"
    line = [sys.executable, "-P", "-c", script]
    with subprocess.Popen(line, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline() == b"waiting\n"
        time.sleep(0.1)
        child.send_signal(signum)
        out, err = child.communicate(timeout=30)
    assert child.returncode == code and b"Traceback" not in err
    error = json.loads(out)["error"]
    assert (error["kind"], error["exit_code"]) == ("interrupted", code)
