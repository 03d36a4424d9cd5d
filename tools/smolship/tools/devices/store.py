"""Files on a device by their content: sent in pieces, resumed, checked there, and laid out in folders.

    files/SHA256     whole files that were checked, not writable
    parts/SHA256     a file of which pieces are still missing, each piece at its place
    ready/…          folders for runs: hard links, symbolic links or copies of files, whatever the file system can

What is there already is not trusted: it is hashed on the device at every `put`, and pieces that differ are sent again.
A device without any program for SHA-256 is asked for POSIX' `cksum` instead (CRC-32 and size): that finds accidents.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path, PurePosixPath

from smolship.runtime.child import Progress
from smolship.runtime.errors import InputError, SetupError, clip, show
from smolship.runtime.files import open_file
from smolship.tools.devices import sums
from smolship.tools.devices.link import LOST_S, SAFE, Link, LinkLost, device_path, quote
from smolship.tools.devices.mounts import free_bytes, mount_of
from smolship.tools.devices.sums import Local, read_local
from smolship.tools.devices.transfer import Transfer

PIECE = 64 << 20  # bytes, at most, of what is sent at once
SPARE = 8 << 20  # bytes, besides the files themselves
HASHED = 5e6  # bytes/s that the slowest device hashes
BLOCK = 1 << 16
SILENT_S = 1.0  # of hashing there, of which nothing is told
SCRIPT = resources.files(__package__).joinpath("store.sh").read_text()
FULL = re.compile(r"no space left|quota exceeded", re.I)


class NoRoom(SetupError):
    """A folder has too little room for what is missing in it. Nothing was sent."""


@dataclass
class There:
    """What the device has of a file: the whole of it, or pieces by number. `spoilt`: a stored file that is not what it
    should be."""

    whole: bool = False
    spoilt: bool = False
    pieces: set[int] = field(default_factory=set)

    def held(self, file: Local) -> int:
        """Bytes."""
        return file.size if self.whole else sum(file.length(number) for number in self.pieces)


class Store:
    """`folder` is a `device_path` of ours; it is made. `fresh`: most bytes of the last `put` came with it."""

    def __init__(self, link: Link, folder: str, piece: int = PIECE):
        """piece  bytes sent at once, a multiple of 65,536"""
        if piece % BLOCK or not 0 < piece <= PIECE:
            raise InputError("not a size of pieces", got=piece, expected=f"a multiple of {BLOCK:,} up to {PIECE:,}")
        self.folder = device_path(folder.rstrip("/"))
        self.fresh = False
        self._link, self._piece, self._blocks = link, piece, piece // BLOCK
        self._cd = f"cd {quote(self.folder)} || exit 8\numask 077\n"

    def put(
        self, files: Mapping[str, Path], progress: Progress = lambda what, done, total: None, beside: int = 0
    ) -> str:
        """Send what is missing, and lay out a new folder with the files by their names, which are paths of plain
        characters; names that are not are refused. Files that may be executed here may be so there.

        progress  is told in words, and in bytes that are there of those that are needed
        beside    bytes of room that something else will need there

        Returns the folder's path on the device. Raises InputError for names, NoRoom, and SetupError for devices.
        """
        check_names(files)
        local = {name: read_local(path, self._piece) for name, path in files.items()}
        wanted = {file.sha256: file for file in local.values()}
        programs = {local[name].sha256 for name, path in files.items() if os.access(path, os.X_OK)}
        missing: list[tuple[Local, There]] = []
        self.fresh = False
        try:
            self._make()
            there = self._look(list(wanted.values()), progress)
            missing = [(file, there[key]) for key, file in wanted.items() if not there[key].whole]
            self._make_room(missing, beside)
            held = sum(there[key].held(file) for key, file in wanted.items())
            transfer = Transfer(progress, sum(file.size for file in wanted.values()), held)
            transfer.moved(0)
            for file, pieces in missing:
                self._send(file, pieces, transfer, progress)
            came = sum(file.size for file, pieces in missing if not pieces.spoilt)
            self.fresh = 2 * came > transfer.total
            return self._lay_out({name: file.sha256 for name, file in local.items()}, programs)
        except LinkLost:
            raise
        except SetupError as error:
            if FULL.search(str(error)):
                raise self._full(error.parts()["got"] or str(error), [file for file, _ in missing]) from None
            raise

    def changed(
        self, folder: str, files: Mapping[str, Path], progress: Progress = lambda what, done, total: None
    ) -> list[str]:
        """The names whose content in a folder of `put` is not that of the files here, hashed on the device."""
        check_names(files)
        local = {name: read_local(path, self._piece) for name, path in files.items()}
        hashing = Transfer(progress, sum(file.size for file in local.values()), what="hashing there", silent_s=SILENT_S)
        calls = [f"whole {quote(f'{device_path(folder)}/{name}')}" for name in local]
        sizes = iter([file.size for file in local.values()])
        how, rows = self._sums(calls, hashing.total, len(calls), lambda row: hashing.arrived(next(sizes, 0)))
        return [name for (name, file), row in zip(local.items(), rows, strict=True) if not file.matches(how, row)]

    def clean(self, older_than: float) -> int:
        """Remove what was not used for so many seconds: folders of runs, unfinished files, files. Their number."""
        date = self._run(f"[ -d {quote(self.folder)} ] || exit 0\ndate +%s").strip()
        if not re.fullmatch(r"[0-9]{1,12}", date):
            return 0
        moment = datetime.fromtimestamp(max(0.0, int(date) - older_than), UTC).strftime("%Y%m%d%H%M.%S")
        script = f"""{self._cd}TZ=UTC0 touch -t {moment} limit || exit 1
        for name in ready/* parts/* files/*; do
          [ -e "$name" ] || [ -L "$name" ] || continue
          [ -z "$(find "$name" -prune -newer limit)" ] || continue
          rm -rf "$name" && echo "$name"
        done
        rm -f limit"""
        return len(self._run(script).split())

    def _make(self) -> None:
        script = f"umask 077; mkdir -p {quote(self.folder)}/files {quote(self.folder)}/parts {quote(self.folder)}/ready"
        said = self._run(f"{script} || exit 1\n{self._cd}pwd -P; cat /proc/mounts 2>/dev/null || :")
        real, _, mounts = said.partition("\n")
        mount = mount_of(real, mounts)
        if mount and mount.in_memory:
            raise SetupError(
                f"{self._link.uri}: push: the folder lies in memory",
                got=f"{self.folder}: {mount}",
                expected="a folder on a disk or card",
                todo="choose another folder on the device",
            )

    def _look(self, files: Sequence[Local], progress: Progress) -> dict[str, There]:
        """What the device has, hashed there by pieces."""
        calls = [f"stored {file.sha256}" for file in files]
        calls += [f"pieces $(where {file.sha256}) {self._blocks} {len(file.pieces)}" for file in files]
        numbered = [(file, number) for file in files for number in range(len(file.pieces))]
        hashing, said = Transfer(progress, 0, what="hashing there", silent_s=SILENT_S), list[str]()

        def hear(row: str) -> None:
            at = len(said) - len(files)
            said.append(row)
            if at < 0:
                hashing.total += files[at].size if row != "-" else 0
            elif row != "-" and at < len(numbered):
                file, number = numbered[at]
                hashing.arrived(file.length(number))

        how, rows = self._sums(calls, sum(f.size for f in files), len(files) + len(numbered), hear)
        found = {file.sha256: There() for file in files}
        for (file, number), row in zip(numbered, rows[len(files) :], strict=True):
            if file.matches_piece(how, row, number):
                found[file.sha256].pieces.add(number)
        for file, row in zip(files, rows, strict=False):
            there = found[file.sha256]
            there.whole = row == f"files {file.size}" and len(there.pieces) == len(file.pieces)
            there.spoilt = row.startswith("files ") and not there.whole
        return found

    def _make_room(self, missing: Sequence[tuple[Local, There]], beside: int) -> None:
        if not missing:
            return
        # A part may have holes, so only pieces that are right count; a piece lies beside its part for a moment.
        needed = sum(file.size - there.held(file) for file, there in missing)
        needed += max(min(file.size, self._piece) for file, _ in missing) + SPARE + beside
        free = self._free()
        if free is not None and free < needed:
            raise NoRoom(
                f"{self._link.uri}: push: not enough space on the device",
                got=f"{free:,} bytes free in {self.folder}",
                expected=f"{needed:,} bytes",
                todo="free some space there, or choose another folder on the device; nothing was sent",
            )

    def _free(self) -> int | None:
        df = self._link.run(f"df -kP {quote(self.folder)}", limit_s=LOST_S).out.decode("utf-8", "replace")
        return free_bytes(df)

    def _full(self, said: str, missing: Sequence[Local]) -> SetupError:
        """The error for a disk that became full. A piece that was on its way takes no room any more; what has arrived
        before stays for the next run."""
        pieces = " ".join(f"parts/{file.sha256}.*" for file in missing)
        self._link.run(f"{self._cd}rm -f {pieces}", limit_s=2 * LOST_S)
        free = self._free()
        return SetupError(
            f"{self._link.uri}: push: the device's disk is full",
            got=f"{'unknown' if free is None else f'{free:,}'} bytes free in {self.folder}; {' '.join(said.split())}",
            expected=f"room for what is missing of {sum(file.size for file in missing):,} bytes",
            todo="free some space there, then run it again: it goes on with what has arrived",
        )

    def _send(self, file: Local, there: There, transfer: Transfer, progress: Progress) -> None:
        """Sends the missing pieces. All are hashed at the end."""
        part = f"parts/{file.sha256}"
        if there.spoilt:
            self._run(f"{self._cd}mv -f files/{file.sha256} {part}")
        with tempfile.TemporaryDirectory(prefix="smolship-piece-") as folder:
            for number in range(len(file.pieces)):
                if number not in there.pieces:
                    self._send_piece(file, number, Path(folder) / "piece", transfer)
        cut = f"""[ "$(size {part})" = {file.size} ] || dd if=/dev/null of={part} bs=1 seek={file.size} 2>/dev/null"""
        calls = [cut, f"pieces {part} {self._blocks} {len(file.pieces)}", f"size {part}"]
        hashing = Transfer(progress, file.size, what="hashing there", silent_s=SILENT_S)
        numbers = iter(range(len(file.pieces)))

        def hear(row: str) -> None:
            if (number := next(numbers, None)) is not None:
                hashing.arrived(file.length(number))

        how, rows = self._sums(calls, file.size, len(file.pieces) + 1, hear)
        wrong = [row for number, row in enumerate(rows[:-1]) if not file.matches_piece(how, row, number)]
        if wrong or rows[-1] != str(file.size):
            raise self._arrived_wrong(file, how, f"{rows[-1]} {' '.join(wrong)}")
        self._run(f"{self._cd}chmod 444 {part} 2>/dev/null\n[ -r {part} ] && mv -f {part} files/{file.sha256}")

    def _send_piece(self, file: Local, number: int, copy: Path, transfer: Transfer) -> None:
        source = file.path
        if len(file.pieces) > 1:
            with open_file(file.path, file.path.name) as read:
                read.seek(number * self._piece)
                copy.write_bytes(read.read(self._piece))
            source = copy
        part, piece = f"parts/{file.sha256}", f"parts/{file.sha256}.{number}"
        place = f"bs={BLOCK} seek={number * self._piece // BLOCK} conv=notrunc"
        calls = [
            f"whole {piece}",
            f"chmod u+w {part} 2>/dev/null",
            f"said=$(dd if={piece} of={part} {place} 2>&1) || {{ rm -f {piece}; echo $said >&2; exit 1; }}",
            f"rm -f {piece}",
        ]
        how = row = ""
        for _ in range(2):
            self._link.push(source, f"{self.folder}/{piece}", transfer.moved)
            how, (row,) = self._sums(calls, self._piece, 1)
            if file.matches(how, row, number):
                transfer.arrived(file.length(number))
                return
        raise self._arrived_wrong(file, how, row)

    def _lay_out(self, names: Mapping[str, str], programs: Iterable[str]) -> str:
        """A new folder with these names of stored files, those in `programs` executable."""
        name = f"ready/{secrets.token_hex(8)}"
        folders = sorted({str(PurePosixPath(name, path).parent) for path in names} | {name})
        lines = [f"mkdir -p {folder} || exit 1" for folder in folders]
        lines += [f"program {key}" for key in sorted(programs)]
        lines += [f"place {key} {name}/{path} || {{ rm -rf {name}; exit 1; }}" for path, key in names.items()]
        self._run("\n".join([self._cd, SCRIPT, *lines]))
        return f"{self.folder}/{name}"

    def _sums(
        self, calls: Sequence[str], hashed: int, count: int, hear: Callable[[str], None] = lambda row: None
    ) -> tuple[str, list[str]]:
        """The program that hashes there, and `count` rows, of calls that hash so many bytes; `hear` gets each row as it
        comes."""
        how, rows = "", list[str]()

        def line(raw: bytes) -> None:
            nonlocal how
            row = clip(raw.decode("utf-8", "replace").strip(), 200)
            if row and not how:
                how = row
            elif row and len(rows) <= count:
                rows.append(row)
                hear(row)

        self._run("\n".join([self._cd, sums.SCRIPT, SCRIPT, *calls]), hashed, line)
        if len(rows) != count:
            got = " | ".join([how, *rows])
            raise SetupError(f"{self._link.uri}: push: the device's answer cannot be read", got=got, expected="sums")
        return how, rows

    def _run(self, script: str, hashed: int = 0, lines: Callable[[bytes], None] | None = None) -> str:
        """What a script prints that reads so many bytes. Raises SetupError where it failed."""
        done = self._link.run(script, lines=lines, limit_s=2 * LOST_S + hashed / HASHED)
        if done.status:
            raise SetupError(
                f"{self._link.uri}: push: a folder on the device cannot be used",
                got=clip(done.err.decode("utf-8", "replace")) or f"status {done.status}",
                expected=f"a folder that can be written, with programs to hash files: {self.folder}",
                todo="free some space there, or choose another folder on the device",
            )
        return done.out.decode("utf-8", "replace")

    def _arrived_wrong(self, file: Local, how: str, row: str) -> SetupError:
        return SetupError(
            f"{self._link.uri}: push: what arrived is not what was sent",
            got=f"{clip(row)} by {how}",
            expected=f"{file.size} bytes, {file.sha256}: {file.path}",
            todo="run it again; if it stays so, check the device's disk or card, and whether the file here changes",
        )


def check_names(names: Iterable[str]) -> None:
    """Names are paths that need no quoting anywhere, and none is a folder of another. Raises InputError."""
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    for name in names:
        if (
            not set(name) <= SAFE
            or any(part in ("", ".", "..") or part.startswith("-") for part in name.split("/"))
            or name in folders
        ):
            raise InputError(
                "a file's name cannot be used on devices",
                got=show(name),
                expected="letters, digits, dots, dashes and slashes, and no folder's name",
            )
