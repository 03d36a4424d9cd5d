"""The emulated board is a board to a client: an arm64 machine behind sshd, on which Python and the engines run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.device.board import Board, board
from tests.device.board_files import MODELS

pytestmark = pytest.mark.real
FACTS = (
    "uname -m; echo $QEMU_CPU; id -un; grep -c ^processor /proc/cpuinfo; grep -m1 'CPU part' /proc/cpuinfo | cut -c12-"
)


def client(board: Board, *words: str, program: str = "ssh", feed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([board.clients / program, *words], input=feed, capture_output=True, timeout=300, check=False)


def python(board: Board, code: str) -> bytes:
    """What Python code prints on the board, with the engines of `engines`."""
    done = client(board, board.alias, "OMP_NUM_THREADS=1 PYTHONPATH=site python3 -", feed=code.encode())
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="session")
def engines(pi5: Board, board_wheels: Path) -> Board:
    """The board with the wheels in ~/site."""
    for wheel in board_wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(pi5.home / "site")
    return pi5


@pytest.mark.parametrize("cpu", sorted(MODELS))
def test_machine_and_processor(boards: Callable[[str], Board], cpu: str) -> None:
    done = client(boards(cpu), "board", FACTS)
    assert done.stdout.decode().split() == ["aarch64", cpu, "pi", "4", f"{MODELS[cpu].part:#x}"]
    model = client(boards(cpu), "board", "tr -d '\\0' </sys/firmware/devicetree/base/model; vcgencmd get_throttled")
    assert model.stdout.decode() == f"{MODELS[cpu].name}throttled=0x0\n"


def test_statuses_streams_and_files(pi5: Board, tmp_path: Path) -> None:
    done = client(pi5, "board", "cat; echo wrong >&2; exit 7", feed=b"\0sent\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"\0sent\n", b"wrong\n")
    assert client(pi5, "board", "kill -9 $$").returncode == 255  # a signal's name is not in ssh's status
    (tmp_path / "content").write_bytes(os.urandom(20_000_000))
    assert client(pi5, "-q", str(tmp_path / "content"), "board:content", program="scp").returncode == 0
    assert (pi5.home / "content").read_bytes() == (tmp_path / "content").read_bytes()
    got = client(pi5, "-b", "-", "board", program="sftp", feed=f"get content {tmp_path}/back\n".encode())
    assert got.returncode == 0 and (tmp_path / "back").read_bytes() == (tmp_path / "content").read_bytes()


def test_the_root_is_not_written(pi5: Board) -> None:
    options = client(pi5, "board", "awk '$2 == \"/\" { print $4 }' /proc/mounts").stdout.decode()
    assert "ro" in options.strip().split(",")
    assert client(pi5, "board", "touch /tmp/x /var/tmp/x /dev/shm/x ~/x").returncode == 0


def test_sensors_change_while_it_runs(pi5: Board) -> None:
    (pi5.sys / "class/thermal/thermal_zone0/temp").write_text("81234\n")
    (pi5.vcgencmd / "get_throttled").write_text("throttled=0x50005\n")
    done = client(pi5, "board", "cat /sys/class/thermal/thermal_zone0/temp; vcgencmd get_throttled; vcgencmd nothing")
    assert done.stdout.split(b"\n")[:2] == [b"81234", b"throttled=0x50005"] and done.returncode == 255


def test_a_restart_keeps_the_home_and_changes_the_boot(tmp_path: Path) -> None:
    seen = []
    meminfo = "MemTotal: 2000000 kB\nMemAvailable: 1500000 kB\n"
    (tmp_path / "pi").mkdir()
    for _ in range(2):
        with board(home=tmp_path, files={"/proc/meminfo": meminfo}) as here:
            read = client(here, "board", "cat /proc/sys/kernel/random/boot_id /proc/meminfo").stdout.decode()
            assert read.partition("\n")[2] == meminfo
            seen.append(read.partition("\n")[0])
            (here.home / "kept").touch()
    assert len(set(seen)) == 2 and (tmp_path / "pi" / "kept").exists()


def test_nothing_is_left_when_its_owner_is_killed(tmp_path: Path) -> None:
    command, where = [sys.executable, "-m", "tests.device.board"], os.environ | {"TMPDIR": str(tmp_path)}
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], env=where)
    assert owner.stdout
    config = [owner.stdout.readline() for _ in range(2)][1].split()[2]
    with subprocess.Popen(["ssh", "-F", config, "board", "echo on; exec sleep 5432"], stdout=subprocess.PIPE) as asked:
        assert asked.stdout and asked.stdout.readline() == b"on\n"
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert asked.wait(10) == 255
    owner.stdout.close()
    deadline = time.monotonic() + 5
    while [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"sleep\x005432\0" in p.read_bytes()]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("level", [0, 4])
def test_int4_by_onnxruntime(engines: Board, level: int) -> None:
    """One MatMulNBits of four bits says on the board what it says here: in float32, and with activations of eight bits
    in blocks, which KleidiAI has not."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    depth, width, block = 256, 96, 32
    random = np.random.default_rng(3)
    codes = random.integers(0, 16, (width, depth), dtype=np.uint8)
    scales = random.uniform(0.01, 0.1, (width, depth // block)).astype(np.float32)
    x = random.standard_normal((5, depth), dtype=np.float32)
    packed = (codes[:, ::2] | codes[:, 1::2] << 4).reshape(width, depth // block, block // 2)
    sizes = {"K": depth, "N": width, "bits": 4, "block_size": block, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **sizes)
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [5, size]) for name, size in (("x", depth), ("y", width))
    ]
    weights = [numpy_helper.from_array(packed, "w"), numpy_helper.from_array(scales.reshape(-1), "s")]
    graph = helper.make_graph([node], "g", shapes[:1], shapes[1:], weights)
    versions = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=10).SerializeToString()
    (engines.home / "model.onnx").write_bytes(model)
    (engines.home / "x").write_bytes(x.tobytes())
    python(
        engines,
        "import numpy, onnxruntime\n"
        f"x = numpy.fromfile('x', numpy.float32).reshape(5, {depth})\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.intra_op_num_threads = 1\n"
        "options.add_session_config_entry('mlas.disable_kleidiai', '1')\n"
        "session = onnxruntime.InferenceSession('model.onnx', options, providers=['CPUExecutionProvider'])\n"
        "session.run(None, {'x': x})[0].tofile('y')\n",
    )
    there = np.fromfile(engines.home / "y", np.float32).reshape(5, width)
    here = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    exact = x @ ((codes - 8.0) * np.repeat(scales, block, axis=1)).T.astype(np.float32)
    scale = np.abs(exact).max()
    assert np.abs(there - here).max() < 1e-5 * scale
    assert (np.abs(there - exact).max() < 1e-5 * scale) == (level == 0)
