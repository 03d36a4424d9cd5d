"""Sums of files here, as programs of a device compute them there."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

from smolship.runtime.files import open_file, regular_file

BLOCK = 1 << 20

# sum: hashes standard input; the first word that it prints is the sum. $sums: the program's name.
SCRIPT = """
PATH=$PATH:/usr/sbin:/sbin:/system/bin
has() { command -v "$1" >/dev/null 2>&1; }
if has sha256sum; then sums=sha256sum; sum() { sha256sum; }
elif has shasum; then sums=shasum; sum() { shasum -a 256; }
elif has openssl; then sums=openssl; sum() { openssl dgst -sha256 -r; }
elif has busybox && busybox sha256sum </dev/null >/dev/null 2>&1; then sums=busybox; sum() { busybox sha256sum; }
elif has python3; then sums=python3
  sum() { python3 -Ic 'import hashlib, sys
h = hashlib.sha256()
for b in iter(lambda: sys.stdin.buffer.read(1 << 20), b""): h.update(b)
print(h.hexdigest())'; }
elif has cksum; then sums=cksum; sum() { cksum; }
else echo "no sha256sum, shasum, openssl, busybox, python3 or cksum in $PATH" >&2; exit 9
fi
# No number for the shell, which may count to 2^31 alone; busybox' wc reads all of the file.
size() { set -- $(stat -L -c %s "$1" 2>/dev/null || wc -c <"$1"); echo "$1"; }
echo "$sums"
"""


@dataclass(frozen=True)
class Local:
    """A file of this machine in pieces of `piece` bytes. `pieces`: the SHA-256 of each; an empty file has one."""

    path: Path
    size: int
    sha256: str
    piece: int
    pieces: tuple[str, ...]

    def length(self, number: int) -> int:
        """Bytes of a piece."""
        return min(self.piece, self.size - number * self.piece)

    def matches(self, how: str, row: str, number: int | None = None) -> bool:
        """Whether a row "SIZE SUM" is that of the whole, or of a piece; `how`: the program that made it."""
        size, _, found = row.partition(" ")
        if size != str(self.size if number is None else self.length(number)):
            return False
        if number is not None:
            return self.matches_piece(how, found, number)
        return _sum(found) == (cksum(self.path, 0, self.size) if how == "cksum" else self.sha256)

    def matches_piece(self, how: str, row: str, number: int) -> bool:
        """Whether a row "SUM" is that of a piece."""
        if how == "cksum":
            return _sum(row) == cksum(self.path, number * self.piece, self.length(number))
        return _sum(row) == self.pieces[number]


def _sum(row: str) -> str:
    """The first word: programs print a name behind it, and some a backslash before it."""
    return row.split()[0].lstrip("\\").lower() if row.split() else ""


def read_local(path: Path, piece: int) -> Local:
    """A file's sums, read once."""
    size = regular_file(path, path.name)
    whole, pieces = hashlib.sha256(), []
    with open_file(path, path.name) as file:
        for at in range(0, max(size, 1), piece):
            one, rest = hashlib.sha256(), min(piece, size - at)
            while rest and (block := file.read(min(BLOCK, rest))):
                rest -= len(block)
                one.update(block)
                if size > piece:
                    whole.update(block)
            pieces.append(one.hexdigest())
    return Local(path, size, whole.hexdigest() if size > piece else pieces[0], piece, tuple(pieces))


def cksum(path: Path, at: int, size: int) -> str:
    """What POSIX' cksum says of so many bytes: the CRC-32 of Ethernet, the highest bit first, over them and their
    number. zlib takes the lowest bit first, so bits are turned around before and after."""
    crc, length = 0xFFFFFFFF, size.to_bytes((size.bit_length() + 7) // 8, "little")  # zlib inverts it: 0 for POSIX
    with open_file(path, path.name) as file:
        file.seek(at)
        while size and (block := file.read(min(BLOCK, size))):
            size -= len(block)
            crc = zlib.crc32(block.translate(TURNED), crc)
    return str(int(f"{zlib.crc32(length.translate(TURNED), crc):032b}"[::-1], 2))


TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
