"""What an SSH client of the tests uses instead of the user's own files: keys, known hosts, ssh_config."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from smolship.runtime.errors import SetupError

ALIAS = "board"
PACKAGES = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "sftp": "openssh-client",
    "scp": "openssh-client",
    "dropbear": "dropbear-bin",
    "dropbearconvert": "dropbear-bin",
    "ssh-keygen": "openssh-client",
    "busybox": "busybox-static",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "qemu-aarch64-static": "qemu-user-static",
}


def need(program: str) -> str:
    """The program's path. Raises SetupError naming its Debian package."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/lib/dropbear")
    if not found:
        todo = f"apt-get install {PACKAGES.get(program, program)}; tests/device/install has all that these tests use"
        raise SetupError(f"{program} is not installed", todo=todo)
    return found


def make_keys(folder: Path, passphrase: str = "") -> None:
    """host_key, other_key, client_key, each with its .pub, and authorized_keys."""
    keygen = need("ssh-keygen")
    for name, phrase in (("host_key", ""), ("other_key", ""), ("client_key", passphrase)):
        command = [keygen, "-q", "-t", "ed25519", "-N", phrase, "-C", name, "-f", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    shutil.copyfile(folder / "client_key.pub", folder / "authorized_keys")
    (folder / "authorized_keys").chmod(0o644)


def client_files(
    folder: Path, host: str, port: int, user: str, host_key: str = "known", options: Mapping[str, str] | None = None
) -> Path:
    """known_hosts and ssh_config in the folder of `make_keys`, for the address and for the alias "board".

    host_key  "known", "unknown", or "changed": another key than the server's
    """
    known = folder / "known_hosts"
    key = {"known": "host_key", "changed": "other_key"}.get(host_key)
    kind_and_key = " ".join((folder / f"{key}.pub").read_text().split()[:2]) if key else ""
    known.write_text(f"[{host}]:{port} {kind_and_key}\n" if key else "")
    lines = [
        *(f"{name} {value}" for name, value in (options or {}).items()),
        f"Host {ALIAS}",
        f"HostName {host}",
        f"Port {port}",
        f"User {user}",
        "Host *",
        f"IdentityFile {folder / 'client_key'}",
        "IdentitiesOnly yes",
        "IdentityAgent none",
        f"UserKnownHostsFile {known}",
        "GlobalKnownHostsFile /dev/null",
    ]
    config = folder / "ssh_config"
    config.write_text("\n".join(lines) + "\n")
    return config


def client_programs(folder: Path, config: Path, noise: str = "") -> Path:
    """A folder for the front of PATH: ssh, sftp and scp that read `config`, and print `noise` to stderr first."""
    clients = folder / "clients"
    clients.mkdir()
    say = f"printf '%s\\n' {shlex.quote(noise)} >&2\n" if noise else ""
    for program in ("ssh", "sftp", "scp"):
        command = f'exec {shlex.quote(need(program))} -F {shlex.quote(str(config))} "$@"\n'
        (clients / program).write_text(f"#!/bin/sh\n{say}{command}")
        (clients / program).chmod(0o755)
    return clients
