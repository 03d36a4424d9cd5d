"""smolship-run as a process: what it needs, what it says of itself, with whom it ends; and the one for arm64."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from smolship.runtime.execute import in_child
from smolship.runtime.plan import Call, Timing
from smolship.runtime.records import to_json
from smolship.runtime.result import Result
from smolship.tools.devices.build import NEWEST, build, programs
from tests.native.common import plan_of, run

pytestmark = pytest.mark.real
QEMU = "qemu-aarch64-static"
SYSROOT = Path("/usr/aarch64-linux-gnu")


def test_about_itself(program: Path) -> None:
    said = json.loads(subprocess.run([program, "--self"], capture_output=True, check=True).stdout)
    assert said["backends"] == ["XnnpackBackend"] and said["page_size"] == os.sysconf("SC_PAGESIZE")
    wanted = {"llama::custom_sdpa.out", "llama::update_cache.out", "quantized_decomposed::embedding_byte.out"}
    assert wanted <= set(said["operators"])
    assert subprocess.run([program], capture_output=True).returncode == 2


def test_libraries_are_those_beside_it(program: Path, tmp_path: Path) -> None:
    for library in program.parent.glob("*.so"):
        (tmp_path / library.name).write_bytes(b"another one")
    env = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    subprocess.run([program, "--self"], env=env, capture_output=True, check=True)


@pytest.fixture
def supervised(program: Path, artifact: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A shell that runs a plan of a minute, in another session."""
    plan = replace(plan_of(), purpose="bench", timing=Timing((50,), (50,), 60, 1 << 16))
    (tmp_path / "plan.json").write_bytes(to_json(plan))
    script = f'"{program}" plan.json result.json "{artifact}"; true'
    env = os.environ | {"SMOLSHIP_SUPERVISED": "1"}
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, cwd=tmp_path, env=env) as shell:
        yield shell
        shell.kill()


def test_it_ends_with_its_supervisor(supervised: subprocess.Popen[bytes]) -> None:
    assert supervised.stdout and b"progress" in supervised.stdout.readline()
    (child,) = map(int, Path(f"/proc/{supervised.pid}/task/{supervised.pid}/children").read_text().split())
    assert os.getsid(child) == child and child != supervised.pid
    supervised.kill()
    supervised.stdout.read()  # until nobody holds the pipe
    assert not Path(f"/proc/{child}/exe").exists()


def test_what_it_needs_is_old(program: Path) -> None:
    for name, found in programs(program.parent).items():
        for kind, newest in NEWEST.items():
            assert found.newest.get(kind, ()) <= newest, name
    assert programs(program.parent)["smolship-run"].rpath == "$ORIGIN"


def test_for_arm64(runners: Path, artifact: Path, tmp_path: Path) -> None:
    if not shutil.which("aarch64-linux-gnu-g++"):
        pytest.fail("no cross compiler: apt install g++-aarch64-linux-gnu")
    folder = build("aarch64", runners)
    assert {found.machine for found in programs(folder).values()} == {"aarch64"}
    assert {found.align for found in programs(folder).values()} == {65536}
    if not shutil.which(QEMU):
        pytest.fail("no emulator: apt install qemu-user-static")
    plan = plan_of(Call("a", 0, 0, 20, rewind=0), Call("b", 0, 20, 26, "all", exact=True))
    emulated = QEMU, "-cpu", "cortex-a72", "-L", str(SYSROOT)
    code, said = run(folder / "smolship-run", plan, artifact, tmp_path, *emulated)
    assert code == 0, said
    result = Result.load(tmp_path / "result.json")
    result.answers(plan)
    here = in_child(plan, artifact)
    for a, b in zip(result.seen, here.seen, strict=True):
        np.testing.assert_allclose(a.at, b.at, rtol=0, atol=0.1)
        np.testing.assert_allclose(a.lse, b.lse, rtol=0, atol=0.05)
