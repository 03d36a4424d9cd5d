"""A link to a device: shell scripts run there, files come and go. What a script says and how it ended is told from what
start files, banners and clients print."""

from __future__ import annotations

import re
import secrets
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from smolship.runtime.errors import InputError, SetupError, clip

CONNECT_S = 15.0  # until a connection stands
LOST_S = 30.0  # until a connection that is gone is noticed
MOST = 1 << 29  # bytes of a file that is fetched
FOLDERS = "/usr/bin:/bin:/usr/sbin:/sbin:/system/bin"  # behind a PATH that has no programs
SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/+-")


@dataclass(frozen=True)
class Done:
    """How a script ended: its exit status, 128 + signal where it was killed, and all that it wrote."""

    status: int
    out: bytes
    err: bytes


class LinkLost(SetupError):
    """The link ended before the script did."""


class Link(ABC):
    """An open link. `uri` is the device as the user names it."""

    uri: str

    @abstractmethod
    def run(
        self,
        script: str,
        *,
        feed: Iterable[bytes] | None = None,
        lines: Callable[[bytes], None] | None = None,
        limit_s: float,
    ) -> Done:
        """Run a POSIX script by the device's /bin/sh, wrapped by `framed`.

        feed   the script's standard input, sent as it comes once the script runs; its end is the input's end
        lines  gets each line of standard output as it comes, which then is not in `Done.out`

        Raises LinkLost, or SetupError where the time is over.
        """

    @abstractmethod
    def push(self, content: Path, to: str, sent: Callable[[int], None] = lambda count: None) -> None:
        """Write a file there, first under a temporary name beside it; `to` is a `device_path`. `sent` gets the bytes of
        it that have gone, now and then, as far as the client tells."""

    @abstractmethod
    def pull(self, path: str, into: Path) -> None:
        """Fetch a file, `path` being a `device_path`. Raises SetupError where it is not there, or above `MOST`."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def fetched_size(uri: str, path: str, done: Done) -> int:
    """Of a file that is to be fetched, as `wc -c` on the device answered."""
    said = done.out.strip()
    if done.status or not re.fullmatch(rb"[0-9]{1,15}", said):
        got = clip((done.err or done.out).decode("utf-8", "replace")) or "nothing"
        raise SetupError(f"{uri}: pull: a file cannot be read there", got=got, expected=path)
    if int(said) > MOST:
        raise SetupError(
            f"{uri}: pull: a file there is too large to be one of ours",
            got=f"{int(said):,} bytes of {path}",
            expected=f"at most {MOST:,}",
            todo="run the command again",
        )
    return int(said)


@dataclass(frozen=True)
class Frame:
    """A script between marks that nobody else prints.

    begin   the line after which everything on standard output is the script's
    end     the word at the beginning of the line that gives its status
    """

    text: str
    begin: bytes
    end: bytes


# What a start file exported of the shell's own: options, functions in place of commands, the path of `cd`, a limit on
# time. A shell that exports functions is bash, which finds `unset` and `set` before them.
UNDO = """set +efuCvx; unset CDPATH TMOUT
case ${BASH_VERSION-} in ?*)
  unset -f compgen
  for smolship_name in $(compgen -A function); do
    case $smolship_name in smolship_main) ;; *) unset -f "$smolship_name" ;; esac
  done ;;
esac
"""


def framed(script: str) -> Frame:
    """The shell has read all of it before the script runs: what follows on its standard input is the script's. A start
    file may read some lines before."""
    nonce = secrets.token_hex(8)
    begin, end = f"smolship-{nonce}-begin", f"smolship-{nonce}-end"
    text = (
        "#\n#\n#\n#\nsmolship_main() {\nLC_ALL=C; export LC_ALL\n"
        f"command -v mkdir >/dev/null 2>&1 || {{ PATH=${{PATH:+$PATH:}}{FOLDERS}; export PATH; }}\n"
        + script.rstrip("\n")
        + "\n}\n"
        "{ " + UNDO + f"printf '\\n%s\\n' {begin}; ( smolship_main ); printf '\\n%s %d\\n' {end} $?; exit 0; "
        "}\n"
    )
    return Frame(text, begin.encode(), end.encode())


def quote(text: str) -> str:
    """A text as one word of a POSIX shell. Raises InputError where no shell can have it."""
    if "\0" in text:
        raise InputError("a text with a NUL cannot be given to a shell", got=repr(text))
    return shlex.quote(text)


def device_path(path: str) -> str:
    """A path on a device, absolute and of characters that no shell and no client changes. Names of the user's files
    are never among them."""
    if not path.startswith("/") or not set(path) <= SAFE or "/../" in path + "/":
        raise InputError("not a path that smolship uses on devices", got=path, expected="/[A-Za-z0-9._/+-]*")
    return path
