"""What memory.py reads from the system, against what this process does."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from smolship.runtime import memory
from smolship.runtime.memory import Memory, copy_bandwidth, cpu_model, drop_pages, last_level_cache, read_memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SIZE = 64 << 20


@linux
def test_anonymous_and_file_backed_are_told_apart(tmp_path: Path) -> None:
    before = read_memory()
    array = np.ones(SIZE // 8)
    middle = read_memory()
    assert before.anonymous_bytes and middle.anonymous_bytes and before.file_backed_bytes and middle.file_backed_bytes
    assert middle.anonymous_bytes - before.anonymous_bytes == pytest.approx(SIZE, rel=0.1)
    assert middle.file_backed_bytes - before.file_backed_bytes < SIZE / 10
    path = tmp_path / "file"
    path.write_bytes(array.tobytes())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[::4096]) >= 0  # touches every page
        after = read_memory()
    assert after.file_backed_bytes and after.anonymous_bytes and after.peak_bytes
    assert after.file_backed_bytes - middle.file_backed_bytes == pytest.approx(SIZE, rel=0.1)
    assert after.peak_bytes >= after.anonymous_bytes


def test_what_the_system_does_not_say_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_darwin_peak", lambda: None)
    assert read_memory(tmp_path) == Memory(None, None, None)
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t      90 kB\nRssAnon:\t      10 kB\nRssFile:\t       5 kB\n")
    assert read_memory(tmp_path) == Memory(10 << 10, 5 << 10, 90 << 10)
    (tmp_path / "status").write_text("RssAnon:\t       0 kB\nRssFile:\t       0 kB\n")  # some sandboxes: not 0, unknown
    assert read_memory(tmp_path) == Memory(None, None, None)
    (tmp_path / "smaps_rollup").write_text("00-ff ---p 0 00:00 0 [rollup]\nRss:    100 kB\nAnonymous:    30 kB\n")
    assert read_memory(tmp_path) == Memory(30 << 10, 70 << 10, None)


def test_copy_bandwidth_counts_reads_and_writes() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.5
        return now[0]

    assert copy_bandwidth(3, repeats=2, size=8_000_000, clock=clock) == [pytest.approx(2 * 0.008 / 0.5)] * 2
    assert 0.1 < copy_bandwidth(1, repeats=3)[0] < 2000


@linux
def test_the_machine_is_named() -> None:
    assert cpu_model()
    cache = last_level_cache()
    assert cache is None or 1 << 15 <= cache <= 1 << 31


@linux
def test_dropped_pages_are_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    if drop_pages(path) is None:
        return  # this file system does not tell
    with path.open("rb") as file:
        file.read()
        assert memory._cached(file.fileno()) is True
        assert drop_pages(path) is True
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert sum(mapped[::4096]) == 0
            assert drop_pages(path) is False  # mapped and in use: the system keeps them
