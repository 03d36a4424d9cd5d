"""What a program brings to a device without a C library of its kind, and how it is started there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from smolship.runtime.errors import SetupError
from smolship.tools.devices import carried as carrying
from smolship.tools.devices import opening
from smolship.tools.devices.carried import carried, found_by
from smolship.tools.devices.programs import Program
from smolship.tools.devices.runners import Runner, carried_runner

LOADER = "ld-linux-aarch64.so.1"
NEEDED = {
    "smolship-run": ("libengine.so", "libc.so.6"),
    "libengine.so": ("libstdc++.so.6",),
    "libstdc++.so.6": ("libm.so.6", "libc.so.6"),
    "libm.so.6": ("libc.so.6", LOADER),
    "libc.so.6": (LOADER,),
    LOADER: (),
}


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with libraries whose needs are those of NEEDED; `made` beside it has the program and its engine."""

    def read(path: Path) -> Program:
        interpreter = f"/lib/{LOADER}" if path.name == "smolship-run" else None
        return Program(path.read_text().strip(), 64, interpreter, NEEDED[path.name], 1 << 16, ())

    monkeypatch.setattr(carrying, "read_program", read)
    for folder, names in (("system", set(NEEDED) - {"smolship-run", "libengine.so"}), ("made", NEEDED)):
        (tmp_path / folder).mkdir()
        for name in names:
            if folder == "system" or name in ("smolship-run", "libengine.so"):
                (tmp_path / folder / name).write_text("aarch64")
    return tmp_path / "system"


def test_all_that_is_needed_lies_beside_the_program(system: Path) -> None:
    folder = system.with_name("made")
    made = carried(folder, "smolship-run", "", lambda name: system / name)
    assert made.parent == folder.parent and {path.name for path in folder.iterdir()} == {"smolship-run", "libengine.so"}
    assert {path.name for path in made.iterdir()} == set(NEEDED)
    assert all(path.stat().st_mode & 0o111 for path in made.iterdir() if path.name.startswith(("ld-", "libc.")))
    runner = carried_runner(made)
    assert runner.carries and set(runner.files) == set(NEEDED)
    line = runner.line("/d/x", "plan", "result")
    assert line[:2] == [f"/d/x/{LOADER}", "--inhibit-cache"] and line[-3:] == ["/d/x/smolship-run", "plan", "result"]
    assert line[2:4] == ["--library-path", "/d/x"] and runner.environment("/d/x") == {"LD_PRELOAD": ""}


def test_a_library_of_another_machine(system: Path) -> None:
    (system / "libm.so.6").write_text("x86_64")
    with pytest.raises(SetupError, match=r"libm\.so\.6 is for another machine"):
        carried(system.with_name("made"), "smolship-run", "", lambda name: system / name)


def test_another_library_makes_another_folder(system: Path) -> None:
    folder = system.with_name("made")
    first = carried(folder, "smolship-run", "", lambda name: system / name)
    assert carried(folder, "smolship-run", "", lambda name: system / name) == first
    newer = system.with_name("newer")
    newer.mkdir()
    for path in system.iterdir():
        (newer / path.name).symlink_to(path)
    (newer / "libm.so.6").unlink()
    (newer / "libm.so.6").write_text("aarch64")
    assert carried(folder, "smolship-run", "", lambda name: newer / name) == first  # by content
    (newer / "libc.so.6").unlink()
    (newer / "libc.so.6").write_text("aarch64 ")
    second = carried(folder, "smolship-run", "", lambda name: newer / name)
    assert second != first and (second / "libc.so.6").read_text() == "aarch64 "


def test_a_compiler_without_the_library(tmp_path: Path) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text('#!/bin/sh\necho "${1#*=}"\n')  # as GCC does
    compiler.chmod(0o755)
    with pytest.raises(SetupError, match=r"(?s)has no libc\.so\.6.*apt install"):
        found_by(str(compiler), "libc.so.6")


@pytest.mark.parametrize(
    ("libc", "home", "way"),
    [
        (("bionic", None), "", "carried aarch64"),
        (("bionic", None), "/ndk", "android-aarch64"),
        (("musl", "1.2"), "", "carried aarch64"),
        (("glibc", "2.36"), "", "aarch64"),
        (None, "", "carried aarch64"),
    ],
)
def test_which_runner_a_device_gets(monkeypatch: pytest.MonkeyPatch, libc: Any, home: str, way: str) -> None:
    from smolship.tools.devices import build

    asked: list[str] = []
    monkeypatch.setenv(build.ANDROID_HOME, home)
    monkeypatch.setattr(build, "build", lambda machine, into: asked.append(machine))
    monkeypatch.setattr(build, "build_carried", lambda machine, into: asked.append(f"carried {machine}"))
    for name in ("native_runner", "carried_runner"):
        monkeypatch.setattr(opening, name, lambda *given: Runner("none", {}, []))
    fields = {field.name: None for field in dataclasses.fields(opening.DeviceFacts)}
    facts = opening.DeviceFacts(**(fields | {"machine": "aarch64", "libc": libc}))  # type: ignore[arg-type]
    link: Any = SimpleNamespace(uri="adb://x")
    opening._runner(link, facts, "", "executorch", "executorch", Path())
    assert asked == [way]
