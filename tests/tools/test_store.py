"""Files on a device by their content, with this machine's /bin/sh as the device."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from smolship.runtime.errors import InputError, SetupError
from smolship.tools.devices import store, sums
from smolship.tools.devices.link import LinkLost
from smolship.tools.devices.mounts import free_bytes, mount_of
from smolship.tools.devices.store import Store
from smolship.tools.devices.stores import Stores
from tests.tools.local_link import LocalLink

PIECE = 1 << 16


class Here(LocalLink):
    """This machine as a device. `pushed`: what was sent; `lost_after`: pushes until the link is lost."""

    uri = "ssh://here"

    def __init__(self, path: str = "/usr/bin:/bin", shell: tuple[str, ...] = ("/bin/sh",)):
        super().__init__(("/usr/bin/env", f"PATH={path}", *shell))
        self.lost_after = 1000
        self.spoil: Callable[[Path], None] = lambda path: None

    def push(self, content: Path, to: str, sent: Callable[[int], None] = lambda count: None) -> None:
        if len(self.pushed) >= self.lost_after:
            raise LinkLost("lost")
        super().push(content, to)
        self.pushed[-1] = Path(to).name
        self.spoil(Path(to))


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "mount_of", lambda path, mounts: None)  # wherever the tests' folder is


pytestmark = pytest.mark.usefixtures("on_disk")


def files(folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    contents = {
        "big": os.urandom(3 * PIECE + 5),
        "small": b"small",
        "empty": b"",
        "even": os.urandom(2 * PIECE),
        "run": b"#!/bin/sh\necho ran $1\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "run").chmod(0o755)
    return {
        "model/big.bin": folder / "big",
        "small": folder / "small",
        "same": folder / "small",
        "empty": folder / "empty",
        "even": folder / "even",
        "bin/run": folder / "run",
    }


def are_there(folder: str, wanted: dict[str, Path]) -> bool:
    found = {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    return found == {name: path.read_bytes() for name, path in wanted.items()}


def test_files_are_sent_once_in_pieces_and_laid_out(tmp_path: Path) -> None:
    link, wanted, seen = Here(), files(tmp_path / "a"), []
    kept = Store(link, f"{tmp_path}/store", PIECE)
    first = kept.put(wanted, lambda what, done, total: seen.append((done, total)))
    assert are_there(first, wanted)
    assert len(link.pushed) == 4 + 1 + 1 + 2 + 1  # big, small, empty, even, run
    total = sum({path: path.stat().st_size for path in wanted.values()}.values())
    assert seen[0] == (0, total) and seen[-1] == (total, total)
    assert [a for a, _ in seen] == sorted(a for a, _ in seen)
    said = subprocess.run([f"{first}/bin/run", "1"], capture_output=True, text=True, check=True).stdout
    assert said == "ran 1\n"
    assert not Path(first, "small").stat().st_mode & 0o222
    assert list((tmp_path / "store" / "parts").iterdir()) == []
    assert kept.fresh
    second = kept.put(wanted)
    assert second != first and are_there(second, wanted) and len(link.pushed) == 9 and not kept.fresh


def test_names_on_the_device_are_hashes_and_the_given_ones(tmp_path: Path) -> None:
    kept = Store(Here(), f"{tmp_path}/store", PIECE)
    (tmp_path / "mein Modell ü'").write_bytes(b"1")
    folder = kept.put({"model": tmp_path / "mein Modell ü'"})
    assert are_there(folder, {"model": tmp_path / "mein Modell ü'"})
    assert [p.name for p in (tmp_path / "store" / "files").iterdir()] == [
        sums.read_local(tmp_path / "mein Modell ü'", PIECE).sha256
    ]


@pytest.mark.parametrize(
    "name", ["", "/a", "a/../b", "../a", "a b", "ü", "a'b", "-a", "a/-b", "a//b", "a/", "$a", "a\n", "."]
)
def test_names_that_need_quoting_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(InputError, match="name"):
        Store(Here(), f"{tmp_path}/store", PIECE).put({name: tmp_path / "a"})
    assert not (tmp_path / "store").exists()


def test_a_name_that_is_a_folder_of_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(InputError, match="name"):
        Store(Here(), f"{tmp_path}/store", PIECE).put({"a": tmp_path / "a", "a/b": tmp_path / "a"})


def test_only_missing_pieces_are_sent_after_the_link_was_lost(tmp_path: Path) -> None:
    link, wanted = Here(), files(tmp_path / "a")
    link.lost_after = 2
    kept = Store(link, f"{tmp_path}/store", PIECE)
    with pytest.raises(LinkLost):
        kept.put(wanted)
    link.lost_after = 1000
    seen: list[int] = []
    assert are_there(kept.put(wanted, lambda what, done, total: seen.append(done)), wanted)
    assert seen[0] == 2 * PIECE
    assert len(link.pushed) == 9 and len(set(link.pushed)) == 9


@pytest.mark.parametrize("where", [5, 2 * PIECE + 7, 3 * PIECE + 4])
def test_a_file_that_was_altered_there_is_mended_by_its_piece(where: int, tmp_path: Path) -> None:
    link, wanted = Here(), {"model/big.bin": files(tmp_path / "a")["model/big.bin"]}
    kept = Store(link, f"{tmp_path}/store", PIECE)
    folder = kept.put(wanted)
    assert kept.changed(folder, wanted) == []
    with (tmp_path / "store" / "files" / sums.read_local(wanted["model/big.bin"], PIECE).sha256).open("r+b") as file:
        info = os.fstat(file.fileno())
        file.seek(where)
        byte = file.read(1)
        file.seek(where)
        file.write(bytes([byte[0] ^ 1]))
        file.flush()
        os.utime(file.fileno(), ns=(info.st_atime_ns, info.st_mtime_ns))  # of the same age and size
    assert kept.changed(folder, wanted) == ["model/big.bin"]
    link.pushed.clear()
    assert are_there(kept.put(wanted), wanted)
    assert [name.rpartition(".")[2] for name in link.pushed] == [str(where // PIECE)]


@pytest.mark.parametrize("change", [-1, 1, PIECE, 5 * PIECE])
def test_files_that_were_cut_or_grew_there_are_mended(change: int, tmp_path: Path) -> None:
    """One of several pieces, one that ends with a piece, a small and an empty one."""
    link, wanted = Here(), files(tmp_path / "a")
    kept = Store(link, f"{tmp_path}/store", PIECE)
    kept.put(wanted)
    for name in ("model/big.bin", "even", "small", "empty"):
        stored = tmp_path / "store" / "files" / sums.read_local(wanted[name], PIECE).sha256
        with stored.open("r+b") as file:
            file.truncate(max(0, wanted[name].stat().st_size + change))
    assert are_there(kept.put(wanted), wanted)


def test_a_piece_that_arrives_wrong_is_sent_again_once(tmp_path: Path) -> None:
    link, wanted, spoilt = Here(), files(tmp_path / "a"), []

    def spoil(path: Path) -> None:
        if not spoilt:
            spoilt.append(path)
            path.write_bytes(b"x" + path.read_bytes()[1:])

    link.spoil = spoil
    assert are_there(Store(link, f"{tmp_path}/store", PIECE).put(wanted), wanted)
    assert len(link.pushed) == 10
    link.spoil = lambda path: path.write_bytes(b"x" + path.read_bytes()[1:])  # type: ignore[assignment,return-value]
    with pytest.raises(SetupError, match="what arrived is not what was sent"):
        Store(link, f"{tmp_path}/other", PIECE).put(wanted)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("how", ["shasum", "openssl", "python3", "cksum", ""])
def test_any_program_that_hashes_is_taken(how: str, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    others = "sh cat mkdir df dd wc chmod ln mv rm touch find date cp id env head perl"
    for name in (*others.split(), *([how] if how else [])):
        for place in ("/usr/bin", "/bin"):
            if Path(place, name).exists() and not (programs / name).exists():
                (programs / name).symlink_to(Path(place, name))
    if how and not (programs / how).exists():
        pytest.fail(f"{how} is not installed")
    (tmp_path / "sbin").mkdir()
    link, wanted = Here(str(programs)), {"even": files(tmp_path / "a")["even"]}
    kept = Store(link, f"{tmp_path}/store", PIECE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "SCRIPT", sums.SCRIPT.replace(":/usr/sbin:/sbin:/system/bin", ""))
        if not how:
            with pytest.raises(SetupError, match="no sha256sum"):
                kept.put(wanted)
            return
        folder = kept.put(wanted)
        assert are_there(folder, wanted)
        stored = tmp_path / "store" / "files" / sums.read_local(wanted["even"], PIECE).sha256
        stored.chmod(0o600)
        stored.write_bytes(os.urandom(2 * PIECE))
        assert kept.changed(folder, wanted) == ["even"]
        assert are_there(kept.put(wanted), wanted)


def test_space_is_asked_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, wanted = Here(), files(tmp_path / "a")
    monkeypatch.setattr(store, "free_bytes", lambda df: 100_000)
    with pytest.raises(SetupError, match="not enough space") as error:
        Store(link, f"{tmp_path}/store", PIECE).put(wanted)
    assert "100,000 bytes free in" in str(error.value) and link.pushed == []
    assert f"{sum({p: p.stat().st_size for p in wanted.values()}.values()) + PIECE + store.SPARE:,} bytes" in str(
        error.value
    )


def test_what_does_not_fit_into_one_folder_goes_into_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"home": 9 << 20, "ssd": 99 << 20}
    monkeypatch.setattr(Store, "_free", lambda self: free[Path(self.folder).name])
    (tmp_path / "big").write_bytes(os.urandom(2 << 20))
    (tmp_path / "small").write_bytes(b"1")
    link, said = Here(), lambda *now: None
    stores = Stores(link, [f"{tmp_path}/home", f"{tmp_path}/ssd"])
    assert stores.home == f"{tmp_path}/home"
    assert stores.put({"small": tmp_path / "small"}, said).startswith(f"{tmp_path}/home/")
    assert stores.put({"big": tmp_path / "big"}, said).startswith(f"{tmp_path}/ssd/") and stores.last.fresh
    assert stores.put({"small": tmp_path / "small"}, said).startswith(f"{tmp_path}/home/") and not stores.last.fresh
    free["home"] = 99 << 20  # too little with what is to lie beside it; there, nothing is missing
    assert stores.put({"big": tmp_path / "big"}, said, beside=91 << 20).startswith(f"{tmp_path}/ssd/")
    free["ssd"] = 0
    (tmp_path / "other").write_bytes(os.urandom(2 << 20))
    with pytest.raises(SetupError) as error:
        stores.put({"other": tmp_path / "other"}, said, beside=91 << 20)
    assert f"{tmp_path}/home; 0 bytes free in {tmp_path}/ssd" in str(error.value)
    assert "ssh://here/FOLDER" in str(error.value) and len(link.pushed) == 2


def test_a_folder_in_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        store, "mount_of", lambda path, mounts: mount_of(path, f"tmpfs {tmp_path} tmpfs rw,size=1g 0 0\n")
    )
    with pytest.raises(SetupError, match="in memory"):
        Store(Here(), f"{tmp_path}/store", PIECE).put(files(tmp_path / "a"))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SetupError, match="cannot be used"):
        Store(Here(), f"{tmp_path}/file/store", PIECE).put(files(tmp_path / "a"))


def test_what_was_not_used_for_long_is_removed(tmp_path: Path) -> None:
    link, wanted = Here(), files(tmp_path / "a")
    wanted = {name: wanted[name] for name in ("small", "even", "bin/run")}
    kept = Store(link, f"{tmp_path}/store", PIECE)
    assert kept.clean(0) == 0
    old, new = kept.put(wanted), kept.put({"small": wanted["small"]})
    assert kept.clean(3600) == 0
    for path in (Path(old), *(tmp_path / "store" / "files").iterdir()):
        os.utime(path, (1e9, 1e9))
    kept.put({"small": wanted["small"]})
    assert kept.clean(3600) == 1 + 2  # the old folder, and all files but the small one
    assert not Path(old).exists() and are_there(new, {"small": wanted["small"]})
    assert are_there(kept.put(wanted), wanted)


def test_cksum_is_that_of_posix(tmp_path: Path) -> None:
    for size in (0, 1, 5, 300, 70_001):
        (tmp_path / "a").write_bytes(content := os.urandom(size))
        said = subprocess.run(["cksum"], input=content, capture_output=True, check=True).stdout.split()
        assert sums.cksum(tmp_path / "a", 0, size) == said[0].decode()


MOUNTS = """/dev/mmcblk0p2 / ext4 rw,noatime 0 0
tmpfs /run tmpfs rw,nosuid 0 0
/dev/sda1 /media/my\\040disk vfat rw,noexec 0 0
tmpfs /var/tmp tmpfs rw 0 0
/dev/sda2 /var/tmp ext4 rw,nosuid 0 0
"""


def test_the_mount_of_a_path() -> None:
    for path, kind in (
        ("/", "ext4"),
        ("/home/pi", "ext4"),
        ("/runner", "ext4"),
        ("/run/user", "tmpfs"),
        ("/var/tmp/a", "ext4"),
    ):
        found = mount_of(path, MOUNTS)
        assert found and found.kind == kind and found.in_memory == (kind == "tmpfs")
    found = mount_of("/media/my disk/a", MOUNTS)
    assert found and str(found) == "vfat on /media/my disk (rw,noexec)"
    assert mount_of("/", "nonsense") is None


OVERLAY = "overlayroot / overlay rw,lowerdir=/media/root-ro,upperdir=/media/root-rw/overlay,workdir=/media/w 0 0\n"


@pytest.mark.parametrize(
    ("mounts", "memory"),
    [
        ("/dev/sda1 / ext4 rw 0 0\n" + OVERLAY + "tmpfs-root /media/root-rw tmpfs rw 0 0\n", True),  # of a Pi's own
        ("/dev/sda1 / ext4 rw 0 0\n" + OVERLAY + "/dev/sda2 /media/root-rw ext4 rw 0 0\n", False),
        (OVERLAY, False),  # of a container: nobody says what it writes to
        ("overlay / overlay rw,lowerdir=/lower 0 0\n", False),
        ("rootfs / rootfs rw 0 0\n", True),
        ("rootfs / rootfs rw 0 0\n/dev/root / ext4 rw 0 0\n", False),
        ("/dev/root / ext4 rw 0 0\n/dev/zram1 /home ext4 rw,discard 0 0\n", True),
    ],
)
def test_what_lies_in_memory(mounts: str, memory: bool) -> None:
    found = mount_of("/home/pi/.cache", mounts)
    assert found and found.in_memory == memory


@pytest.mark.parametrize(
    ("df", "free"),
    [
        ("Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/root 100 10 90 10% /\n", 90 * 1024),
        ("Filesystem     1024-blocks    Used Available Capacity Mounted on\noverlay  100 10 -5 100% /my disk\n", 0),
        ("Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/block/dm-44 1 1 7 - /data\n", 7168),
        ("df: /x: No such file or directory\n", None),
        ("", None),
    ],
)
def test_free_space(df: str, free: int | None) -> None:
    assert free_bytes(df) == free
