"""Consoles that do not hold every character: every command does what it does elsewhere, and can be read."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smolship.runtime.bundle import open_bundle
from smolship.runtime.errors import InputError
from smolship.tools import console
from smolship.tools.cli import app, run
from smolship.tools.commands import options
from smolship.tools.console import Screen
from smolship.tools.display import Steps
from tests.tools.commands import environ, run_commands

C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": "C"}
CONSOLES = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "latin-1": C | {"PYTHONIOENCODING": "latin-1"},
    "C": C,
    "koi8-r": {"PYTHONIOENCODING": "koi8-r"},
}
ANSWER = "a → b, 12–15 ≈ 你好, naïve é, \U0001f600"


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tmp_path_factory):
    """The folder that holds the bundle "b"."""
    made = tmp_path_factory.mktemp("console")
    shutil.copytree(tiny_bundle("llama", "int4"), made / "b")
    return made


@pytest.mark.parametrize(
    "name", ["ascii", *(pytest.param(name, marks=pytest.mark.real) for name in ("cp1252", "latin-1", "C", "koi8-r"))]
)
def test_every_command_on_every_console(bundle, tiny, tmp_path, name):
    help_of = [[command.name or command.callback.__name__, "--help"] for command in app.registered_commands]
    commands = {
        ("--version",): 0,
        ("--help",): 0,
        **{tuple(arguments): 0 for arguments in help_of},
        ("inspect", "b"): 0,
        ("inspect", "b", "--json"): 0,
        ("weights", "b", "--all"): 0,
        ("parity", "b", "--quick", "-t", "onnx"): 0,
        ("parity", "b", "--quick", "-t", "onnx", "--max-kl", "1e-9"): 1,
        ("generate", "b", "h→i", "-t", "onnx", "--max-tokens", "30", "--raw", "--temperature", "3", "--seed", "1"): 0,
        ("chat", "b", "-t", "onnx", "--max-tokens", "9", "--system", "‘naïve’ 你好"): 0,
        ("inspect", "nöthing–here"): 2,
        ("parity", "b", "-t", "flåsh→"): 2,
        ("generate", "b"): 2,
        ("bench", "b", "--repeats", "0"): 2,
    }
    if name == "cp1252":
        commands |= {
            ("bench", "b", "-t", "gguf", "--repeats", "1"): 0,
            (
                "export",
                str(tiny("llama")),
                "-o",
                str(tmp_path / "new"),
                "--to",
                "gguf",
                "--context",
                "32",
                "--probe-tokens",
                "0",
            ): 0,
            ("report", str(tmp_path / "new"), "--quick", "-o", str(tmp_path / "r.html")): 2,  # it has no probes
        }
    codes, out, err = run_commands(list(commands), bundle, tmp_path / "smolship", **CONSOLES[name])
    assert codes == list(commands.values()), err.decode("latin-1")
    assert b"Traceback" not in err
    encoding = {"C": "ascii"}.get(name, name)
    text = out.decode(encoding) + err.decode(encoding)
    assert "held at 4 bits" in text and "engine, decode" in text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "koi8-r", "utf-8"])
def test_text_is_spelled_with_what_the_console_has(encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, write_through=True))
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    console.settle_streams()
    print(ANSWER, "\udcff", end="")
    want = {
        "ascii": r"a -> b, 12-15 ~ \u4f60\u597d, na\xefve \xe9, \U0001f600 \udcff",
        "latin-1": r"a -> b, 12-15 ~ \u4f60\u597d, naïve é, \U0001f600 \udcff",
        "cp1252": r"a -> b, 12–15 ~ \u4f60\u597d, naïve é, \U0001f600 \udcff",
        "koi8-r": r"a -> b, 12-15 ≈ \u4f60\u597d, na\xefve \xe9, \U0001f600 \udcff",
        "utf-8": ANSWER + r" \udcff",
    }[encoding]
    assert raw.getvalue().decode(encoding) == want


def test_json_is_the_same_everywhere(bundle, tmp_path):
    """ASCII, whatever the console holds."""
    command = ["generate", "b", "naïve → 你好", "-t", "onnx", "--max-tokens", "30", "--raw", "--json"]
    answers = []
    for name in ("cp1252", "C"):
        codes, out, err = run_commands([command], bundle, tmp_path / "smolship", **CONSOLES[name])
        assert codes == [0], err
        answers.append({k: v for k, v in json.loads(out.decode("ascii")).items() if not k.endswith("_s")})
    assert answers[0] == answers[1]


COMMAND = [sys.executable, "-P", "-m", "smolship.tools.cli"]


@pytest.mark.parametrize("locale", [{}, C, {"PYTHONIOENCODING": "cp1252"}], ids=["utf-8", "C", "cp1252"])
def test_standard_input_is_utf_8(bundle, locale):
    """What is piped in is a file's, not the console's."""
    generate = [*COMMAND, "generate", "b", "-", "-t", "onnx", "--max-tokens", "2", "--raw", "--json"]
    prompt = "naïve 你好"
    done = subprocess.run(generate, cwd=bundle, env=environ(**locale), input=prompt.encode(), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["prompt_tokens"] == len(open_bundle(bundle / "b").tokenizer.encode(prompt))


@pytest.mark.parametrize("arguments", [["generate", "b", "-"], ["chat", "b"]])
def test_standard_input_that_is_no_text(bundle, arguments):
    command = [*COMMAND, *arguments, "-t", "onnx", "--max-tokens", "2"]
    done = subprocess.run(
        command, cwd=bundle, env=environ(PYTHONUTF8="1"), input=b"caf\xe9 \xff\n", capture_output=True
    )
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr and b"got:" in done.stderr


def test_arguments_that_are_no_text(bundle):
    for arguments in (["generate", "b", b"caf\xe9"], ["chat", "b", "--system", b"\xff"]):
        done = subprocess.run(
            [*COMMAND, *arguments, "-t", "onnx"],
            cwd=bundle,
            env=environ(PYTHONUTF8="1"),
            input=b"",
            capture_output=True,
        )
        assert done.returncode == 2 and b"is not UTF-8" in done.stderr, done.stderr


def test_arguments_are_read_as_utf_8_where_the_console_is_not():
    assert console.argument_text("caf\udcc3\udca9", "it") == "café" == console.argument_text("café", "it")
    with pytest.raises(InputError, match="it is not UTF-8"):
        console.argument_text("caf\udce9", "it")


@pytest.mark.parametrize("arguments", [["inspect", "b"], ["inspect", "b", "--json"], ["weights", "b", "--all"]])
def test_a_reader_that_goes(bundle, arguments):
    """`| head -0`: nothing is wrong, and nothing is said."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([*COMMAND, *arguments], cwd=bundle, env=environ(), stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert done.returncode == 0 and b"rror" not in done.stderr, done.stderr


def test_no_standard_output(bundle):
    shell = ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "inspect", "b"]
    done = subprocess.run(shell, cwd=bundle, env=environ(), stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr


def test_a_full_disk_behind_standard_output(bundle):
    with Path("/dev/full").open("wb") as full:
        command = [*COMMAND, "inspect", "b"]
        done = subprocess.run(command, cwd=bundle, env=environ(), stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 3 and b"disk is full" in done.stderr, done.stderr


def test_a_command_in_this_process_changes_no_stream(bundle, capsys):
    errors = sys.stdout.errors
    assert run(["inspect", str(bundle / "b")]) == 0
    assert sys.stdout.errors == errors


def test_what_a_device_does_is_no_markup(capsys):
    with Steps(Screen(stderr=True)) as steps:
        steps.update("parity [/a]", "[/foo]\x1b[31m [link=http://evil]x", 1, 3)
    assert "[/foo]" in (said := capsys.readouterr().err) or "parity [/a]" in said
    assert "\x1b[31m" not in said


def test_what_a_device_says_is_no_command_of_the_terminal(capsys):
    options.say_notes(["the governor changed from \x1b]0;theirs\x07 to \x9b31m"])
    assert capsys.readouterr().err.strip() == "note: the governor changed from  ]0;theirs  to  31m"
