"""The single files that commands write: refused before the work, written whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from smolship.runtime.errors import InputError, SetupError
from smolship.tools import outputs
from smolship.tools.cli import run
from smolship.tools.outputs import check_file, write_file


@pytest.mark.parametrize("name", ["", "x" * 256, "y/" + "x" * 4000, "file/below", "a\0b", "loop"])
def test_refused_before_the_work(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError):
        check_file(tmp_path / name, "the page")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop"]


@pytest.mark.parametrize("line", [["parity", "--keep"], ["bench", "--record"]])
def test_a_folder_that_is_a_file(tmp_path, capsys, line):
    (tmp_path / "file").write_text("mine")
    assert run([line[0], str(tmp_path / "nobody"), line[1], str(tmp_path / "file")]) == 2
    assert "cannot lie below a file" in capsys.readouterr().err and (tmp_path / "file").read_text() == "mine"


def test_a_format_of_no_record(tmp_path, capsys):
    assert run(["bench", str(tmp_path), "--record-format", "llama-bench"]) == 2
    assert "--record-format is for --record" in capsys.readouterr().err


def test_a_place_that_cannot_be_written():
    with pytest.raises(SetupError, match="cannot write in /proc"):
        check_file(Path("/proc/self/page.html"), "the page")


def test_an_older_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "page"
    write_file(path, b"old", "the page")
    with monkeypatch.context() as patch:
        patch.setattr(outputs.Path, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(SetupError, match=r"the disk is full: .*/page needs 3 bytes"):
            write_file(path, b"new", "the page")
    assert path.read_bytes() == b"old"
    write_file(path, b"new", "the page")
    assert path.read_bytes() == b"new" and [p.name for p in path.parent.iterdir()] == ["page"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to("page")
    write_file(tmp_path / "link", b"1", "the page")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "page").read_bytes() == b"1"


def test_a_fifo_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "fifo").read_bytes()))
    reader.start()
    write_file(tmp_path / "fifo", b"through", "the page")
    reader.join(10)
    assert got == [b"through"] and (tmp_path / "fifo").is_fifo()
    write_file(Path("/dev/null"), b"gone", "the page")
    assert Path("/dev/null").is_char_device()
