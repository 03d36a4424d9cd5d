"""What ssh says when a connection does not come to stand, as refusals with a cure."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smolship.runtime.errors import SetupError, clip
from smolship.tools.devices.link import quote
from smolship.tools.devices.uri import Address

# Before authentication: a server that is busy (MaxStartups), or counts failures (PerSourcePenalties, fail2ban).
RESET = re.compile(
    r"(kex|ssh)_exchange_identification: (?!.*timed out)|Connection (closed|reset) by|Not allowed at this time"
    r"|Connection to \S+ port \d+: Broken pipe|Broken pipe$",
    re.MULTILINE,
)
AUTH = re.compile(r"Permission denied(?:, please try again\.| \(([a-z0-9,@.-]*)\))|Too many authentication failures")
CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
# The program through which ssh reaches the device, and not the device, has ended: ProxyJump's or ProxyCommand's.
PROXY = re.compile(r"Connection (?:closed|reset) by UNKNOWN port 65535|^Connection to UNKNOWN port 65535", re.MULTILINE)
# What says nothing of why a connection failed: frames, and OpenSSH's warning (from 10.1) of an older key exchange.
PROXY_ALONE = re.compile(r"^(?:kex|ssh)_exchange_identification: .*$|^Connection .*UNKNOWN port 65535.*$", re.MULTILINE)
BORDER = re.compile(r"^@.*@$|^\s*$|^\*\* .*$", re.MULTILINE)


def was_reset(said: str) -> bool:
    """Whether the server closed the connection before it asked who we are. Behind another machine that is the last that
    is said, and the first that the other one has to say tells more."""
    if PROXY.search(said) and PROXY_ALONE.sub("", said).strip():
        return False
    return bool(RESET.search(said)) and not AUTH.search(said) and "Host key verification failed" not in said


def last_lines(said: str, count: int = 3) -> str:
    """The last of ssh's own lines, as one."""
    lines = [line.strip() for line in said.splitlines() if not BORDER.fullmatch(line)]
    return " | ".join(lines[-count:]) or "nothing was printed"


@dataclass(frozen=True)
class Identity:
    """What this machine can show: `locked` are private keys with a passphrase."""

    locked: Sequence[str] = ()


def explain(address: Address, said: str, identity: Identity, waited_s: float | None, ask: bool) -> SetupError:
    """The refusal for what ssh printed.

    waited_s   set where ssh was ended by us after so many seconds
    """
    what, place, got = f"{address.uri}: connect", where(address), last_lines(said)
    if CHANGED in said:
        return _changed(address, said)
    if PROXY.search(said) and not was_reset(said):
        return SetupError(
            f"{what}: what leads to the device has ended (ProxyJump or ProxyCommand of ssh's configuration)",
            got=last_lines(PROXY_ALONE.sub("", said)),
            expected="a way to the device's SSH server",
            todo=f"mend that first: ssh -v {place}; what it is: ssh -G {place} | grep -i proxy",
        )
    if "Host key verification failed" in said or "No matching host key fingerprint" in said:
        return SetupError(
            f"{what}: the device's host key is not known here, and nobody can be asked about it",
            got=got,
            expected="a host key in known_hosts",
            todo=f"connect once by hand and compare the fingerprint: ssh {place}; or take the key over a network that "
            f"you trust: {keyscan(address)} >>~/.ssh/known_hosts",
        )
    if found := AUTH.search(said):
        return _denied(address, got, found[1] or "", identity, ask)
    if "Could not resolve hostname" in said:
        todo = f"check the name; an alias belongs into ~/.ssh/config: ssh -G {place}"
        return SetupError(f"{what}: no such host", got=got, expected="a name that resolves", todo=todo)
    if was_reset(said):
        return SetupError(
            f"{what}: the device closes connections before it asks who we are, four times in a row",
            got=got,
            expected="an SSH server that lets us in",
            todo="wait: the server may refuse for some minutes after failures (MaxStartups, PerSourcePenalties, "
            "fail2ban); its log says why: journalctl -u ssh",
        )
    if "Connection refused" in said:
        return SetupError(
            f"{what}: nothing takes connections at that address and port",
            got=got,
            expected="an SSH server there that lets us in",
            todo="start it there (sudo systemctl enable --now ssh), and check the port; one that was reached may "
            f"refuse for some minutes after failures (fail2ban): ssh -v {place}",
        )
    if re.search(r"No route to host|Network is unreachable|Invalid argument", said):
        return SetupError(
            f"{what}: the address cannot be reached from here",
            got=got,
            expected="a device in a network of this machine",
            todo="check its address; a link-local one (fe80::…) needs the interface, as in ssh://[fe80::1%25eth0]; "
            f"ssh -v {place}",
        )
    if waited_s is not None or re.search(r"timed out|not responding", said):
        return SetupError(
            f"{what}: no answer" + (f" within {waited_s:.0f} s" if waited_s else ""),
            got=got,
            expected="an SSH server at that address and port",
            todo=f"check that the device is on and in this network: ssh -v {place}",
        )
    return SetupError(f"{what}: ssh ended", got=got, expected="a connection", todo=f"try it by hand: ssh -v {place}")


def where(address: Address) -> str:
    """The words that a person gives to ssh."""
    port = [] if address.port is None else ["-p", str(address.port)]
    return " ".join(quote(word) for word in [*port, f"{address.user}@{address.host}" if address.user else address.host])


def keyscan(address: Address) -> str:
    return " ".join(["ssh-keyscan", *(["-p", str(address.port)] if address.port else []), quote(address.host)])


def _denied(address: Address, got: str, methods: str, identity: Identity, ask: bool) -> SetupError:
    """`methods` are what the server would have taken, separated by commas."""
    place, todo, prompts = where(address), [], []
    if identity.locked and not ask:
        prompts.append(f"the passphrase of {', '.join(identity.locked)}")
        todo.append(f"unlock the key: ssh-add {' '.join(quote(name) for name in identity.locked)}")
    if {"password", "keyboard-interactive"} & set(methods.split(",")):
        if not ask:
            prompts.append("a password")
        todo.append(f"put a key on the device: ssh-copy-id {place}")
    elif not identity.locked:
        todo.append("put the public key of a key of yours into ~/.ssh/authorized_keys on the device")
    prompt = f"ssh would have to ask for {' or '.join(prompts)}, and nobody can be asked" if prompts else ""
    return SetupError(
        f"{address.uri}: connect: " + (prompt or "the device lets none of our keys in"),
        got=got,
        expected="a key that the device knows, and that needs no question",
        todo="; or ".join(todo),
    )


def _changed(address: Address, said: str) -> SetupError:
    new = re.search(r"key sent by the remote host is\s*\n?\s*(\S+?)\.?\s*\n", said)
    old = re.search(r"Offending (\S+) key in (.+):(\d+)", said)
    remove = re.search(r'ssh-keygen -f "(.*)" -R "(.*)"', said) or re.search(r"ssh-keygen -f '(.*)' -R '(.*)'", said)
    named = re.search(r"[Hh]ost key for (\S+) has changed", said)
    name = remove[2] if remove else named[1] if named else address.host
    file = remove[1] if remove else old[2] if old else ""
    known = _fingerprint(Path(old[2]), int(old[3])) if old else "unknown"
    command = ["ssh-keygen", *(["-f", quote(clip(file))] if file else []), "-R", quote(clip(name))]
    return SetupError(
        f"{address.uri}: connect: the device has another host key than before",
        got=f"{new[1] if new else 'unknown'} from the device",
        expected=f"{known} of {file or 'known_hosts'}",
        todo="where the device was set up anew, forget the old key and connect once by hand: "
        f"{' '.join(command)}; otherwise somebody may listen",
    )


def _fingerprint(file: Path, line: int) -> str:
    """SHA256:… of the key at that line, counted from 1; "unknown" where there is none."""
    try:
        words = file.expanduser().read_text(errors="replace").splitlines()[line - 1].split()
        blob = next(base64.b64decode(word, validate=True) for word in words if word.startswith("AAAA"))
    except (OSError, IndexError, StopIteration, ValueError):
        return "unknown"
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def read_identity(words: Sequence[str], host: str) -> Identity:
    """The private keys that ssh would use for a host and that have a passphrase. `words` are ssh's options."""
    locked = []
    said = _printed(["ssh", "-G", *words, "--", host, "true"])
    for name in re.findall(r"^identityfile (.+)$", said, re.MULTILINE):
        path = Path(name).expanduser()
        if path.is_file() and "incorrect passphrase" in _printed(["ssh-keygen", "-y", "-P", "", "-f", str(path)]):
            locked.append(str(path))
    return Identity(tuple(locked))


def forks(words: Sequence[str], host: str) -> bool:
    """Whether ssh's configuration sends its client into the background, where nobody would end it."""
    return "forkafterauthentication yes" in _printed(["ssh", "-G", *words, "--", host, "true"]).splitlines()


def _printed(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=5.0,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")
