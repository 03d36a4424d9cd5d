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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from smolship.runtime.errors import InputError, SetupError, clip, show
from smolship.runtime.files import open_file
from smolship.tools.devices import sums
from smolship.tools.devices.link import LOST_S, SAFE, Link, device_path, quote
from smolship.tools.devices.mounts import free_bytes, mount_of
from smolship.tools.devices.sums import Local, read_local

PIECE = 64 << 20  # bytes, at most, of what is sent at once
SPARE = 8 << 20  # bytes, besides the files themselves
HASHED = 5e6  # bytes/s that the slowest device hashes
BLOCK = 1 << 16
Progress = Callable[[int, int], None]


@dataclass
class There:
    """What the device has of a file: the whole of it, or pieces by number."""

    whole: bool = False
    pieces: set[int] = field(default_factory=set)

    def held(self, file: Local) -> int:
        """Bytes."""
        return file.size if self.whole else sum(file.length(number) for number in self.pieces)


class Store:
    """`folder` is a `device_path` of ours; it is made."""

    def __init__(self, link: Link, folder: str, piece: int = PIECE):
        """piece  bytes sent at once, a multiple of 65,536"""
        if piece % BLOCK or not 0 < piece <= PIECE:
            raise InputError("not a size of pieces", got=piece, expected=f"a multiple of {BLOCK:,} up to {PIECE:,}")
        self.folder = device_path(folder.rstrip("/"))
        self._link, self._piece = link, piece
        self._cd = f"cd {quote(self.folder)} || exit 8\numask 077\n"

    def put(self, files: Mapping[str, Path], progress: Progress = lambda done, total: None) -> str:
        """Send what is missing, and lay out a new folder with the files by their names, which are paths of plain
        characters; names that are not are refused. Files that may be executed here may be so there.

        progress  gets the bytes that are there, of those that are needed

        Returns the folder's path on the device. Raises InputError for names, SetupError for space and devices.
        """
        check_names(files)
        local = {name: read_local(path, self._piece) for name, path in files.items()}
        wanted = {file.sha256: file for file in local.values()}
        programs = {local[name].sha256 for name, path in files.items() if os.access(path, os.X_OK)}
        self._make()
        there = self._look(list(wanted.values()))
        missing = [(file, there[key]) for key, file in wanted.items() if not there[key].whole]
        self._make_room(missing)
        total, done = sum(file.size for file in wanted.values()), sum(there[key].held(wanted[key]) for key in wanted)
        progress(done, total)
        for file, pieces in missing:
            for size in self._send(file, pieces):
                done += size
                progress(done, total)
        return self._lay_out({name: file.sha256 for name, file in local.items()}, programs)

    def changed(self, folder: str, files: Mapping[str, Path]) -> list[str]:
        """The names whose content in a folder of `put` is not that of the files here, hashed on the device."""
        check_names(files)
        local = {name: read_local(path, self._piece) for name, path in files.items()}
        calls = [f"whole {quote(f'{device_path(folder)}/{name}')}" for name in local]
        how, rows = self._sums(_WHOLE, calls, sum(file.size for file in local.values()), len(calls))
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

    def _look(self, files: Sequence[Local]) -> dict[str, There]:
        """What the device has, hashed there. A whole file that is not what it should be becomes a part of itself."""
        calls = [f"stored {file.sha256} {file.size}" for file in files]
        how, rows = self._sums(_STORED, calls, sum(file.size for file in files), len(files))
        found, parts = {file.sha256: There() for file in files}, []
        for file, row in zip(files, rows, strict=True):
            found[file.sha256].whole = file.matches(how, row)
            if row != "-" and not found[file.sha256].whole:
                parts.append(file)
        if parts:
            calls = [f"pieces {file.sha256} {self._piece} {len(file.pieces)}" for file in parts]
            numbered = [(file, number) for file in parts for number in range(len(file.pieces))]
            how, rows = self._sums(_PIECES, calls, sum(file.size for file in parts), len(numbered))
            for (file, number), row in zip(numbered, rows, strict=True):
                if file.matches(how, row, number):
                    found[file.sha256].pieces.add(number)
        return found

    def _make_room(self, missing: Sequence[tuple[Local, There]]) -> None:
        if not missing:
            return
        # A part may have holes, so only pieces that are right count; a piece lies beside its part for a moment.
        needed = sum(file.size - there.held(file) for file, there in missing)
        needed += max(min(file.size, self._piece) for file, _ in missing) + SPARE
        df = self._link.run(f"df -kP {quote(self.folder)}", limit_s=LOST_S).out.decode("utf-8", "replace")
        free = free_bytes(df)
        if free is not None and free < needed:
            raise SetupError(
                f"{self._link.uri}: push: not enough space on the device",
                got=f"{free:,} bytes free in {self.folder}",
                expected=f"{needed:,} bytes",
                todo="free some space there, or choose another folder on the device; nothing was sent",
            )

    def _send(self, file: Local, there: There) -> Iterator[int]:
        """Sends the missing pieces; yields the size of each that has arrived. The whole is hashed at the end."""
        with tempfile.TemporaryDirectory(prefix="smolship-piece-") as folder:
            for number in range(len(file.pieces)):
                if number not in there.pieces:
                    self._send_piece(file, number, Path(folder) / "piece")
                    yield file.length(number)
        part = f"parts/{file.sha256}"
        cut = f"""[ "$(size {part})" = {file.size} ] || dd if=/dev/null of={part} bs=1 seek={file.size} 2>/dev/null"""
        how, (row,) = self._sums(_WHOLE, [cut, f"whole {part}"], file.size, 1)
        if not file.matches(how, row):
            raise self._arrived_wrong(file, how, row)
        self._run(f"{self._cd}chmod 444 {part} && [ -r {part} ] && mv -f {part} files/{file.sha256}")

    def _send_piece(self, file: Local, number: int, copy: Path) -> None:
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
            f"said=$(dd if={piece} of={part} {place} 2>&1) || {{ echo $said >&2; df -kP . >&2; exit 1; }}",
            f"rm -f {piece}",
        ]
        how = row = ""
        for _ in range(2):
            self._link.push(source, f"{self.folder}/{piece}")
            how, (row,) = self._sums(_WHOLE, calls, self._piece, 1)
            if file.matches(how, row, number):
                return
        raise self._arrived_wrong(file, how, row)

    def _lay_out(self, names: Mapping[str, str], programs: Iterable[str]) -> str:
        """A new folder with these names of stored files, those in `programs` executable."""
        name = f"ready/{secrets.token_hex(8)}"
        folders = sorted({str(PurePosixPath(name, path).parent) for path in names} | {name})
        lines = [f"mkdir -p {folder} || exit 1" for folder in folders]
        lines += [f"program {key}" for key in sorted(programs)]
        lines += [f"place {key} {name}/{path}" for path, key in names.items()]
        self._run(f"{self._cd}{_PLACE}" + "\n".join(lines))
        return f"{self.folder}/{name}"

    def _sums(self, functions: str, calls: Sequence[str], hashed: int, count: int) -> tuple[str, list[str]]:
        """The program that hashes there, and `count` rows, of calls that hash so many bytes."""
        said = self._run("\n".join([self._cd, sums.SCRIPT, functions, *calls]), hashed)
        how, *rows = said.splitlines() or [""]
        if len(rows) != count:
            raise SetupError(f"{self._link.uri}: push: the device's answer cannot be read", got=said, expected="sums")
        return how, rows

    def _run(self, script: str, hashed: int = 0) -> str:
        """What a script prints that reads so many bytes. Raises SetupError where it failed."""
        done = self._link.run(script, limit_s=2 * LOST_S + hashed / HASHED)
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


# A row a file: its size and its sum, or "-".
_WHOLE = """
whole() { if [ -f "$1" ]; then echo "$(size "$1") $(sum <"$1")"; else echo -; fi; }
"""
# The same for a stored file; "part" where pieces of it are to be looked at.
_STORED = """
stored() {
  if [ -f files/$1 ] && [ "$(size files/$1)" = "$2" ]; then touch files/$1; echo "$2 $(sum <files/$1)"
  elif [ -f files/$1 ] || [ -f parts/$1 ]; then echo part
  else echo -
  fi
}
"""
_PIECES = f"""
pieces() {{
  [ ! -f files/$1 ] || mv -f files/$1 parts/$1
  number=0; all=$(size parts/$1)
  while [ $number -lt $3 ]; do
    from=$((number * $2)); length=$((all - from))
    [ $length -le $2 ] || length=$2
    if [ $length -le 0 ]; then echo -
    else echo "$length $(dd if=parts/$1 bs={BLOCK} skip=$((from / {BLOCK})) count=$(($2 / {BLOCK})) 2>/dev/null | sum)"
    fi
    number=$((number + 1))
  done
}}
"""
_PLACE = """
program() { chmod 555 files/$1 && [ -x files/$1 ] || { echo "chmod has no effect on files/$1" >&2; exit 1; }; }
place() {
  ln files/$1 $2 2>/dev/null || ln -s "$(pwd)/files/$1" $2 2>/dev/null || cp -p files/$1 $2 || exit 1
}
"""


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
