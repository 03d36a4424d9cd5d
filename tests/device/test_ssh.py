"""The link over SSH against this machine's sshd with the quirks of boards."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smolship.runtime.errors import InputError, SetupError
from smolship.runtime.plan import Plan
from smolship.tools.devices import ssh
from smolship.tools.devices.facts import read_device
from smolship.tools.devices.job import Job
from smolship.tools.devices.link import Link, LinkLost
from smolship.tools.devices.runners import Runner
from smolship.tools.devices.store import Store
from smolship.tools.devices.uri import parse
from tests.device.sshd import NOISE, USER, Server, sshd

pytestmark = pytest.mark.real
HOME = f"/home/{USER}"


@contextlib.contextmanager
def board(**quirks: Any) -> Iterator[tuple[Server, Link]]:
    with sshd(**quirks) as server, ssh.connect(parse(server.uri), config=server.ssh_config, ask=False) as link:
        yield server, link


def works(link: Link, folder: Path) -> None:
    """A script, its status, its input and its output, and a file there and back."""
    done = link.run(
        "echo \"$LC_ALL\"; printf '%s|' 'a b' \"it's\"; cat; exit 3", feed=[b"in\r\n\0", b"put"], limit_s=20
    )
    assert (done.status, done.out) == (3, b"C\na b|it's|in\r\n\0put")
    source, back = folder / "source", folder / "back"
    source.write_bytes(os.urandom(3_000_001))
    told: list[int] = []
    link.push(source, f"{HOME}/there", told.append)
    assert told == sorted(told) and told[-1] == source.stat().st_size
    link.pull(f"{HOME}/there", back)
    assert back.read_bytes() == source.read_bytes()
    assert link.run(f"ls {HOME}", limit_s=10).out == b"there\n"


QUIRKS: dict[str, dict[str, Any]] = {
    "none": {},
    "fish": {"shell": "fish"},
    "csh": {"shell": "csh"},
    "ash and busybox": {"shell": "ash", "bin_sh": "busybox"},
    "noise of bash": {"start": NOISE},
    "noise of fish": {"shell": "fish", "start": NOISE},
    "noise of csh": {"shell": "csh", "start": NOISE},
    "noise and no sftp": {"start": NOISE, "sftp": "no"},
    "sftp broken": {"sftp": "broken", "banner": "Authorized use only.\n"},
    "few programs": {"missing": ("scp", "sftp", "sha256sum", "timeout", "setsid", "head", "od", "python3")},
    "dropbear": {"server": "dropbear", "shell": "ash", "bin_sh": "busybox"},
    "IPv6": {"host": "::1"},
    "resets": {"resets": 2},
    "one session at a time": {"server_options": {"MaxSessions": "1"}},
    "users master": {
        "client_options": {"ControlMaster": "auto", "ControlPersist": "60", "ControlPath": "/tmp/users-%C"}
    },
    "users background": {"client_options": {"ForkAfterAuthentication": "yes", "StdinNull": "yes"}},
    "control characters": {
        "start": "printf '\\033]0;t\\007\\033[2J\\000\\377\\376\\r\\n\\f\\b'\n",
        "banner": "\x1b]0;x\x07\x1b[2J\x00\xff\r\n",
    },
    "megabytes of noise": {"start": "head -c 5000000 /dev/zero | tr '\\0' x\n"},
    "users command": {"client_options": {"RemoteCommand": "tmux attach", "RequestTTY": "force", "LogLevel": "QUIET"}},
}


@pytest.mark.parametrize("quirk", QUIRKS)
def test_a_link_works_with(quirk: str, tmp_path: Path) -> None:
    with board(**QUIRKS[quirk]) as (server, link):
        works(link, tmp_path)
        assert server.proxy.connections == 1 + QUIRKS[quirk].get("resets", 0)


STARTS: dict[str, dict[str, Any]] = {
    "reads a line": {"start": "read answer\n"},
    "no path": {"start": "PATH=/opt/vendor/bin; export PATH\n"},
    "an empty path": {"start": "PATH=; export PATH\n"},
    "its own cd": {"start": 'cd() { builtin cd "$@" && ls; }; export -f cd\n', "bin_sh": "bash"},
    "a path of cd's": {"start": "export CDPATH=/:/home\n"},
    "a limit on time": {"start": "export TMOUT=1\n", "bin_sh": "bash"},
    "libraries of other programs": {"start": "export LD_PRELOAD=/nowhere/a.so LD_LIBRARY_PATH=/nowhere\n"},
    "a locale that is not there": {"start": "export LC_ALL=tr_TR.UTF-8 LANGUAGE=tr\n", "bin_sh": "bash"},
    "a mask": {"start": "umask 0777\n"},
    "options": {"start": "set -efuC; export SHELLOPTS\n", "bin_sh": "bash"},
    "functions": {"start": "printf() { :; }; rm() { false; }; export -f printf rm\n", "bin_sh": "bash"},
    "a folder that was": {"start": "export HOME=/home/pi OLDPWD=/nowhere PWD=/nowhere\n"},
}


@pytest.mark.parametrize("quirk", STARTS)
def test_start_files_that_set_things_for_others(quirk: str, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "run").chmod(0o755)
    with board(**STARTS[quirk]) as (_, link):
        facts = read_device(link)
        assert facts.page_size == os.sysconf("SC_PAGESIZE") and facts.kernel_machine == os.uname().machine
        folder = facts.good_folders(link.uri)[0].path
        assert folder == f"{HOME}/.cache/smolship"
        there = Store(link, f"{folder}/device").put({"run": tmp_path / "run"})
        done = link.run(f"cd {there} && ./run && read -r line; echo $line", feed=_later(), limit_s=10)
        assert done.out == b"ran\nlate\n"


def _later() -> Iterator[bytes]:
    time.sleep(1.2)
    yield b"late\n"


@pytest.mark.parametrize("quirk", [{"shell": "nologin"}, {"start": "exit 3\n"}])
def test_a_shell_that_runs_nothing_is_named(quirk: dict[str, Any]) -> None:
    with board(**quirk) as (server, link), pytest.raises(LinkLost) as error:
        link.run("true", limit_s=10)
    assert f"see what the login shell and its start files do there: ssh -T -p {server.port} pi@" in str(error.value)


def link_local() -> str:
    """An address of this machine that only its interface makes one: fe80::…%eth0."""
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        digits, _, _, scope, _, name = line.split()
        if scope == "20":
            return f"{ipaddress.IPv6Address(int(digits, 16))}%{name}"
    pytest.skip("this machine has no link-local IPv6 address")


def test_an_address_with_its_zone(tmp_path: Path) -> None:
    with board(host=link_local()) as (server, link):
        assert "%25" in server.uri
        works(link, tmp_path)
    error, _ = refusal(host=link_local(), host_key="changed")
    assert f"-R '[{link_local()}]:" in str(error)


WARNING = """** WARNING: connection is not using a post-quantum key exchange algorithm.
** This session may be vulnerable to "store now, decrypt later" attacks.
** The server may need to be upgraded. See https://openssh.com/pq.html"""  # OpenSSH 10.1, in every client


@pytest.mark.parametrize("noise", [WARNING, "bash: warning: setlocale: LC_ALL: cannot change locale (de_DE.UTF-8)"])
def test_what_the_client_says_on_stderr_is_no_failure(
    noise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sshd(client_noise=noise) as server:
        monkeypatch.setenv("PATH", str(server.clients), prepend=":")
        with ssh.connect(parse(server.uri), ask=False) as link:
            works(link, tmp_path)
    with sshd(client_noise=noise, password="secret") as server:
        monkeypatch.setenv("PATH", str(server.clients), prepend=":")
        with pytest.raises(SetupError, match="ssh-copy-id") as error:
            ssh.connect(parse(server.uri), ask=False)
        assert "got: " in str(error.value) and "Permission denied" in str(error.value)


def test_a_server_that_is_full_for_a_moment(tmp_path: Path) -> None:
    """MaxStartups: others are logging in."""
    with sshd(server_options={"MaxStartups": "1"}) as server:
        other = socket.create_connection((server.host, server.port))
        assert other.recv(4) == b"SSH-"
        threading.Timer(2.0, other.close).start()
        start = time.monotonic()
        with ssh.connect(parse(server.uri), config=server.ssh_config, ask=False) as link:
            works(link, tmp_path)
        assert 1 < time.monotonic() - start < 12 and 2 < server.proxy.connections <= 1 + 4


def test_a_whole_run_is_one_connection(tmp_path: Path) -> None:
    """Looking at it, setting up, sending, executing, cleaning."""
    answer = 'printf \'%s\\n\' \'{"error": ["InputError", "ran"]}\''
    with board() as (server, link):
        facts = read_device(link)
        store = Store(link, f"{facts.good_folders(link.uri)[0].path}/device")
        (tmp_path / "a").write_bytes(b"1")
        there = store.put({"a": tmp_path / "a"})
        runner = Runner("fake", {}, ["/bin/sh", "-c", answer])
        plan = Plan("bench", "onnx", "onnx", {"file": "a"}, 1)
        for _ in range(2):
            with pytest.raises(InputError, match="ran"):
                Job(link, f"{store.folder}/runs", there, there, runner, "0" * 64).execute(plan, lambda *a: None)
        assert server.proxy.connections == server.proxy.most_at_once == 1


def test_an_alias_and_a_long_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("l" * 120)
    long.mkdir()
    monkeypatch.setenv("HOME", str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    with sshd() as server, ssh.connect(parse("ssh://board"), config=server.ssh_config, ask=False) as link:
        works(link, tmp_path)


def test_the_way_through_another_machine(tmp_path: Path) -> None:
    with sshd() as between:
        through = f"ssh -v -F {between.ssh_config} -W %h:%p board"
        with sshd(client_options={"ProxyCommand": through}) as server:
            with ssh.connect(parse("ssh://board"), config=server.ssh_config, ask=False) as link:
                works(link, tmp_path)
            assert between.proxy.connections == server.proxy.connections == 1


@pytest.mark.parametrize("quirk", [{"silent": False, "resets": 99}, {"password": "secret"}, {"host_key": "unknown"}])
def test_what_leads_to_the_device_is_named_where_that_fails(quirk: dict[str, Any]) -> None:
    """The device is sound: no cure that is meant for it is told, and it is asked once."""
    with sshd(**quirk) as between:
        through = f"ssh -o BatchMode=yes -F {between.ssh_config} -W %h:%p board"
        with sshd(client_options={"ProxyCommand": through}) as server:
            start = time.monotonic()
            with pytest.raises(SetupError) as error:
                ssh.connect(parse("ssh://board"), config=server.ssh_config, ask=False)
        assert server.proxy.connections == 0 and time.monotonic() - start < 10
    said = str(error.value)
    assert "ProxyJump or ProxyCommand" in said and "ssh-copy-id" not in said and "ssh-keyscan" not in said


def refusal(**quirks: Any) -> tuple[SetupError, float]:
    with sshd(**quirks) as server:
        start = time.monotonic()
        with pytest.raises(SetupError) as error:
            ssh.connect(parse(server.uri), config=server.ssh_config, ask=False)
        return error.value, time.monotonic() - start


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "an unknown host key": ({"host_key": "unknown"}, ("host key is not known", "ssh-keyscan -p ")),
    "a changed host key": (
        {"host_key": "changed"},
        ("another host key", "SHA256:", "ssh-keygen -f ", "-R '[127.0.0.1]:"),
    ),
    "a password": ({"password": "secret"}, ("a password", "ssh-copy-id -p ")),
    "a passphrase": ({"passphrase": "secret"}, ("the passphrase of ", "ssh-add ")),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_names_the_cure_of(kind: str) -> None:
    quirks, words = REFUSED[kind]
    error, seconds = refusal(**quirks)
    for word in words:
        assert word in str(error)
    assert str(error).count("SHA256:") == (2 if kind == "a changed host key" else 0)
    assert seconds < 15 and error.exit_code == 3


def test_a_silent_port_has_15_seconds() -> None:
    error, seconds = refusal(silent=True)
    assert "no answer" in str(error) and 10 < seconds < 20


def test_resets_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "AGAIN_S", (0.1, 0.1, 0.1))
    error, _ = refusal(resets=99)
    assert "four times" in str(error)


def test_a_connection_that_stalls_is_noticed_in_30_seconds() -> None:
    with board() as (server, link):
        start = time.monotonic()

        def stall(line: bytes) -> None:
            server.proxy.stall()

        with pytest.raises(LinkLost, match="not responding"):
            link.run("echo 1; sleep 100", lines=stall, limit_s=100)
        assert time.monotonic() - start < 30


def test_a_connection_that_stalls_while_a_channel_opens() -> None:
    with board() as (server, link):
        server.proxy.stall()
        start = time.monotonic()
        with pytest.raises(LinkLost):
            link.run("echo 1", limit_s=100)
        assert time.monotonic() - start < 31


def test_heartbeats_do_not_hide_a_stall() -> None:
    def heartbeats() -> Iterator[bytes]:
        while True:
            yield b"\n"
            time.sleep(0.5)

    with board() as (server, link):
        start = time.monotonic()
        with pytest.raises(LinkLost):
            link.run("echo 1; cat", feed=heartbeats(), lines=lambda line: server.proxy.stall(), limit_s=100)
        assert time.monotonic() - start < 30


def test_a_connection_that_is_cut() -> None:
    with board() as (server, link):
        start = time.monotonic()
        with pytest.raises(LinkLost, match="ended before the script did"):
            link.run("echo 1; sleep 100", lines=lambda line: server.proxy.cut(), limit_s=100)
        assert time.monotonic() - start < 3
        with pytest.raises(LinkLost, match="the link has ended"):
            link.run("echo 1", limit_s=5)


def test_a_push_that_is_cut_leaves_no_file(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(os.urandom(4 << 20))
    with sshd(cut_after=2 << 20) as server:
        with ssh.connect(parse(server.uri), config=server.ssh_config, ask=False) as link, pytest.raises(LinkLost):
            link.push(source, f"{HOME}/there")
        time.sleep(0.5)
        assert not (server.home / "there").exists()
        with ssh.connect(parse(server.uri), config=server.ssh_config, ask=False) as link:
            link.push(source, f"{HOME}/there")
        assert (server.home / "there").read_bytes() == source.read_bytes()


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(os.urandom(3 << 20))
    with board(tmpfs={HOME: "size=1m"}) as (_, link):
        with pytest.raises(SetupError, match="No space left"):
            link.push(source, f"{HOME}/there")
        assert link.run(f"ls {HOME}", limit_s=5).out == b""


def test_a_background_process_there_holds_nothing() -> None:
    with board() as (_, link):
        start = time.monotonic()
        assert link.run("sleep 20 & echo 1", limit_s=30).out == b"1\n"
        assert time.monotonic() - start < 2
    assert time.monotonic() - start < 4


CHILD = """
import sys, time
from pathlib import Path
from smolship.tools.devices import ssh
from smolship.tools.devices.uri import parse
with ssh.connect(parse(sys.argv[1]), config=Path(sys.argv[2]), ask=True) as link:
    print("socket", link._master.socket, flush=True)
    for n in range(3):
        print("said", link.run("echo 42", limit_s=20).out, flush=True)
    if len(sys.argv) > 3:
        try:
            link.run("echo started; sleep 60", lines=lambda line: print(line.decode(), flush=True), limit_s=60)
        except KeyboardInterrupt:
            print("after:", link.run("echo the link stands", limit_s=20).out, flush=True)
"""


class Terminal:
    """A child with a terminal of its own."""

    def __init__(self, server: Server, *words: str):
        self.pid, self.fd = pty.fork()
        if not self.pid:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            command = [sys.executable, "-c", CHILD, server.uri, str(server.ssh_config), *words]
            os.execve(sys.executable, command, environment)
        self.said = ""

    def expect(self, word: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while word not in self.said:
            assert time.monotonic() < deadline, self.said
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.said += os.read(self.fd, 4096).decode()
                except OSError:
                    break
        assert word in self.said, self.said

    def say(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize("quirk", ["passphrase", "password"])
def test_on_a_terminal_it_asks_once(quirk: str) -> None:
    with sshd(**{quirk: "secret"}) as server:
        terminal = Terminal(server)
        terminal.expect("passphrase for key" if quirk == "passphrase" else "password:")
        terminal.say("secret\n")
        terminal.expect("said b'42\\n'\r\nsaid b'42\\n'\r\nsaid b'42\\n'")
        assert terminal.wait() == 0 and server.proxy.connections == 1
        assert terminal.said.lower().count("pass") == 1


def test_an_interrupt_on_the_terminal_leaves_the_link_for_cleaning_up() -> None:
    with sshd(passphrase="secret") as server:
        terminal = Terminal(server, "long")
        terminal.expect("passphrase for key")
        terminal.say("secret\n")
        terminal.expect("started")
        start = time.monotonic()
        terminal.say("\x03")
        terminal.expect("after: b'the link stands")
        assert terminal.wait() == 0 and time.monotonic() - start < 5
        socket = terminal.said.partition("socket ")[2].split()[0]
        assert socket not in subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True).stdout


def test_an_interrupt_at_the_question_ends_all() -> None:
    with sshd(passphrase="secret") as server:
        terminal = Terminal(server)
        terminal.expect("passphrase for key")
        terminal.say("\x03")
        terminal.expect("KeyboardInterrupt")
        assert terminal.wait() in (1, 130, -signal.SIGINT)


def test_a_store_resumes_over_a_connection_that_is_cut(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(os.urandom(6 << 20))
    (tmp_path / "run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "run").chmod(0o755)
    files = {"model.bin": tmp_path / "model", "bin/run": tmp_path / "run"}
    with sshd(cut_after=4 << 20, shell="ash", bin_sh="busybox", sftp="no", missing=("scp", "sha256sum")) as server:
        with ssh.connect(parse(server.uri), config=server.ssh_config, ask=False) as link, pytest.raises(LinkLost):
            Store(link, f"{HOME}/.cache/smolship", 1 << 20).put(files)
        before = server.proxy.passed
        seen: list[int] = []
        with ssh.connect(parse(server.uri), config=server.ssh_config, ask=False) as link:
            kept = Store(link, f"{HOME}/.cache/smolship", 1 << 20)
            folder = kept.put(files, lambda what, done, total: seen.append(done))
            assert link.run(f"{folder}/bin/run; wc -c <{folder}/model.bin", limit_s=10).out.split() == [
                b"ran",
                b"6291456",
            ]
            assert kept.changed(folder, files) == []
        assert 2 << 20 <= seen[0] <= 4 << 20
        assert server.proxy.passed - before < (6 << 20) - seen[0] + (1 << 19)


def test_a_store_refuses_memory_and_full_disks(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    with board(tmpfs={HOME: "size=4m"}) as (_, link), pytest.raises(SetupError, match="tmpfs on /home/pi"):
        Store(link, f"{HOME}/.cache/smolship").put({"a": tmp_path / "a"})


def test_facts_of_a_board_with_busybox_and_no_exec() -> None:
    quirks: dict[str, Any] = {"tmpfs": {"/mnt": "noexec"}, "shell": "fish", "start": NOISE, "bin_sh": "busybox"}
    with board(missing=("od", "getconf", "python3"), **quirks) as (_, link):
        facts = read_device(link, ("/mnt/smolship", "~/.cache/smolship"))
        assert (facts.machine, facts.bits) == (os.uname().machine, 64)
        assert facts.page_size == os.sysconf("SC_PAGESIZE") and facts.threads
        bad, good = facts.folders
        assert "Permission denied" in bad.why and bad.mount and "noexec" in bad.mount.options
        assert good.path == f"{HOME}/.cache/smolship" and not good.why
        assert b".cache" not in link.run(f"ls -a {HOME}", limit_s=10).out.split()


def test_the_speed_of_a_push(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(os.urandom(64 << 20))
    with board() as (_, link):
        start = time.monotonic()
        link.push(source, f"{HOME}/there")
        middle = time.monotonic()
        link.pull(f"{HOME}/there", tmp_path / "back")
        print(f"push {64 / (middle - start):.0f} MiB/s, pull {64 / (time.monotonic() - middle):.0f} MiB/s")
        assert middle - start < 20
