"""What comes from outside and becomes a path; and what is said where a file cannot be written."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from smolship.runtime import disk
from smolship.runtime.disk import disk_errors, writing
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.files import inside, look, plain_name, regular_file, relative

NO_PATHS = ["x" * 256, "x" * 5000, "d/" * 2500, "a\0b", "\0", "\ud912", "a/\udfff\ud800"]


@pytest.mark.parametrize("name", NO_PATHS)
def test_no_path_is_refused_everywhere(tmp_path, name):
    for ask in (look, regular_file, lambda path, what: inside(path.parent, path.name), inside_of(name)):
        with pytest.raises(InputError):
            ask(tmp_path / name, "the thing")


def inside_of(name):
    return lambda path, what: regular_file(inside(Path("/tmp"), name), what)


def test_what_is_not_there_is_not_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").symlink_to("gone")
    for name in ("nothing", "file/below", "broken", "no/such/folder"):
        assert look(tmp_path / name, "x") is None
        assert inside(tmp_path, name) == tmp_path / name


class TestInside:
    @pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "./..", "/etc/passwd", "//x", "../" * 40])
    def test_the_way_out_by_name(self, tmp_path, name):
        with pytest.raises(InputError, match="leaves its folder") as caught:
            inside(tmp_path, name)
        assert "cp -rL" not in str(caught.value)

    def test_the_way_out_by_a_link(self, tmp_path):
        (tmp_path / "b").mkdir()
        (tmp_path / "blob").write_text("")
        (tmp_path / "b" / "file").symlink_to("../blob")
        (tmp_path / "b" / "folder").symlink_to("..")
        for name in ("file", "folder", "folder/blob", "folder/new"):
            with pytest.raises(InputError, match="leaves its folder through a link") as caught:
                inside(tmp_path / "b", name)
            assert "cp -rL" in str(caught.value) and "--local-dir" in str(caught.value)

    def test_links_that_stay(self, tmp_path, monkeypatch):
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "x").write_text("")
        (tmp_path / "real" / "y").symlink_to("x")
        (tmp_path / "door").symlink_to("real")  # a bundle may itself be reached by a link
        assert regular_file(inside(tmp_path / "door", "y"), "y") == 0
        monkeypatch.chdir(tmp_path / "real")
        assert inside(Path(), "x") == Path("x")

    def test_a_link_that_leads_to_itself(self, tmp_path):
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "one").symlink_to("two")
        (tmp_path / "two").symlink_to("one")
        for name in ("loop", "one", "loop/x"):
            with pytest.raises(InputError, match="back to itself"):
                inside(tmp_path, name)
            with pytest.raises(InputError, match="back to itself"):
                regular_file(tmp_path / name, "x")


@pytest.mark.parametrize("name", ["a", "a/b.c/d", "ü", "a b", "a\\b", "x" * 255, "...", ".hidden", "a/" * 100 + "b"])
def test_relative_names(name):
    assert relative(name, "x") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "/a", "a/", "a//b", "./a", "a/./b", "a/../b", "a\0", "\ud800", "x" * 256, "é" * 128]
)
def test_names_that_are_not_relative(name):
    with pytest.raises(InputError):
        relative(name, "x")


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a\nb", "\x1b[2J", "a\u202eb", "..", "", "a/../b", "\0", "\udc80"])
def test_names_that_are_not_plain(name):
    with pytest.raises(InputError):
        plain_name(name, "x")
    assert plain_name("onnx-cpu.2", "x") == "onnx-cpu.2"


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="not a regular file"):
            regular_file(path, "x")


@pytest.fixture
def limit():
    """limit(bytes): how large a file this process may write, until the test ends."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestDiskErrors:
    def test_a_limit_names_the_file_and_the_need(self, tmp_path, limit):
        limit(70_000)
        with pytest.raises(SetupError) as caught, writing(tmp_path / "w", 98_765):
            (tmp_path / "w").write_bytes(bytes(98_765))
        first = str(caught.value).splitlines()[0]
        assert f"{tmp_path}/w needs 98,765 bytes" in first and "(ulimit -f) is 70,000" in first
        assert caught.value.exit_code == 3

    def test_where_python_does_not_say_which_file_it_was(self, tmp_path, limit):
        (tmp_path / "sub").mkdir()
        (tmp_path / "earlier").write_bytes(b"x")
        os.utime(tmp_path / "earlier", (1, 1))
        limit(70_000)
        with pytest.raises(SetupError, match=r"sub/w needs more than its 70,000 bytes"), disk_errors(tmp_path):
            (tmp_path / "sub" / "w").write_bytes(bytes(80_000))

    @pytest.mark.parametrize(
        "code, words",
        [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EFBIG, "may not grow so large")],
    )
    def test_every_code_behind_whatever_exception(self, tmp_path, code, words):
        def fail():
            try:
                raise OSError(code, os.strerror(code), str(tmp_path / "w.bin"))
            except OSError as error:
                raise RuntimeError("the writer failed") from error

        with pytest.raises(SetupError, match=words) as caught, disk_errors(tmp_path):
            fail()
        assert "the writer failed" in str(caught.value)

    def test_a_real_device_that_is_full(self):
        with pytest.raises(SetupError, match=r"the disk is full: .*needs 5 bytes"), writing(Path("/dev/full"), 5):
            Path("/dev/full").write_bytes(b"12345")

    def test_native_code_that_does_not_say_why(self, tmp_path, limit):
        """The newest file is as large as a file may be."""
        (tmp_path / "w").write_bytes(bytes(300_000))
        for size in (300_000, 310_000):
            limit(size)
            with pytest.raises(SetupError, match="w needs more than its 300,000 bytes"), disk_errors(tmp_path):
                raise RuntimeError("unknown error")
        limit(3_000_000)
        with pytest.raises(RuntimeError, match="unknown"), disk_errors(tmp_path):
            raise RuntimeError("unknown error")

    def test_native_code_on_a_disk_without_room(self, tmp_path, monkeypatch):
        (tmp_path / "w").write_bytes(bytes(10))
        monkeypatch.setattr(disk, "_free", lambda place: 4096)
        with pytest.raises(SetupError, match=r"the disk is full: .*, and 4,096 are free there"), disk_errors(tmp_path):
            raise RuntimeError("unknown error")

    def test_a_helper_that_was_killed_for_it(self, tmp_path):
        killed = subprocess.CalledProcessError(-signal.SIGXFSZ, ["flatc"])
        with pytest.raises(SetupError, match="may not grow"), disk_errors(tmp_path):
            raise killed

    def test_our_own_refusals_and_faults_pass(self, tmp_path, monkeypatch):
        monkeypatch.setattr(disk, "_free", lambda place: 0)
        with pytest.raises(InputError, match="mine"), disk_errors(tmp_path):
            raise InputError("mine")
        monkeypatch.undo()
        with pytest.raises(ZeroDivisionError), disk_errors(tmp_path):
            raise ZeroDivisionError

    def test_no_room_for_temporary_files(self):
        with pytest.raises(SetupError, match="temporary files") as caught, disk_errors():
            raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
        assert "TMPDIR" in str(caught.value)

    def test_a_folder_that_may_not_be_written(self):
        with pytest.raises(SetupError, match="cannot write there"), disk_errors():
            raise PermissionError(errno.EACCES, "Permission denied", "/x")
