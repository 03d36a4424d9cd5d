"""A folder takes its place all at once or not at all, whatever happens while it is made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smolship.runtime import filesystem, folders
from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.filesystem import exchange
from smolship.runtime.folders import destination, new_folder
from tests.bundles import snapshot

OURS = ("manifest.json", "onnx")
OLD, NEW = {"manifest.json": b"old", "onnx/m": b"1"}, {"manifest.json": b"new", "onnx/m": b"2"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def anything(folder: Path) -> None:
    """Whatever lies there may be replaced."""


def make(target: Path) -> None:
    with new_folder(target, anything, OURS) as work:
        write(work, NEW)


@pytest.fixture(params=["at once", "by turns"])
def way(request, monkeypatch):
    """Both ways of taking the place of an older folder."""
    if request.param == "by turns":
        monkeypatch.setattr(folders, "exchange", lambda one, other: False)


@pytest.fixture
def unsynced(monkeypatch):
    """Without waiting for the disk some hundred times."""
    monkeypatch.setattr(folders.os, "fsync", lambda descriptor: None)


class Injected(BaseException):
    """An interrupt, as Ctrl-C is."""


def interrupted_at(step: int, target: Path) -> bool:
    """Make the folder, interrupted at line number `step` of all that are executed; False where there are fewer."""
    files = {folders.__file__, filesystem.__file__}
    seen = 0

    def trace(frame, event, arg):
        nonlocal seen
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            seen += 1
            if seen == step:
                raise Injected
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        make(target)
    except Injected:
        sys.settrace(before)
        _close_locks()
        return True
    finally:
        sys.settrace(before)
    return False


def _close_locks() -> None:
    """The locks that an interrupt left open: it would have ended the process."""
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if entry.readlink().suffix == ".partial":
                os.close(int(entry.name))


def test_an_interrupt_at_any_line_leaves_the_old_or_the_new(tmp_path, way, unsynced):
    target, step, left = tmp_path / "b", 0, 0
    while True:
        step += 1
        write(target, OLD)
        if not interrupted_at(step, target):
            break
        beside = [path for path in tmp_path.iterdir() if path != target]
        left += len(beside)
        assert not target.exists() or snapshot(target) in (OLD, NEW), step
        assert target.exists() or any(snapshot(path) == OLD for path in beside), step
        make(target)  # the next one sweeps what an interrupt within the cleaning left
        assert snapshot(target) == NEW and names(tmp_path) == ["b"], step
    assert step > 80, "the tracing saw nothing"
    assert left, "no interrupt came so late that something was left: is the sweep tested?"


def test_an_interrupt_at_any_line_of_a_filling_leaves_nothing_or_all(tmp_path, monkeypatch, unsynced):
    target, step = tmp_path / "b", 0
    target.mkdir()
    monkeypatch.chdir(target)

    def empty(folder: Path) -> None:
        for path in folder.iterdir():
            if path.suffix != ".partial":
                path.unlink() if path.is_file() else shutil.rmtree(path)

    while interrupted_at(step := step + 1, target):
        found = snapshot(target)
        assert found == NEW or not any(name.startswith("manifest") for name in found), step
        if any((target / name).exists() for name in OURS):
            assert found == NEW, step
            empty(target)
        make(target)
        assert snapshot(target) == NEW
        empty(target)
    assert step > 80 and snapshot(target) == NEW


def test_exchange_is_one_step(tmp_path):
    one, other = write(tmp_path / "a", OLD), write(tmp_path / "b", NEW)
    inodes = one.stat().st_ino, other.stat().st_ino
    assert exchange(one, other), "this file system cannot exchange; nothing is tested"
    assert (snapshot(one), snapshot(other)) == (NEW, OLD)
    assert (other.stat().st_ino, one.stat().st_ino) == inodes
    with pytest.raises(FileNotFoundError):
        exchange(one, tmp_path / "nothing")


def test_a_second_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    target = write(tmp_path / "b", OLD)
    monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    rename = Path.rename

    def failing(self, other):
        if self.suffix == ".partial":
            raise OSError(5, "Input/output error")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(SetupError, match="cannot take the place"):
        make(target)
    assert snapshot(target) == OLD and names(tmp_path) == ["b"]


def test_a_folder_moved_aside_by_a_killed_process_comes_back(tmp_path):
    write(tmp_path / ".b.a1b2c3_4.old", OLD)
    assert destination(tmp_path / "b", anything, OURS) == tmp_path / "b"
    assert snapshot(tmp_path / "b") == OLD and names(tmp_path) == ["b"]


def test_everything_is_written_through_before_the_exchange(tmp_path, monkeypatch):
    target, done = write(tmp_path / "b", OLD), []
    sync, swap = folders.sync, folders.exchange
    monkeypatch.setattr(folders, "sync", lambda path: (done.append(path.name), sync(path)))
    monkeypatch.setattr(folders, "exchange", lambda one, other: (done.append("exchange"), swap(one, other))[1])
    make(target)
    at = done.index("exchange")
    assert {"m", "onnx", "manifest.json"} < set(done[:at]) and done[at - 1].endswith(".partial")
    assert done[at + 1 :] == [tmp_path.name]


def test_made_parents_go_again_where_nothing_comes_to_lie_in_them(tmp_path):
    (tmp_path / "kept").mkdir()
    target = tmp_path / "kept" / "x" / "y" / "b"
    with pytest.raises(ZeroDivisionError), new_folder(target) as work:
        assert work.parent == target.parent
        raise ZeroDivisionError
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]
    make(target)
    assert snapshot(target) == NEW


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "n" * 238, "a.b.partial", "-", "b\nc", "$(x)", "\udcff"])
def test_any_name_that_the_file_system_takes_is_taken(tmp_path, name):
    for _ in range(2):
        make(tmp_path / name)
        assert snapshot(tmp_path / name) == NEW and names(tmp_path) == [name]


def test_an_unwritable_old_folder_is_replaced_whole(tmp_path):
    target = write(tmp_path / "b", OLD)
    (target / "onnx").chmod(0o500)
    target.chmod(0o500)
    make(target)
    assert snapshot(target) == NEW and names(tmp_path) == ["b"]


class TestRefusedBeforeTheWork:
    @pytest.mark.parametrize(
        "name", ["n" * 256, "é" * 128, "x" * 5000, "a/" * 2000 + "b", f"new/{'z' * 300}/b", "a\0b", "\ud812"]
    )
    def test_names_that_no_file_can_have(self, tmp_path, name):
        with pytest.raises(InputError):
            destination(tmp_path / name)
        assert not list(tmp_path.iterdir())

    def test_what_is_no_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "link").symlink_to(tmp_path)
        (tmp_path / "broken").symlink_to("nowhere")
        (tmp_path / "loop").symlink_to("loop")
        os.mkfifo(tmp_path / "fifo")
        for name, why in {
            "file": "not a folder",
            "file/b": "below a file",
            "link": "a link",
            "broken": "a link",
            "loop": "back to itself",
            "fifo": "not a folder",
            "fifo/b": "below a file",
        }.items():
            with pytest.raises(InputError, match=why):
                destination(tmp_path / name)

    def test_what_holds_files(self, tmp_path):
        write(tmp_path, {"b/notes.txt": b"mine"})
        with pytest.raises(InputError, match=r"notes\.txt"):
            destination(tmp_path / "b")

    def test_what_cannot_be_written(self):
        with pytest.raises(SetupError, match="cannot write in /proc"):
            destination(Path("/proc/new/b"))

    def test_a_mount_point_that_holds_something(self, tmp_path, monkeypatch):
        target = write(tmp_path / "b", OLD)
        monkeypatch.setattr(folders, "is_mount", lambda folder: folder == target)
        with pytest.raises(InputError, match="mount point"):
            destination(target, anything)

    def test_a_full_disk(self, tmp_path, monkeypatch):
        def full(**where):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(folders.tempfile, "mkdtemp", full)
        with pytest.raises(SetupError, match="the disk is full"):
            destination(tmp_path / "b")


class TestFilled:
    """An empty folder that cannot, or should not, be replaced stays, and is filled."""

    @pytest.fixture(params=["stands in it", "mount point", "parent that cannot be written"])
    def empty(self, request, tmp_path, monkeypatch):
        target = tmp_path / "b"
        target.mkdir()
        if request.param == "stands in it":
            monkeypatch.chdir(target)
        elif request.param == "mount point":
            monkeypatch.setattr(folders, "is_mount", lambda folder: folder == target)
        else:
            access = os.access
            monkeypatch.setattr(folders.os, "access", lambda path, mode: path != tmp_path and access(path, mode))
        return target

    def test_it_stays_the_same_folder(self, empty):
        inode = empty.stat().st_ino
        make(empty)
        assert snapshot(empty) == NEW and empty.stat().st_ino == inode and names(empty.parent) == ["b"]

    def test_the_manifest_comes_last(self, empty, monkeypatch):
        """Who looks meanwhile sees no bundle, and not half of one."""
        rename, moved = Path.rename, []
        monkeypatch.setattr(Path, "rename", lambda self, other: (moved.append(self.name), rename(self, other)))
        with new_folder(empty) as work:
            write(work, dict.fromkeys(("z", "manifest.json", "a/b"), b""))
        assert moved == ["a", "z", "manifest.json"] or moved == ["z", "a", "manifest.json"]

    def test_a_failure_leaves_it_empty(self, empty):
        with pytest.raises(ZeroDivisionError), new_folder(empty) as work:
            write(work, NEW)
            raise ZeroDivisionError
        assert not names(empty)

    def test_what_somebody_put_there_meanwhile_is_kept(self, empty):
        with pytest.raises(InputError, match="meanwhile"), new_folder(empty) as work:
            write(work, NEW)
            (empty / "manifest.json").write_text("theirs")
        assert snapshot(empty) == {"manifest.json": b"theirs"}

    def test_a_move_that_fails_takes_the_others_back(self, empty, monkeypatch):
        rename = Path.rename

        def failing(self, other):
            if self.name == "manifest.json":
                raise OSError(5, "Input/output error")
            return rename(self, other)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(OSError, match="Input/output"):
            make(empty)
        assert not names(empty)


def test_dot_is_the_folder_one_stands_in(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path / "b", OLD))
    make(Path())
    assert snapshot(tmp_path / "b") == NEW
    (tmp_path / "b" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "b" / "sub")
    make(Path(".."))
    assert snapshot(tmp_path / "b") == NEW and names(tmp_path) == ["b"]


def test_bound_folders_are_mount_points(tmp_path):
    """In a mount namespace of its own; `os.path.ismount` sees no difference."""
    inner = tmp_path / "a b\\"  # the system writes such characters in octal
    inner.mkdir()
    code = "import sys; from pathlib import Path; from smolship.runtime.filesystem import is_mount as m; print(m(Path(sys.argv[1])))"  # noqa: E501
    script = 'mount --bind "$1" "$1" && "$2" -c "$3" "$1"; umount "$1"; "$2" -c "$3" "$1"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", inner, sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "False"]


class TestSweep:
    LEFT = ".b.a1b2c3_4.partial"

    def test_what_a_killed_process_left_goes(self, tmp_path):
        write(tmp_path / self.LEFT, NEW)
        (tmp_path / ".b.00000000.partial").mkdir()
        destination(tmp_path / "b", anything, OURS)
        assert not list(tmp_path.iterdir())

    def test_what_a_living_process_holds_stays(self, tmp_path):
        left = write(tmp_path / self.LEFT, NEW)
        descriptor = os.open(left, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        destination(tmp_path / "b", anything, OURS)
        assert snapshot(left) == NEW
        os.close(descriptor)
        destination(tmp_path / "b", anything, OURS)
        assert not left.exists()

    def test_two_at_once_do_not_sweep_each_other(self, tmp_path):
        with new_folder(tmp_path / "b", anything, OURS) as one:
            write(one, OLD)
            make(tmp_path / "b")
            assert snapshot(one) == OLD
        assert snapshot(tmp_path / "b") == OLD

    @pytest.mark.parametrize(
        "name, content",
        [
            (LEFT, {"thesis.tex": b"years"}),
            (LEFT, {"manifest.json": b"", "thesis.tex": b"years"}),
            (".b.a1b2c3_4.partial", {"..hidden": b"1"}),
            (".b.backup.partial", NEW),
            (".b.a1b2c3_45.partial", NEW),
            (".bb.a1b2c3_4.partial", NEW),
            ("b.a1b2c3_4.partial", NEW),
            (".b.A1b2c3_4.partial", NEW),
        ],
    )
    def test_what_only_looks_like_it_stays(self, tmp_path, name, content):
        write(tmp_path / name, content)
        make(tmp_path / "b")
        assert snapshot(tmp_path / name) == content

    def test_links_and_files_stay(self, tmp_path):
        elsewhere = write(tmp_path / "elsewhere", NEW)
        (tmp_path / self.LEFT).symlink_to(elsewhere)
        (tmp_path / ".b.00000000.partial").write_text("mine")
        make(tmp_path / "b")
        assert (tmp_path / self.LEFT).is_symlink() and snapshot(elsewhere) == NEW
        assert (tmp_path / ".b.00000000.partial").read_text() == "mine"

    def test_where_the_file_system_knows_no_locks_nothing_is_swept(self, tmp_path, monkeypatch):
        def unknown(descriptor, how):
            raise OSError(95, "Operation not supported")

        left = write(tmp_path / self.LEFT, NEW)
        monkeypatch.setattr(folders.fcntl, "flock", unknown)
        make(tmp_path / "b")
        assert snapshot(left) == NEW == snapshot(tmp_path / "b")
