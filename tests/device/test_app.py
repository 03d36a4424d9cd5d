"""`--via app`: plans executed by the demo app of a phone, by the real adb client. The app is the tests' own here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smolship.tools.cli import run
from smolship.tools.devices import app, job
from tests.device.adb_server import adb_server
from tests.device.adbd import Adbd, Quirks
from tests.device.demo_app import HOME, DemoApp, install
from tests.device.phone import enter, make_root

pytestmark = pytest.mark.real


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Adbd]:
    root = make_root(tmp_path / "phone")
    install(root / "system/bin")
    monkeypatch.setattr(app, "HOME", HOME)
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    with adb_server(tmp_path / "home") as port:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        device = Adbd(root, enter(root), Quirks())
        yield device
        device.close()


@pytest.fixture
def begin(phone: Adbd) -> Iterator[Callable[[str], DemoApp]]:
    started: list[DemoApp] = []

    def start(mode: str) -> DemoApp:
        started.append(DemoApp(phone.tmp, mode))
        return started[-1]

    yield start
    for each in started:
        each.close()


def ask(phone: Adbd, bundle: Path, command: str, *more: str) -> int:
    return run([command, str(bundle), "-t", "onnx", "--device", f"adb://{phone.serial}", "--via", "app", *more])


def test_parity_and_bench(phone: Adbd, begin: Any, tiny_bundle: Any, tmp_path: Path, capsys: Any) -> None:
    bundle = shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "a b;$(touch x)'\"")
    demo = begin("good")
    assert ask(phone, bundle, "parity", "--quick", "--json", "--keep", str(tmp_path / "kept")) == 0, capsys.readouterr()
    (report,) = json.loads(capsys.readouterr().out)
    assert report["passed"] and (tmp_path / "kept/onnx.json").exists()
    there = phone.tmp / "sdcard/bench"
    (folder,) = {asked["folder"] for asked in demo.asked}
    names = {path.name for path in (there.parent / folder).rglob("*")}
    assert names == {path.name for path in (bundle / "onnx").rglob("*")} and not [
        one for one in there.rglob("*") if "a b" in one.name
    ]
    assert not list((there / "device/files").iterdir()) and not list(there.glob("run-*"))  # not held twice; runs go
    before = (there.parent / folder / "model.onnx").stat()
    assert ask(phone, bundle, "bench", "--repeats", "1", "--record", str(tmp_path / "record")) == 0
    assert "decode after" in capsys.readouterr().out and (tmp_path / "record/onnx.json").exists()
    after = (there.parent / folder / "model.onnx").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)  # it was not sent again
    assert len({asked["id"] for asked in demo.asked}) == len(demo.asked) > 2
    assert not (phone.tmp / "smolship/device/runs/lock").exists() and not (phone.tmp / "stopped").exists()
    with (there.parent / folder / "model.onnx.data").open("r+b") as file:
        file.write(b"altered")
    assert ask(phone, bundle, "parity", "--quick") == 0  # what was altered there is sent again
    assert run(["devices", "clean", f"adb://{phone.serial}"]) == 0
    assert not list(phone.tmp.rglob("*model*")) and not there.exists()


@pytest.mark.parametrize("mode", ["good", "tokenizer", "mistaken"])
def test_the_app_s_own_tokenizer(phone: Adbd, begin: Any, tiny_bundle: Any, capsys: Any, mode: str) -> None:
    """An app that knows no strings is said to have none; one that gives another id fails the gate."""
    begin(mode)
    code = ask(phone, tiny_bundle("llama", "int4"), "parity", "--quick", "--json")
    (report,) = json.loads(capsys.readouterr().out)
    (check,) = (check for check in report["checks"] if check["stage"] == "tokenizer")
    assert code == (mode == "mistaken") and check["passed"] == (mode != "mistaken")
    assert bool(check["positions"]) == (mode != "good")
    assert [one["stage"] for one in report["checks"] if not one["passed"]] == ["tokenizer"] * (mode == "mistaken")
    if mode == "mistaken":
        assert check["at"] == "'1234567890', token 4" and "onnxruntime-genai: 1 of " in check["note"]
    elif mode == "good":
        assert "no tokenizer that can be asked" in check["note"]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("refuses", ["no such engine in this app", "executorch, onnx"]),
        ("busy", ["another run goes on", "got:      7"]),
        ("dies", ["the runner ended before it answered (begin)", "SIGKILL", "memory"]),
        ("hangs", ["its time was over: 4 s", "--limit"]),
    ],
)
def test_what_the_app_says_and_how_it_ends(
    phone: Adbd, begin: Any, tiny_bundle: Any, capsys: Any, mode: str, words: list[str]
) -> None:
    begin(mode)
    assert ask(phone, tiny_bundle("llama", "int4"), "parity", "--quick", "--limit", "4") == 3
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    stopped = phone.tmp / "stopped"
    assert stopped.exists() == (mode == "hangs") and (mode != "hangs" or stopped.read_text() == "dev.smolship.demo\n")
    assert not (phone.tmp / "smolship/device/runs/lock").exists()
    assert not list((phone.tmp / "sdcard/bench").glob("run-*"))


def test_nothing_comes_of_it(phone: Adbd, begin: Any, tiny_bundle: Any, capsys: Any, monkeypatch: Any) -> None:
    before = job.shell_file
    monkeypatch.setattr(job, "shell_file", lambda name: before(name).replace("-ge 60", "-ge 3"))
    begin("never")
    assert ask(phone, tiny_bundle("llama", "int4"), "parity", "--quick") == 3
    said = capsys.readouterr().err
    assert "the demo app was not begun" in said and "nothing came of it" in said and "unlock the phone" in said
    assert (phone.tmp / "stopped").exists()


def test_an_app_that_is_not_there(phone: Adbd, tiny_bundle: Any, capsys: Any) -> None:
    bundle = tiny_bundle("llama", "int4")
    (phone.tmp / "not-installed").touch()
    assert ask(phone, bundle, "bench") == 3
    said = capsys.readouterr().err
    assert "the demo app is not there" in said and "adb install" in said and not (phone.tmp / "sdcard").exists()
    (phone.tmp / "not-installed").unlink()
    (phone.tmp / "no-activity").touch()
    assert ask(phone, bundle, "parity", "--quick") == 3
    said = capsys.readouterr().err
    assert "the demo app was not begun" in said and "does not exist" in said


def test_what_is_refused_before_a_link_is_made(tiny_bundle: Any, capsys: Any) -> None:
    bundle = str(tiny_bundle("llama", "int4"))
    for device in ("ssh://pi", "local"):
        assert run(["parity", bundle, "-t", "onnx", "--device", device, "--via", "app"]) == 2
        assert "--via app is for phones" in capsys.readouterr().err
    assert run(["bench", bundle, "-t", "onnx,gguf", "--device", "adb://x", "--via", "app"]) == 2
    said = capsys.readouterr().err
    assert "does not have the engine" in said and "got:      gguf" in said
