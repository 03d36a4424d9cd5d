"""The script that makes the Swift compiler's root: what it says where it cannot, and that nothing half-made is left."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "ios_demo" / "toolchain"
NEEDED = (
    *("bash", "chmod", "chroot", "cut", "dirname", "env", "find", "grep", "mkdir", "mktemp", "mount", "mv"),
    *("realpath", "rm", "sha256sum", "tail", "uname", "unshare"),
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the script alone, and a folder `bin` of the few programs that it may use."""
    (tmp_path / "ios_demo").mkdir()
    shutil.copy(SCRIPT, tmp_path / "ios_demo" / "toolchain")
    (tmp_path / "bin").mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found, name
        (tmp_path / "bin" / name).symlink_to(found)
    return tmp_path


def toolchain(project: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """Runs it beside further programs, each a line of shell."""
    for name, line in ({"id": "echo 0"} | programs).items():
        (project / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (project / "bin" / name).chmod(0o755)
    environment = {"PATH": str(project / "bin")}
    script = [str(project / "ios_demo" / "toolchain"), "swift", "--version"]
    return subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60)


def test_without_mmdebstrap(project: Path) -> None:
    done = toolchain(project)
    assert done.returncode == 3
    assert "mmdebstrap is not installed" in done.stderr and "tests/device/install" in done.stderr


def test_who_is_not_root(project: Path) -> None:
    done = toolchain(project, id="echo 1000")
    assert done.returncode == 3
    assert "run as root" in done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("echo 'E: Unable to locate package swiftlang' >&2; exit 100", "Unable to locate package swiftlang"),
        ('for last; do :; done; /bin/mkdir -p "$last"', "the Swift compiler does not run in the root that was made"),
    ],
    ids=["no packages", "an empty root"],
)
def test_a_root_that_cannot_be_made(project: Path, line: str, said: str) -> None:
    left = project / ".cache" / "swift-new-of-a-killed-run"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    done = toolchain(project, mmdebstrap=line)
    assert done.returncode == 3
    assert said in done.stderr
    assert list((project / ".cache").iterdir()) == []
