"""The store of kept steps by itself: two exports at once, what a killed one leaves, the limit, the place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smolship.export.kept import place
from smolship.export.kept.entries import Record, entries, now, remove, sweep
from smolship.export.kept.store import Asked, Store, open_store
from smolship.runtime import filesystem, folders
from smolship.runtime.errors import InputError
from smolship.runtime.filesystem import clone

SIZE = 1000  # bytes of a step's file


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SMOLSHIP_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(folders.os, "fsync", lambda descriptor: None)
    return tmp_path / "kept"


@pytest.fixture
def source(tmp_path):
    """A folder in which steps have written."""
    (tmp_path / "source" / "onnx").mkdir(parents=True)
    (tmp_path / "source" / "onnx" / "model").write_bytes(os.urandom(SIZE))
    return tmp_path / "source"


def asked(name, kind="lower"):
    return Asked(kind, {"asked": name}, "a model", name)


def keep(store, name, source):
    said = []
    record = Record({"asked": name}, "a model", name, {"a": 1}, 1.5, None, now(), {})
    store.keep(asked(name), record, ["onnx/model"], source, said.append)
    return said


def take(store, name, into):
    return store.take(asked(name), into, pytest.fail)


def test_two_at_once_that_keep_the_same(root, source, tmp_path):
    with open_store() as one, open_store() as other:
        assert keep(one, "a", source) == keep(other, "a", source) == []
        for store in (one, other):
            into = tmp_path / str(id(store))
            assert take(store, "a", into).result == {"a": 1}
            assert (into / "onnx/model").read_bytes() == (source / "onnx/model").read_bytes()
    assert len(entries(root)) == 1


def test_one_that_is_faster(root, source, monkeypatch):
    """Between the question whether it is there and the end of the work."""
    with open_store() as one, open_store() as other:
        inner = Store.make_room

        def make_room(self, size):
            if self is one:
                assert keep(other, "a", source) == []
            return inner(self, size)

        monkeypatch.setattr(Store, "make_room", make_room)
        assert keep(one, "a", source) == []
    assert len(entries(root)) == 1 and not list(root.glob(".*"))


def test_what_is_in_use_is_not_removed(root, source, tmp_path):
    with open_store() as store:
        keep(store, "a", source)
    (entry,) = entries(root)
    with open_store() as store:
        take(store, "a", tmp_path / "into")
        assert not remove(entry.path) and len(entries(root)) == 1
    assert remove(entry.path) and entries(root) == []


def test_parts_are_for_one_export(root):
    said = []
    with open_store() as one, open_store() as other, one.parts(asked("a", "parts"), said.append) as place:
        assert place.is_dir() and said == []
        with other.parts(asked("a", "parts"), said.append) as none:
            assert none is None and "another export" in said[0]
        (place / "layer7").write_text("half")
        assert not remove(place.parent)
    with open_store() as store, store.parts(asked("a", "parts"), said.append) as again:
        assert (again / "layer7").read_text() == "half"


def test_damaged_parts_begin_anew(root):
    said = []
    for _ in range(2):
        with open_store() as store, store.parts(asked("a", "parts"), said.append) as folder:
            assert list(folder.iterdir()) == []
            (folder / "layer7").write_text("half")
        (folder.parent / "record.json").write_text("{")
    assert said == []


def test_what_killed_processes_left_is_swept(root, source):
    with open_store() as store:
        keep(store, "a", source)
    (entry,) = entries(root)
    name = entry.path.name
    left = [f".{name}.abcdefgh.partial", name.replace("lower", "quantize")]
    others = ["thesis", ".lower-1.abcdefgh.partial", "lower-1", f".{name}.partial"]
    for folder in (*left, *others):
        (root / folder).mkdir()
        (root / folder / "file").write_text("content")
    (root / f"{name}.txt").write_text("")
    held = folders.lock(root / left[0])
    sweep(root)
    assert (root / left[0]).exists(), "somebody is making it"
    os.close(held)
    open_store()
    assert {path.name for path in root.iterdir()} == {name, f"{name}.txt", "CACHEDIR.TAG", *others}


def test_a_process_that_is_killed_holds_nothing(root, source):
    script = (
        "from smolship.export.kept.store import *; import os, sys; s = open_store(); s._hold(sys.argv[1]); os._exit(9)"
    )
    with open_store() as store:
        keep(store, "a", source)
    (entry,) = entries(root)
    subprocess.run([sys.executable, "-c", script, entry.path.name], check=False)
    assert remove(entry.path)


def test_what_was_used_longest_ago_goes_first(root, source, tmp_path, monkeypatch):
    with open_store() as store:
        for name in "abc":
            keep(store, name, source)
        sizes = [entry.size for entry in entries(root)]
    for entry in entries(root):
        age = 1000 * "abc".index(entry.record.words)
        os.utime(entry.path / "record.json", (age, age))
    with open_store() as store:
        take(store, "a", tmp_path / "into")
    monkeypatch.setenv("SMOLSHIP_CACHE_LIMIT", str(sum(sizes) + SIZE // 2))
    with open_store() as store:
        assert keep(store, "d", source) == []
    assert {entry.record.words for entry in entries(root)} == {"a", "c", "d"}


def test_nothing_goes_for_what_finds_no_room(root, source, tmp_path, monkeypatch):
    with open_store() as store:
        keep(store, "a", source)
    (entry,) = entries(root)
    monkeypatch.setenv("SMOLSHIP_CACHE_LIMIT", str(entry.size + SIZE // 2))
    with open_store() as store:
        take(store, "a", tmp_path / "into")
        assert "not kept" in keep(store, "b", source)[0], "what is in use does not go"
    (source / "onnx/model").unlink()  # the kept one is the same file
    (source / "onnx/model").write_bytes(bytes(2 * entry.size))
    with open_store() as store:
        assert "not kept" in keep(store, "b", source)[0]
    assert [entry.record.words for entry in entries(root)] == ["a"]
    monkeypatch.setenv("SMOLSHIP_CACHE_LIMIT", str(SIZE // 2))
    open_store()
    assert entries(root) == []


def test_no_more_than_a_quarter_of_the_free_disk(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    for free, held, wanted in ((8_000, 0, 2_000), (7_000, 1_000, 2_000), (10**12, 0, 20 * 10**9)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        assert place.limit(tmp_path, held) == wanted


@pytest.mark.parametrize("text, wanted", [("0", 0), ("12", 12), ("3 kB", 3000), ("1.5gb", 15 * 10**8), ("7B", 7)])
def test_sizes(text, wanted):
    assert place.parse_size(text, "x") == wanted


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "20 GiB", "٣GB", "1 000", "inf", "5x"])
def test_what_is_no_size(text, monkeypatch):
    with pytest.raises(InputError, match="such as 20GB"):
        place.parse_size(text, "x")
    monkeypatch.setenv("SMOLSHIP_CACHE_LIMIT", text)
    if text:
        with pytest.raises(InputError, match="SMOLSHIP_CACHE_LIMIT"):
            open_store()


def test_where_the_place_is(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    for given, own, wanted in (
        ("/a/b", "/c", "/a/b"),
        ("", "/c", "/c/smolship"),
        ("", "c", tmp_path / ".cache/smolship"),  # relative, which its specification says to ignore
        ("", "", tmp_path / ".cache/smolship"),
    ):
        for name, value in {"SMOLSHIP_CACHE": given, "XDG_CACHE_HOME": own, "HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        assert place.place() == Path(wanted)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert place.place() == tmp_path / "Library/Caches/smolship"
    monkeypatch.setenv("SMOLSHIP_CACHE", "off")
    assert place.place() is None and open_store().root is None


@pytest.mark.parametrize("given", ["kept", "./kept", "~/kept", "off/"])
def test_the_working_folder_is_no_place(given, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMOLSHIP_CACHE", given)
    with pytest.raises(InputError, match="an absolute path"):
        open_store()
    assert list(tmp_path.iterdir()) == []


def test_places_that_are_refused(root, tmp_path, monkeypatch):
    root.write_text("")
    with pytest.raises(InputError, match="not a folder"):
        open_store()
    root.unlink()
    root.symlink_to(tmp_path)
    with pytest.raises(InputError, match="a link"):
        open_store()
    root.unlink()
    root.mkdir()
    root.chmod(0o775)
    with pytest.raises(InputError, match="chmod go-w"):
        open_store()
    root.chmod(0o755)
    open_store()
    monkeypatch.setattr(os, "geteuid", lambda: root.stat().st_uid + 1)
    with pytest.raises(InputError, match="belongs to user"):
        open_store()


def test_a_copy_is_one(tmp_path, monkeypatch):
    """By the kernel, and where that cannot."""
    (tmp_path / "a").write_bytes(os.urandom(3_000_000))
    for way in ("kernel", "by hand"):
        if way == "by hand":
            monkeypatch.setattr(filesystem, "_copy_range", lambda *given: False)
        clone(tmp_path / "a", tmp_path / way)
        assert (tmp_path / way).read_bytes() == (tmp_path / "a").read_bytes()
        assert not (tmp_path / way).samefile(tmp_path / "a")
