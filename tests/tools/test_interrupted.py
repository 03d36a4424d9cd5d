"""Ctrl-C and a full disk, half-way through an export: the old bundle stays, and nothing else does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.bundles import snapshot

COMMAND = [sys.executable, "-m", "smolship.tools.cli"]


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("llama", "int4"), tmp_path / "bundle")


def listen() -> None:
    """In the child: a shell's background jobs, and so some CI runners, are started deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    "half_made, signum, code",
    [
        (".work/weights.json", signal.SIGINT, 130),
        pytest.param(".work/weights.json", signal.SIGTERM, 143, marks=pytest.mark.real),
        pytest.param("onnx/model.onnx", signal.SIGINT, 130, marks=pytest.mark.real),
    ],
    ids=["lowering", "terminated", "probing"],
)
def test_an_interrupt_leaves_the_old_bundle(tiny, bundle, half_made, signum, code):
    before = snapshot(bundle)
    export = [*COMMAND, "export", str(tiny("smollm3")), "-o", str(bundle), "--context", "64", "--to", "onnx"]
    export += ["--probe-tokens", "4096"]
    with subprocess.Popen(export, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=listen) as child:
        try:
            deadline = time.monotonic() + 120
            while not list(bundle.parent.glob(f".bundle.*/{half_made}")):
                assert time.monotonic() < deadline and child.poll() is None
                time.sleep(0.02)
            os.killpg(child.pid, signum)
            _, errors = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == code
    assert b"Traceback" not in errors and (code != 130 or b"interrupted" in errors)
    assert snapshot(bundle) == before
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.real
def test_a_full_disk_exits_3(tiny, tmp_path):
    """On a file system of 200 kB of its own, in a private mount namespace."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=200k none "$1" && shift && "$@"; code=$?; ls -A "$0"; exit $code'
    export = [*COMMAND, "export", str(tiny("llama")), "-o", str(disk / "out"), "--context", "64", "--to", "onnx"]
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(disk), str(disk)]
    done = subprocess.run([*unshare, *export], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    assert "the disk is full" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "", "something is left on the disk"
