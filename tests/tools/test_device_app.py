"""Runs by the demo app of a phone, over a link to this machine: what starts it, what it tells, and how it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime.errors import SetupError
from smolship.tools.devices import app, job
from smolship.tools.devices.app import AppStore, AppWatch, app_job, find_app
from smolship.tools.devices.link import LinkLost
from tests.device.demo_app import DemoApp, install
from tests.tools.local_link import LocalLink
from tests.tools.test_device_job import PLAN, SHELLS

Begin = Callable[..., tuple[DemoApp, app.AppJob]]
pytestmark = pytest.mark.usefixtures("short")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("smolship.tools.devices.store.mount_of", lambda path, mounts: None)
    monkeypatch.setattr(app, "HOME", f"{tmp_path}/sdcard")
    monkeypatch.setattr(job, "BEAT_S", 0.5)
    before = job.shell_file
    monkeypatch.setattr(job, "shell_file", lambda name: before(name).replace("-ge 60", "-ge 3"))


@pytest.fixture
def link(tmp_path: Path) -> Callable[..., LocalLink]:
    """link(shell) -> of a phone with am and pm, whose seconds are short."""
    (tmp_path / "programs").mkdir()
    install(tmp_path / "programs", str(tmp_path), "/bin/sh")
    (tmp_path / "programs/sleep").write_text("#!/bin/sh\nexec /bin/sleep 0.05\n")
    (tmp_path / "programs/sleep").chmod(0o755)
    path = f"PATH={tmp_path}/programs:{os.environ['PATH']}"
    return lambda shell=("/bin/sh",): LocalLink(("/usr/bin/env", path, *shell))


@pytest.fixture
def begin(link: Callable[..., LocalLink], tmp_path: Path) -> Iterator[Begin]:
    """begin(mode, shell) -> the app, and what executes plans by it."""
    started: list[DemoApp] = []

    def start(mode: str, shell: tuple[str, ...] = ("/bin/sh",), boot: str | None = None) -> tuple[DemoApp, app.AppJob]:
        started.append(DemoApp(tmp_path, mode, os.getpid()))
        (tmp_path / "model").write_bytes(b"artifact")
        (tmp_path / "runs").mkdir(exist_ok=True)
        there = link(shell)
        find_app(there)
        files = {"model.onnx": tmp_path / "model"}
        return started[-1], app_job(there, f"{tmp_path}/runs", files, "ab" * 32, boot, lambda *a: None)

    yield start
    for each in started:
        each.close()


ENDS = [
    ("refuses", SetupError, ["ssh://test: no such engine in this app", "expected: executorch, onnx"]),
    ("busy", SetupError, ["another run goes on", "got:      7"]),
    ("dies", SetupError, ["ended before it answered (begin)", "SIGKILL", "out of memory, perhaps"]),
    ("hangs", SetupError, ["its time was over: 3 s", "--limit"]),
    ("never", SetupError, ["was not begun", "nothing came of it in a minute", "unlock the phone"]),
    ("nonsense", SetupError, ["what the device answered is not taken: result has unknown keys"]),
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
@pytest.mark.parametrize(("mode", "kind", "words"), ENDS, ids=[mode for mode, *_ in ENDS])
def test_how_it_ends(
    begin: Begin, tmp_path: Path, mode: str, kind: type[Exception], words: list[str], shell: tuple[str, ...]
) -> None:
    demo, there = begin(mode, shell)
    there = replace(there, limit_s=3 if mode == "hangs" else 400)
    with pytest.raises(kind) as caught:
        there.execute(PLAN, lambda *a: None)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    (asked,) = demo.asked
    assert (
        asked["folder"] == f"bench/device/ready/{'ab' * 16}" and asked["plan"] == f"bench/run-{asked['id']}/plan.json"
    )
    assert (tmp_path / "stopped").exists() == (mode in ("hangs", "never"))
    assert not (tmp_path / "runs/lock").exists() and not list((tmp_path / "sdcard/bench").glob("run-*"))


def test_a_link_that_is_cut_ends_the_app(begin: Begin, tmp_path: Path) -> None:
    """Heartbeats end: the script on the phone sees that nobody waits."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell began this behind itself
    _, there = begin("hangs")
    begun, ended = threading.Event(), threading.Event()

    def press() -> None:  # and again, as one may come where Python cannot raise it
        begun.wait()
        while not ended.wait(1):
            os.kill(os.getpid(), 2)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        try:
            there.execute(PLAN, lambda what, done, total: begun.set() if what == "begin" else None)
        finally:
            ended.set()
            signal.signal(signal.SIGINT, before)
    over = time.monotonic() + 5
    while not (tmp_path / "stopped").exists() and time.monotonic() < over:
        time.sleep(0.05)
    assert (tmp_path / "stopped").read_text() == "dev.smolship.demo\n" and not (tmp_path / "runs/lock").exists()


def test_a_restart_is_noticed(begin: Begin) -> None:
    _, there = begin("nonsense", boot="another")
    with pytest.raises(SetupError, match="has restarted before the run"):
        there.execute(PLAN, lambda *a: None)


def test_an_artifact_is_sent_once_and_moved(link: Callable[..., LocalLink], tmp_path: Path) -> None:
    files = {}
    for name, content in (("a/model", b"1" * 70_000), ("b", b"2"), ("same", b"2")):
        (tmp_path / name.replace("/", "-")).write_bytes(content)
        files[name] = tmp_path / name.replace("/", "-")
    there = link()
    folder = Path(AppStore(there).keep(files, "cd" * 32, lambda *a: None))
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == {
        name: path.read_bytes() for name, path in files.items()
    }
    assert len(there.pushed) == 2 and not list((folder.parents[1] / "files").iterdir())
    assert Path(AppStore(there).keep(files, "cd" * 32, lambda *a: None)) == folder and len(there.pushed) == 2
    (folder / "b").chmod(0o644)
    (folder / "b").write_bytes(b"3")
    AppStore(there).keep(files, "cd" * 32, lambda *a: None)
    assert (folder / "b").read_bytes() == b"2"


def test_an_app_that_is_not_there(link: Callable[..., LocalLink], tmp_path: Path) -> None:
    (tmp_path / "not-installed").touch()
    with pytest.raises(SetupError, match="the demo app is not there") as caught:
        find_app(link())
    assert "adb install" in str(caught.value) and not (tmp_path / "sdcard").exists()
    (tmp_path / "not-installed").unlink()
    (tmp_path / "sdcard").write_text("a file")
    with pytest.raises(SetupError, match="cannot be written by adb"):
        find_app(link())


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"id": "7", "stage": "x", "done": Infinity, "total": 1}',
        b'{"id": "7", "stage": "x"}',
        b'{"id": "7", "what": 3}',
        b'{"id": "8", "what": "of another run", "got": null, "expected": null, "todo": null}',
        b'{"id": "8", "stage": "x", "done": 1, "total": 1}',
        b"\xff\xfe",
        b"7",
        b"{}",
        b"smolship-supervisor ended 0",
    ],
    ids=range(10),
)
def test_what_the_app_tells_is_not_trusted(line: bytes) -> None:
    heard: list[Any] = []
    watch = AppWatch(lambda *said: heard.append(said), id="7")
    watch.line(line)
    assert watch.answer == {} and heard == []


def test_a_lost_link_is_no_result(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    _, there = begin("nonsense")
    monkeypatch.setattr(type(there.link), "pull", lambda self, path, into: (_ for _ in ()).throw(LinkLost("lost")))
    with pytest.raises(LinkLost):
        there.execute(PLAN, lambda *a: None)
