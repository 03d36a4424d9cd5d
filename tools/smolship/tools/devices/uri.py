"""Names of devices: `local`, `ssh://[user@]host[:port][/folder]`, `adb://[serial][/folder]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from smolship.runtime.errors import InputError, show
from smolship.tools.devices.link import SAFE

KNOWN = "local, ssh://[user@]host[:port][/folder] or adb://[serial][/folder]"
# What ssh takes for a user, a host and a name of its configuration; none begins with a dash, which is an option's.
# Users of directories have a domain: CORP\\pi, pi@corp.example.
USER, HOST = re.compile(r"[A-Za-z0-9_](?:[\w.$+@\\-]*[\w.$+-])?"), re.compile(r"[A-Za-z0-9_][\w.-]*")
V6, ZONE = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"), re.compile(r"[\w.-]+")
# Colons, dots and brackets: of a phone on the network; " (2)": found there a second time.
SERIAL = re.compile(r"[A-Za-z0-9\[][\w.:\[\]%()-]*(?: \([0-9]+\)[\w.-]*)?")


@dataclass(frozen=True)
class Address:
    """A device as its URI names it.

    scheme  "local", "ssh" or "adb"
    host    of ssh: a name, an alias of ssh's configuration, or an address, IPv6 without brackets and with its zone
    user    of ssh; empty: ssh's own choice
    port    of ssh; None: ssh's own choice
    serial  of adb; empty: the only device, or ANDROID_SERIAL's
    folder  on the device, in which ours is made; empty: the first of the usual places that will do
    """

    uri: str
    scheme: str
    host: str = ""
    user: str = ""
    port: int | None = None
    serial: str = ""
    folder: str = ""


def parse(text: str) -> Address:
    """Raises InputError for anything that is no device's name."""
    if text == "local":
        return Address(text, "local")
    scheme, separator, rest = text.partition("://")
    rest, slash, path = rest.partition("/")
    folder = f"/{path}".rstrip("/") if slash else ""
    if not set(folder) <= SAFE or ".." in folder.split("/"):
        raise _refused(text, "a folder of letters, digits, dots and dashes, such as ssh://pi@host/mnt/ssd")
    if separator and scheme == "adb":
        serial = rest.replace("%20", " ").replace("%25", "%")
        if rest and not SERIAL.fullmatch(serial):
            raise _refused(text, "a serial as `adb devices` shows it")
        return Address(text, "adb", serial=serial, folder=folder)
    if separator and scheme == "ssh":
        return replace(_ssh(text, rest), folder=folder)
    raise _refused(text, KNOWN)


def _ssh(text: str, rest: str) -> Address:
    user, at, place = rest.rpartition("@")
    if at and ":" in user:
        raise InputError(
            "a device's name has no password in it",
            expected="ssh://user@host",
            todo=f"put a key on the device, which needs none: ssh-copy-id {user.partition(':')[0]}@{place}",
        )
    user = unquote(user)
    if at and not USER.fullmatch(user):
        raise _refused(text, "a user of letters, digits and . _ - + $ @ \\")
    if place.startswith("["):
        found = re.fullmatch(r"\[([^\]%]*)(?:%(?:25)?([^\]]*))?\](?::(.*))?", place)
        if not found or not V6.fullmatch(found[1]) or (found[2] and not ZONE.fullmatch(unquote(found[2]))):
            raise _refused(text, "an IPv6 address in brackets, such as ssh://pi@[fe80::1%25eth0]:22")
        host, port = found[1] + (f"%{unquote(found[2])}" if found[2] else ""), found[3]
    elif place.count(":") > 1:
        raise _refused(text, f"an IPv6 address in brackets: ssh://{quote(user, safe='+$@') + at}[{place}]")
    else:
        host, _, given = place.partition(":")
        port = given if ":" in place else None
        if not HOST.fullmatch(host):
            raise _refused(text, "ssh://[user@]host[:port], with a host of letters, digits, dots and dashes")
    if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise _refused(text, "a port of 1 to 65535")
    return Address(text, "ssh", host, user, int(port) if port else None)


def _refused(text: str, expected: str) -> InputError:
    return InputError("not the name of a device", got=show(text), expected=expected)
