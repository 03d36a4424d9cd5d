"""What a board is set up by: its Python and the wheels that fit it, its cores, and what tells it from others."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from smolship.runtime.errors import InputError, SetupError
from smolship.tools.devices import wheels
from smolship.tools.devices.cores import Core, processor
from smolship.tools.devices.facts import DeviceFacts
from smolship.tools.devices.opening import check_threads
from smolship.tools.devices.setup import install
from smolship.tools.devices.showing import _python, clock, table
from smolship.tools.devices.stores import Stores
from smolship.tools.devices.wheels import chosen
from tests.tools.local_link import LocalLink
from tests.tools.test_device_facts import CPU, PI4, facts


def board(version: tuple[int, int] = (3, 11), **said: object) -> DeviceFacts:
    """A Pi 4 whose Python is of that version."""
    its = json.loads(PI4["python python3"]) | {"version": [*version, 1]} | said
    return facts(PI4 | {"python python3": json.dumps(its)})


@pytest.mark.parametrize("minor", range(7, 11))
def test_a_python_that_is_too_old_is_said(minor: int) -> None:
    with pytest.raises(SetupError) as error:
        _python("ssh://pi", board((3, minor)))
    assert f"/usr/bin/python3 3.{minor}.1" in str(error.value) and "3.11 or newer" in str(error.value)
    assert "ExecuTorch's artifact, which needs none" in str(error.value) and error.value.exit_code == 3


def test_a_python_of_32_bits_is_said() -> None:
    with pytest.raises(SetupError, match="of 64 bits"):
        _python("ssh://pi", board(bits=32))


@pytest.mark.parametrize("minor", range(11, 15))
@pytest.mark.parametrize("managed", [True, False])
def test_wheels_of_its_own_version_are_chosen(minor: int, managed: bool, tmp_path: Path) -> None:
    """Whoever manages its packages: nothing is installed there."""
    python = _python("ssh://pi", board((3, minor), managed=managed, pip=False, ensurepip=False))
    for other in range(7, 15):
        tag = f"cp3{other}-cp3{other}-manylinux_2_28_aarch64.manylinux_2_27_aarch64"
        (tmp_path / f"numpy-2.1.0-{tag}.whl").touch()
    (tmp_path / f"numpy-2.9.0-cp3{minor}-cp3{minor}-manylinux_2_39_aarch64.whl").touch()  # for a newer glibc
    (tmp_path / f"numpy-2.9.0-cp3{minor}-cp3{minor}-musllinux_1_2_aarch64.whl").touch()
    (path,) = chosen(python, ["numpy"], tmp_path)
    assert path.name.startswith(f"numpy-2.1.0-cp3{minor}-")


def test_where_no_wheel_fits_both_tags_are_said(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime-1.32.0-cp314-cp314-manylinux_2_39_aarch64.whl").touch()
    with pytest.raises(SetupError) as error:
        chosen(board((3, 13)).pythons[0], ["onnxruntime"], tmp_path)
    text = str(error.value)
    assert "cp314-cp314-manylinux_2_39_aarch64" in text and "cp313 or abi3, on manylinux_2_36_aarch64" in text
    assert "--abi=cp313" in text and error.value.exit_code == 3


def test_a_wheel_that_is_cut_short(tmp_path: Path) -> None:
    wheel = tmp_path / "numpy-2.1.0-cp311-cp311-manylinux_2_28_aarch64.whl"
    wheel.write_bytes(b"PK\x03\x04" + bytes(99))
    here = Stores(LocalLink(), [f"{tmp_path}/device"])
    with pytest.raises(InputError, match="a wheel cannot be read"):
        install(LocalLink(), board().pythons[0], here, [wheel], {}, lambda *a: None)


def test_pip_that_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "PIP", [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(wheels, "FETCH_S", 0.2)
    with pytest.raises(SetupError, match="pip did not end within"):
        wheels.fetched(board().pythons[0], ["numpy"], tmp_path)


@pytest.mark.parametrize(("threads", "fits"), [(None, True), (4, True), (5, False)])
def test_more_threads_than_cores_are_refused(threads: int | None, fits: bool) -> None:
    if fits:
        return check_threads("ssh://pi", board(), threads)
    with pytest.raises(InputError, match="at most 4"):
        check_threads("ssh://pi", board(), threads)


def test_a_run_is_not_given_cores_that_it_may_not_use() -> None:
    few = facts(PI4 | {"/proc/self/status": "Cpus_allowed_list:\t1,3", f"{CPU}/online": "0-2"})
    with pytest.raises(InputError, match="at most 1"):
        check_threads("ssh://pi", few, 2)


def test_the_features_that_engines_choose_by() -> None:
    big = Core(0, "Cortex-A76", ("fp", "asimd", "atomics", "asimddp", "crc32"), None, None)
    little = Core(1, "Cortex-A55", ("fp", "asimd"), None, None)
    assert processor([big, big, little]) == (
        "Cortex-A76 (with asimd, asimddp, atomics; without i8mm, sve), "
        "Cortex-A55 (with asimd; without asimddp, i8mm, sve, atomics)"
    )
    assert processor([Core(0, None, (), None, None)]) == "a processor without a name (features unavailable)"


def test_cloned_cards_are_told_apart_by_their_boards() -> None:
    """Machine id, host name and host key are copied with a card."""
    cpuinfo = PI4["/proc/cpuinfo"].replace("10000000abcdef01", "10000000abcdef02")
    other = facts(PI4 | {"/proc/device-tree/serial-number": "10000000abcdef02\0\n", "/proc/cpuinfo": cpuinfo})
    one = board()
    assert (one.label, one.identity) == ("raspberrypi", "10000000abcdef01")
    assert (other.label, other.identity) == ("raspberrypi", "10000000abcdef02")
    nothing = {name: text for name, text in PI4.items() if "serial" not in name and "machine-id" not in name}
    clone = facts(nothing | {"/proc/cpuinfo": PI4["/proc/cpuinfo"].replace("Serial\t\t: 10000000abcdef01\n", "")})
    assert clone.identity is None and "machine-id" in clone.missing["identity"] and clone.label == "raspberrypi"


def test_what_is_shown_of_a_device_is_no_markup() -> None:
    """An address of IPv6, and what a device calls itself."""
    console = Console(file=io.StringIO(), width=200)
    console.print(table([{"uri": "ssh://pi@[fe80::1%25eth0]:22", "model": "[/board] [bold]"}]))
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "ssh://pi@[fe80::1%25eth0]:22" in said and "[/board] [bold]" in said


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (None, None),
        (0.4, "0 s ahead of this machine's"),
        (-61.0, "61 s behind this machine's: results have the time of this machine"),
        (7200.0, "7,200 s ahead of this machine's: results have the time of this machine"),
        (-1.78e9, "1,780,000,000 s behind this machine's: results have the time of this machine"),
    ],
)
def test_a_clock_that_is_wrong_is_said(ahead: float | None, said: str | None) -> None:
    assert clock(ahead) == said
