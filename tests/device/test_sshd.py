"""The quirky servers have the quirks that tests of the link rely on."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.device.sshd import NOISE, Server, sshd

pytestmark = pytest.mark.real  # `make check` needs no packages of the system


def client(server: Server, *words: str, program: str = "ssh", feed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The client without a terminal: it must not ask."""
    command = [str(server.clients / program), *words]
    return subprocess.run(command, input=feed, capture_output=True, timeout=20, start_new_session=True)


def test_a_command_its_status_its_streams() -> None:
    with sshd() as server:
        done = client(server, server.alias, "cat; echo wrong >&2; exit 7", feed=b"\0sent\n")
        assert (done.returncode, done.stdout, done.stderr) == (7, b"\0sent\n", b"wrong\n")
        assert server.proxy.connections == 1 and server.uri == f"ssh://pi@127.0.0.1:{server.port}"
        done = client(server, "-p", str(server.port), "pi@127.0.0.1", "echo $HOME; cat /proc/1/comm; id -u")
        assert done.stdout.split() == [b"/home/pi", b"sshd", str(os.getuid()).encode()]


@pytest.mark.parametrize(
    ("shell", "seen"),
    [
        ("sh", b"/sh"),
        ("bash", b"/bash"),
        ("dash", b"/dash"),
        ("ash", b"/run/smolship/ash"),
        ("fish", b"/fish"),
        ("csh", b"/csh"),
    ],
)
def test_login_shells_and_their_start_files(shell: str, seen: bytes) -> None:
    with sshd(shell=shell, start=NOISE) as server:
        done = client(
            server, server.alias, "echo $SHELL; cat /proc/$fish_pid/comm" if shell == "fish" else "echo $SHELL"
        )
        assert done.returncode == 0 and done.stdout.startswith(b"Welcome to this board\n")
        assert done.stdout.split(b"\n")[1].endswith(seen) and b"a warning\n" in done.stderr


def test_files_by_sftp_and_scp(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(os.urandom(3_000_000))
    with sshd() as server:
        assert client(server, "-q", str(tmp_path / "content"), f"{server.alias}:sent", program="scp").returncode == 0
        assert (server.home / "sent").read_bytes() == (tmp_path / "content").read_bytes()
        got = client(server, "-b", "-", server.alias, program="sftp", feed=f"get sent {tmp_path}/back\n".encode())
        assert got.returncode == 0 and (tmp_path / "back").read_bytes() == (tmp_path / "content").read_bytes()
    for quirk in ("no", "broken"):
        with sshd(sftp=quirk) as server:
            assert client(server, "-b", "-", server.alias, program="sftp").returncode != 0
            assert client(server, server.alias, "true").returncode == 0
    with sshd(start=NOISE) as server:  # what noise does to sftp in the field
        assert client(server, "-b", "-", server.alias, program="sftp").returncode != 0


def test_programs_that_are_missing_and_another_sh() -> None:
    with sshd(missing=("scp", "sha256sum"), bin_sh="busybox") as server:
        script = "command -v sha256sum scp; command -v cmp; /bin/sh -c 'cmp /proc/$$/exe /bin/busybox && echo busybox'"
        done = client(server, server.alias, script)
        assert done.returncode == 0 and done.stdout == b"/run/smolship/bin/cmp\nbusybox\n"
        sent = client(server, "-O", "/etc/hostname", f"{server.alias}:there", program="scp")
        assert sent.returncode != 0 and not (server.home / "there").exists()


def test_dropbear_and_another_user(tmp_path: Path) -> None:
    with sshd(server="dropbear", shell="ash", banner="Property of nobody\n") as server:
        done = client(server, server.alias, "cat; echo wrong >&2; exit 7", feed=b"\0sent\n")
        assert (done.returncode, done.stdout) == (7, b"\0sent\n") and b"wrong\n" in done.stderr
        assert b"Property of nobody" in done.stderr and b"dropbear" in client(server, "-v", server.alias, "true").stderr
        assert client(server, "-b", "-", server.alias, program="sftp").returncode != 0
        assert client(server, "-O", "/etc/hostname", f"{server.alias}:there", program="scp").returncode != 0
    if os.getuid() == 0:
        with sshd(uid=1000) as server:
            done = client(server, server.alias, "id -u; id -g; touch ~/mine; touch /etc/mine")
            assert (
                done.stdout == b"1000\n1000\n" and done.returncode == 1 and (server.home / "mine").stat().st_uid == 1000
            )


def test_keys_passwords_and_prompts() -> None:
    with sshd(banner="Property of nobody\n", client_noise="** WARNING: connection is not using ...") as server:
        done = client(server, server.alias, "true")
        assert done.returncode == 0 and done.stderr.startswith(b"** WARNING") and b"Property of nobody" in done.stderr
    for quirks, said in (
        ({"password": "raspberry"}, b"Permission denied (password)"),
        ({"passphrase": "secret"}, b"Permission denied (publickey)"),
        ({"host_key": "unknown"}, b"Host key verification failed"),
        ({"host_key": "changed"}, b"REMOTE HOST IDENTIFICATION HAS CHANGED"),
    ):
        with sshd(**quirks) as server:  # type: ignore[arg-type]
            done = client(server, "-o", "BatchMode=yes", server.alias, "true")
            assert done.returncode == 255 and said in done.stderr


def test_a_password_is_taken(tmp_path: Path) -> None:
    (tmp_path / "ask").write_text("#!/bin/sh\necho raspberry\n")
    (tmp_path / "ask").chmod(0o755)
    with sshd(password="raspberry") as server:
        given = os.environ | {"SSH_ASKPASS": str(tmp_path / "ask"), "SSH_ASKPASS_REQUIRE": "force"}
        command = ["ssh", "-F", str(server.ssh_config), server.alias, "echo in"]
        assert subprocess.run(command, env=given, capture_output=True, timeout=20, check=False).stdout == b"in\n"


def test_resets_cuts_stalls_and_silence() -> None:
    with sshd(resets=2) as server:
        codes = [client(server, server.alias, "true").returncode for _ in range(3)]
        assert codes == [255, 255, 0] and server.proxy.connections == 3
    with sshd(cut_after=4_000_000) as server:
        assert client(server, server.alias, "cat >there", feed=bytes(8_000_000)).returncode == 255
        assert 0 < (server.home / "there").stat().st_size < 4_000_000
        assert client(server, server.alias, "cat >there", feed=bytes(8_000_000)).returncode == 0  # cut once
    keepalive = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1")
    with sshd(stall_after=200_000) as server:
        began = time.monotonic()
        done = client(server, *keepalive, server.alias, "cat >there", feed=bytes(2_000_000))
        assert done.returncode == 255 and 1 < time.monotonic() - began < 5
        server.proxy.resume()
        assert client(server, server.alias, "true").returncode == 0
    with sshd(silent=True) as server:
        assert b"timed out" in client(server, "-o", "ConnectTimeout=1", server.alias, "true").stderr


def test_small_and_noexec_folders_and_further_options() -> None:
    folders = {"/home/pi": "size=1m", "/tmp": "noexec"}
    with sshd(
        tmpfs=folders, server_options={"MaxSessions": "1"}, client_options={"ServerAliveInterval": "7"}
    ) as server:
        script = "head -c 2000000 /dev/zero >f; wc -c <f; cp /bin/true /tmp; /tmp/true; echo $?"
        done = client(server, server.alias, script)
        assert done.stdout.split() == [str(1 << 20).encode(), b"126"]
        assert b"serveraliveinterval 7" in client(server, "-G", server.alias).stdout
        assert b"MaxSessions 1" in (server.ssh_config.parent / "sshd_config").read_bytes()


def test_nothing_is_left() -> None:
    with sshd() as server:
        asked = subprocess.Popen(
            [server.clients / "ssh", server.alias, "echo here; exec sleep 4321"], stdout=subprocess.PIPE
        )
        assert asked.stdout and asked.stdout.readline() == b"here\n"
        folder = server.ssh_config.parent
    assert asked.wait(5) == 255
    asked.stdout.close()
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not folder.exists() and not [line for line in lines if line == b"sleep\x004321\0"]
