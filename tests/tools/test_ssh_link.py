"""The link over SSH, with an `ssh` of the test's own first in PATH: its connection makes a socket and stays, its
clients are this machine's /bin/sh."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smolship.runtime.errors import InputError, SetupError
from smolship.tools.devices import channel, opening, ssh, ssh_errors, ssh_master
from smolship.tools.devices.facts import FOLDERS
from smolship.tools.devices.link import LinkLost
from smolship.tools.devices.uri import parse

PROGRAM = """#!/bin/sh
case "$1" in -G) cat {folder}/identities 2>/dev/null; exit 0 ;; esac
{{ printf '%s|' "$@"; echo; }} >>{folder}/log
for word in "$@"; do
  [ "$before" = -S ] && socket=$word
  before=$word
done
case " $* " in
*" -M "*) {master} ;;
*) {client} ;;
esac
"""
STANDS = f"""exec {sys.executable} -S -c 'import socket, signal, sys
socket.socket(socket.AF_UNIX).bind(sys.argv[1])
signal.pause()' "$socket" """


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """fake(master, client) puts an ssh first in PATH; the words of its calls are in the file that it returns."""

    def make(master: str = STANDS, client: str = "exec /bin/sh") -> Path:
        folder = tmp_path / "fake"
        folder.mkdir(exist_ok=True)
        (folder / "ssh").write_text(PROGRAM.format(folder=folder, master=master, client=client))
        (folder / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setattr(ssh, "AGAIN_S", (0.01, 0.01, 0.01))
        return folder / "log"

    return make


def connect(text: str = "ssh://board") -> ssh.SSHLink:
    return ssh.connect(parse(text), ask=False)


@pytest.fixture
def link(fake: Callable[..., Path]) -> Iterator[ssh.SSHLink]:
    fake()
    with connect() as link:
        yield link  # type: ignore[misc]


REFUSES = "echo 'mux_client_request_session: session request failed: Session open refused by peer' >&2; exit 255"


def test_a_server_that_still_holds_the_last_session_is_asked_again(
    fake: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "held").touch()
    fake(client=f"if rm {tmp_path}/held 2>/dev/null; then {REFUSES}; fi; exec /bin/sh")
    with connect() as link:
        assert link.run("echo fine", limit_s=9).out == b"fine\n"
    assert not (tmp_path / "held").exists()
    monkeypatch.setattr(ssh, "LOST_S", 0.2)
    fake(client=REFUSES)
    with connect() as link, pytest.raises(LinkLost, match="refused by peer"):
        link.run("echo fine", limit_s=9)


def test_a_script_has_its_output_its_status_and_its_standard_error(link: ssh.SSHLink) -> None:
    done = link.run("printf 'a\\nb'; echo warning >&2; exit 7", limit_s=5)
    assert (done.status, done.out, done.err) == (7, b"a\nb", b"warning\n")
    assert link.run("printf 'a\\n\\n'", limit_s=5).out == b"a\n\n"
    assert link.run("", limit_s=5).out == b""
    assert link.run("kill -9 $(sh -c 'echo $PPID')", limit_s=5).status == 128 + 9


def test_lines_come_as_they_are_written(link: ssh.SSHLink) -> None:
    seen: list[tuple[bytes, float]] = []
    script = "echo one; sleep 0.2; echo; printf 'two'; sleep 0.05; printf '\\n\\n'"
    done = link.run(script, lines=lambda line: seen.append((line, time.monotonic())), limit_s=5)
    assert [line for line, _ in seen] == [b"one", b"", b"two", b""]
    assert seen[1][1] - seen[0][1] > 0.1  # the first did not wait for the others
    assert done.out == b""


def test_the_feed_is_the_scripts_input_and_nothing_of_it_is_lost(link: ssh.SSHLink) -> None:
    content = os.urandom(3 << 20)
    pieces = [content[at : at + 77_777] for at in range(0, len(content), 77_777)]
    assert link.run("cat", feed=pieces, limit_s=10).out == content
    assert link.run("read -r a; read -r b; echo $b $a", feed=[b"1\n2\n3\n"], limit_s=5).out == b"2 1\n"
    assert link.run("cat; echo end", limit_s=5).out == b"end\n"


def test_what_the_feed_and_the_caller_raise_comes_out(link: ssh.SSHLink) -> None:
    def feed() -> Iterator[bytes]:
        yield b"1"
        raise ZeroDivisionError

    def refuse(line: bytes) -> None:
        raise KeyError(line)

    with pytest.raises(ZeroDivisionError):
        link.run("cat >/dev/null; sleep 5", feed=feed(), limit_s=10)
    with pytest.raises(KeyError):
        link.run("echo 1; sleep 5", lines=refuse, limit_s=10)


def test_a_feed_that_goes_on_does_not_hold_a_script_that_has_ended(link: ssh.SSHLink) -> None:
    def heartbeats() -> Iterator[bytes]:
        while True:
            yield b"\n"
            time.sleep(0.1)

    start = time.monotonic()
    assert link.run("sleep 0.05; echo 1", feed=heartbeats(), limit_s=30).out == b"1\n"
    assert time.monotonic() - start < 2


def test_what_holds_the_pipes_after_the_script_holds_nothing(
    link: ssh.SSHLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "LINGER_S", 0.2)
    start = time.monotonic()
    assert link.run("sleep 8 & echo 1", limit_s=30).out == b"1\n"
    assert time.monotonic() - start < 2


def test_noise_of_start_files_is_not_the_scripts(fake: Callable[..., Path]) -> None:
    fake(client="echo Welcome; printf 'no newline'; echo locale >&2; exec /bin/sh")
    with connect() as link:
        done = link.run("echo 1", limit_s=5)
        assert (done.status, done.out) == (0, b"1\n")


def test_the_time_of_a_script_is_limited(link: ssh.SSHLink) -> None:
    start = time.monotonic()
    with pytest.raises(SetupError, match="in time") as error:
        link.run("sleep 30", limit_s=0.2)
    assert not isinstance(error.value, LinkLost) and time.monotonic() - start < 3


def test_without_the_end_mark_the_link_was_lost(fake: Callable[..., Path]) -> None:
    begin = r"sed -n 's/.*%s.n. \(smol[^;]*\);.*/\n\1/p' | head -2"
    fake(client=f"echo 'Connection to board closed by remote host.' >&2; {begin}; exit 0")
    with connect() as link, pytest.raises(LinkLost, match="before the script did") as error:
        link.run("echo 1", limit_s=5)
    assert "closed by remote host" in str(error.value)


def test_a_shell_that_is_none_is_a_lost_link_with_its_words(fake: Callable[..., Path]) -> None:
    fake(client="echo 'This account is currently not available.'; exit 1")
    with connect() as link, pytest.raises(LinkLost, match="not available"):
        link.run("echo 1", limit_s=5)


def test_a_connection_that_has_ended_is_a_lost_link(fake: Callable[..., Path]) -> None:
    fake(
        master=STANDS.replace(
            "signal.pause()", 'import time; time.sleep(0.2); sys.exit("Timeout, server not responding.")'
        )
    )
    with connect() as link, pytest.raises(LinkLost, match="not responding"):
        link.run("true", limit_s=5)
        assert link._master.gone(5)  # type: ignore[attr-defined]
        link.run("true", limit_s=5)


def test_files_go_and_come_back(link: ssh.SSHLink, tmp_path: Path) -> None:
    source, there, back = tmp_path / "a ü", f"{tmp_path}/there/b", tmp_path / "back"
    (tmp_path / "there").mkdir()
    for size in (0, 1, (1 << 20) + 3):
        source.write_bytes(os.urandom(size))
        link.push(source, there)
        link.pull(there, back)
        assert back.read_bytes() == source.read_bytes() == Path(there).read_bytes()
    assert sorted(p.name for p in tmp_path.rglob("*.part")) == []


def test_files_that_cannot_be_written_or_read(link: ssh.SSHLink, tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"1")
    with pytest.raises(SetupError, match="ssh://board: push"):
        link.push(source, f"{tmp_path}/nowhere/b")
    with pytest.raises(SetupError, match="ssh://board: pull"):
        link.pull(f"{tmp_path}/nowhere", tmp_path / "b")
    with (tmp_path / "a").open("r+b") as file:
        file.truncate(1 << 40)  # a hole
    with pytest.raises(SetupError, match="too large to be one of ours"):
        link.pull(f"{tmp_path}/a", tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["a"]


def test_nothing_is_passed_that_the_uri_does_not_name(fake: Callable[..., Path]) -> None:
    log = fake()
    for text in ("ssh://board", "ssh://pi@[fe80::1%25eth0]:2222"):
        with connect(text) as link:
            link.run("true", limit_s=5)
    lines = [
        line for line in log.read_text().splitlines() if not line.startswith("-G|")
    ]  # which looks, and does nothing
    first, client, second, _ = lines
    assert "|-p|" not in first and "|-l|" not in first and first.endswith("|--|board|")
    assert client.endswith("|/bin/sh|") and "|ControlMaster=no|" in client
    assert "|-l|pi|-p|2222|" in second and second.endswith("|--|fe80::1%eth0|")


def test_the_control_socket_has_a_short_path(
    fake: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log, long = fake(), tmp_path / ("l" * 120)
    long.mkdir()
    monkeypatch.setenv("HOME", str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    with connect():
        pass
    socket = re.search(r"\|-S\|([^|]*)\|", log.read_text())
    assert socket and len(socket[1]) + 17 < 90
    assert not Path(socket[1]).parent.exists()


def processes(word: str) -> list[bytes]:
    """The words of all processes that have this one."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_bytes())
    return [words for words in found if word.encode() in words]


def test_nothing_is_left_after_close(fake: Callable[..., Path], tmp_path: Path) -> None:
    fake()
    link = connect()

    def late() -> None:
        with pytest.raises(SetupError):
            link.run("sleep 20", limit_s=0.4)

    thread = threading.Thread(target=late)
    thread.start()
    time.sleep(0.1)
    socket = str(link._master.socket)
    assert processes(socket)
    link.close()
    link.close()
    thread.join()
    assert processes(socket) == []


@pytest.mark.real  # a second Python, and waiting
def test_nothing_is_left_after_the_harness_was_killed(fake: Callable[..., Path]) -> None:
    log = fake()
    code = (
        "from smolship.tools.devices import ssh; from smolship.tools.devices.uri import parse; import time\n"
        "link = ssh.connect(parse('ssh://board'), ask=False); print(link._master.socket, flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout
    socket = child.stdout.readline().strip()
    assert processes(socket) and log.exists()
    child.send_signal(signal.SIGKILL)
    child.wait()
    deadline = time.monotonic() + 5
    while (processes(socket) or Path(socket).parent.exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(socket) == [] and not Path(socket).parent.exists()


def test_the_callers_standard_input_is_not_read(fake: Callable[..., Path], tmp_path: Path) -> None:
    fake(master="cat >>{folder}/read; ".replace("{folder}", str(tmp_path)) + STANDS, client="exec /bin/sh")
    read, write = os.pipe()
    os.write(write, b"the caller's")
    kept = os.dup(0)
    try:
        os.dup2(read, 0)
        with connect() as link:
            link.run("cat", limit_s=5)
    finally:
        os.dup2(kept, 0)
    assert os.read(read, 100) == b"the caller's"
    assert (tmp_path / "read").read_bytes() == b""


RESET = "kex_exchange_identification: read: Connection reset by peer"


def test_a_reset_before_authentication_is_tried_three_times_again(fake: Callable[..., Path], tmp_path: Path) -> None:
    count = tmp_path / "count"
    log = fake(master=f'echo x >>{count}; [ $(wc -l <{count}) -gt 3 ] || {{ echo "{RESET}" >&2; exit 255; }}; {STANDS}')
    with connect() as link:
        assert link.run("echo 1", limit_s=5).out == b"1\n"
    log.unlink()
    log = fake(master=f'echo "{RESET}" >&2; exit 255')
    with pytest.raises(SetupError, match="four times"):
        connect()
    assert len(log.read_text().splitlines()) == 4


def test_a_refusal_is_not_tried_again(fake: Callable[..., Path]) -> None:
    log = fake(master="echo 'pi@board: Permission denied (publickey,password).' >&2; exit 255")
    with pytest.raises(SetupError, match="ssh-copy-id board") as error:
        connect()
    assert "a password" in str(error.value) and error.value.exit_code == 3
    assert sum("|-M|" in line for line in log.read_text().splitlines()) == 1


def test_a_key_with_a_passphrase_is_named(fake: Callable[..., Path], tmp_path: Path) -> None:
    key = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)], check=True)
    fake(master="echo 'pi@board: Permission denied (publickey).' >&2; exit 255")
    (tmp_path / "fake" / "identities").write_text(f"user pi\nidentityfile {key}\n")
    with pytest.raises(SetupError, match=f"ssh-add {key}") as error:
        connect()
    assert "passphrase" in str(error.value)


def test_silence_has_an_end(fake: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    fake(master="sleep 60")
    monkeypatch.setattr(ssh, "SLOWEST_S", 0.1)
    start = time.monotonic()
    with pytest.raises(SetupError, match="no answer"):
        connect()
    assert time.monotonic() - start < 5


def test_without_ssh() -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SetupError, match="ssh cannot be started"):
        patch.setenv("PATH", "/nonexistent")
        connect()


CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
The fingerprint for the ED25519 key sent by the remote host is
SHA256:9c7V1YMvHkFHIzVsZ1lbfYnNpDjvkbPOHgC7dDsb3nE.
Please contact your system administrator.
Add correct host key in KNOWN to get rid of this message.
Offending ED25519 key in KNOWN:2
  remove with:
  ssh-keygen -f "KNOWN" -R "[127.0.0.1]:2222"
Host key for [127.0.0.1]:2222 has changed and you have requested strict checking.
Host key verification failed.
"""


def test_a_changed_host_key_shows_both_fingerprints(tmp_path: Path) -> None:
    key, known = tmp_path / "id", tmp_path / "known"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text().split()
    known.write_text(f"# a comment\n[127.0.0.1]:2222 {public[0]} {public[1]}\n")
    listed = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], capture_output=True, text=True, check=True).stdout
    said = CHANGED.replace("KNOWN", str(known))
    error = ssh_errors.explain(parse("ssh://127.0.0.1:2222"), said, ssh_errors.Identity(), None, False)
    assert "SHA256:9c7V1YMvHkFHIzVsZ1lbfYnNpDjvkbPOHgC7dDsb3nE from" in str(error)
    assert listed.split()[1] in str(error)
    assert f"ssh-keygen -f {known} -R '[127.0.0.1]:2222'" in str(error)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Host key verification failed.", "ssh-keyscan -p 2222 board"),
        ("ssh: Could not resolve hostname board: Name or service not known", "no such host"),
        ("ssh: connect to host board port 2222: Connection timed out", "no answer"),
        ("Connection timed out during banner exchange\nConnection to board port 2222 timed out", "no answer"),
        ("ssh: connect to host board port 2222: Connection refused", "fail2ban.*ssh -v -p 2222 pi@board"),
        ("ssh: connect to host board port 2222: No route to host", "cannot be reached from here"),
        ("ssh: connect to host fe80::1 port 2222: Invalid argument", "needs the interface"),
        ("/home/u/.ssh/config: line 3: Bad configuration option: foo", "Bad configuration option"),
        ("Received disconnect from board port 2222:2: Too many authentication failures", "none of our keys|keys in"),
    ],
)
def test_what_ssh_says_has_a_cure(said: str, words: str) -> None:
    error = ssh_errors.explain(parse("ssh://pi@board:2222"), said, ssh_errors.Identity(), None, False)
    assert re.search(words, str(error)) and "ssh://pi@board:2222: connect" in str(error) and "to do" in str(error)
    assert not ssh_errors.was_reset(said)


POST_QUANTUM = """** WARNING: connection is not using a post-quantum key exchange algorithm.\r
** This session may be vulnerable to "store now, decrypt later" attacks.\r
** The server may need to be upgraded. See https://openssh.com/pq.html\r
"""  # OpenSSH 10.1, before whatever else it says


@pytest.mark.parametrize(
    "said",
    [
        "pi@board: Permission denied (publickey).",
        "kex_exchange_identification: read: Connection reset by peer",
        "ssh: connect to host board port 22: Connection refused",
        "Host key verification failed.",
        CHANGED.replace("KNOWN", "/nonexistent"),
    ],
)
def test_a_warning_before_it_changes_nothing(said: str) -> None:
    warned = POST_QUANTUM.replace("\r", "") + said
    none = ssh_errors.Identity()
    errors = [str(ssh_errors.explain(parse("ssh://pi@board"), text, none, None, False)) for text in (said, warned)]
    assert errors[0] == errors[1] and ssh_errors.was_reset(said) == ssh_errors.was_reset(warned)


def test_resets_are_told_from_what_is_none() -> None:
    for said in (
        RESET,
        "kex_exchange_identification: Connection closed by remote host\nConnection closed by 10.0.0.9 port 22",
        "ssh_exchange_identification: Connection closed by remote host",
        "Connection reset by 10.0.0.9 port 22",
    ):
        assert ssh_errors.was_reset(said)


def test_a_socket_folder_is_the_users_alone() -> None:
    folder = ssh_master.socket_folder()
    try:
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        folder.rmdir()


@pytest.mark.parametrize(
    ("uri", "host", "folder"),
    [
        ("ssh://pi@board:22/mnt/ssd", "board", "/mnt/ssd"),
        ("ssh://board/", "board", ""),
        ("ssh://[fe80::1%25eth0]/mnt/a.b-c_d/", "fe80::1%eth0", "/mnt/a.b-c_d"),
        ("adb:///data/local/tmp/x", "", "/data/local/tmp/x"),
        ("adb://192.168.1.5:5555/data/local/tmp", "", "/data/local/tmp"),
    ],
)
def test_a_name_may_have_a_folder(uri: str, host: str, folder: str) -> None:
    found = parse(uri)
    assert (found.uri, found.host, found.folder) == (uri, host, folder)


@pytest.mark.parametrize("uri", ["ssh://pi/a b", "ssh://pi/mnt/../etc", "ssh://pi/$(x)", "adb://x/a;b", "ssh://pi/é"])
def test_a_folder_that_would_need_quoting_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="a folder of letters"):
        parse(uri)


@pytest.mark.parametrize(
    ("given", "user"),
    [
        ("CORP%5Cpi", "CORP\\pi"),
        ("pi@corp.example", "pi@corp.example"),
        ("pi%40corp.example", "pi@corp.example"),
        ("a+b", "a+b"),
    ],
)
def test_users_of_a_directory(fake: Callable[..., Path], given: str, user: str) -> None:
    log = fake()
    with connect(f"ssh://{given}@board"):
        pass
    assert f"-l|{user}|" in log.read_text()
    assert ssh_errors.where(parse(f"ssh://{given}@board")) in (f"{user}@board", f"'{user}@board'")


@pytest.mark.parametrize("user", ["-l", "a%20-o", "a%0Ab", "%24(id)", "a%5C", "a%60b", "a;b", "", "a%00"])
def test_users_that_are_none(user: str) -> None:
    with pytest.raises(InputError, match="not the name of a device"):
        parse(f"ssh://{user}@board")


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="ssh-copy-id pi@board") as error:
        parse("ssh://pi:secret@board")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("given", ["", "/mnt/ssd"])
def test_the_folder_of_a_name_is_the_only_one(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "read_device", lambda link, folders: folders)
    found = opening.look(None, parse(f"ssh://board{given}"))  # type: ignore[arg-type]
    assert found == (("/mnt/ssd/smolship",) if given else FOLDERS)  # type: ignore[comparison-overlap]
