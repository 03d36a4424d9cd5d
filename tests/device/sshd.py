"""SSH servers with the quirks of real boards, for tests of the link: this machine's sshd on a loopback port.

It runs in mount and process namespaces of its own, where /etc/passwd, /home and /run are the test's: any login shell,
any start file, and nothing of this machine changes. Between it and the client is a proxy that counts connections and
resets, stalls or cuts them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from smolship.runtime.errors import SetupError
from tests.device.proxy import Proxy, free_port
from tests.device.spaces import end
from tests.device.ssh_client import ALIAS, client_files, client_programs, make_keys, need

USER = "pi"
HERE = Path("/run/smolship")  # the server's folder, as the server sees it
SFTP = Path("/usr/lib/openssh/sftp-server")
START_FILES = {"bash": ".bashrc", "fish": ".config/fish/config.fish", "csh": ".cshrc", "tcsh": ".cshrc"}
NOISE = "sh -c 'echo Welcome to this board; echo a warning >&2'\n"  # in the words of every shell
START_S, LISTENING = 10.0, ("Server listening", "Not backgrounding")  # the latter is dropbear's word


@dataclass(frozen=True)
class Server:
    """A running server.

    ssh_config  for `ssh -F`: the key, the known hosts, and "board", an alias of this server
    clients     a folder for the front of PATH: ssh, sftp and scp that read that file
    home        the user's home folder as this machine sees it; to the server it is /home/pi
    log         what sshd wrote
    proxy       counts of connections and bytes; stall(), resume(), cut()
    """

    host: str
    port: int
    user: str
    ssh_config: Path
    clients: Path
    home: Path
    log: Path
    proxy: Proxy
    alias: str = ALIAS

    @property
    def uri(self) -> str:
        place = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        return f"ssh://{self.user}@{place}:{self.port}"


@contextmanager
def sshd(
    *,
    server: str = "sshd",
    shell: str = "bash",
    start: str = "",
    banner: str = "",
    sftp: str = "yes",
    missing: Sequence[str] = (),
    bin_sh: str = "",
    password: str = "",
    passphrase: str = "",
    host_key: str = "known",
    host: str = "127.0.0.1",
    uid: int | None = None,
    tmpfs: Mapping[str, str] | None = None,
    server_options: Mapping[str, str] | None = None,
    client_options: Mapping[str, str] | None = None,
    client_noise: str = "",
    silent: bool = False,
    resets: int = 0,
    cut_after: int | None = None,
    cuts: int = 1,
    stall_after: int | None = None,
) -> Iterator[Server]:
    """A server; without quirks an everyday one.

    server          "sshd", or "dropbear", where there is no sftp-server and no scp, and sftp, missing, password and
                    server_options say nothing
    shell           the login shell: sh, bash, dash, ash (busybox), fish, csh, tcsh
    start           text of the shell's start file, such as NOISE; of ~/.ssh/rc where the shell reads none
    banner          text before authentication
    sftp            "yes", "no", or "broken": the subsystem ends at once
    missing         programs that are not on the server's PATH, such as scp, sha256sum, timeout
    bin_sh          "busybox": the server's /bin/sh is busybox's, which finds its own programs before those of PATH
    password        no key is taken, only this password
    passphrase      of the client's key
    host_key        "known", "unknown", or "changed": known_hosts has another one
    host            "127.0.0.1" or another address of this machine, such as "::1" or "fe80::…%eth0"
    uid             the user's; this process's own where not given. Another one needs root
    tmpfs           folders of the server that are file systems of their own, with their mount options, such as
                    {"/home/pi": "size=1m"} or {"/tmp": "noexec"}
    server_options  further lines of sshd_config; they come first, so they win
    client_options  further lines of ssh_config; they come first, so they win
    client_noise    what the programs of Server.clients print to stderr
    silent          no server: a port that accepts and stays silent
    resets          so many connections at first are reset before a word
    cut_after       a connection is reset after so many bytes both ways, `cuts` times
    stall_after     nothing goes on after so many bytes both ways

    Raises SetupError where a program is missing or the server does not start."""
    owner = os.getuid() if uid is None else uid
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smolship-sshd-")))
        folder.chmod(0o755)
        make_keys(folder, passphrase)
        _make_home(folder / "home", shell, start, owner)
        _make_accounts(folder, _login_shell(folder, shell), password, owner)
        (folder / "banner").write_text(banner)
        target = None
        if not silent:
            port, mounts = free_port(host), _mounts(folder, bin_sh, tmpfs or {})
            if server == "dropbear":
                mounts += [f"mount --bind /dev/null {program}" for program in (SFTP, need("scp"))]
                command = _dropbear(folder, host, port, owner)
            else:
                lines = _config(folder, banner, sftp, missing, password, server_options or {})
                config = "\n".join([*lines, f"Port {port}", f"ListenAddress {host}"]) + "\n"
                (folder / "sshd_config").write_text(config)
                command = f"{need('sshd')} -D -e -f {HERE}/sshd_config"
            stack.enter_context(_running(folder, mounts, command))
            target = port
        proxy = Proxy(host, target, resets=resets, cut_after=cut_after, cuts=cuts, stall_after=stall_after)
        stack.callback(proxy.close)
        ssh_config = client_files(folder, host, proxy.port, USER, host_key, client_options)
        clients = client_programs(folder, ssh_config, client_noise)
        yield Server(host, proxy.port, USER, ssh_config, clients, folder / "home", folder / "log", proxy)


def _make_home(home: Path, shell: str, start: str, uid: int) -> None:
    home.mkdir(mode=0o700)
    if start:
        file = home / START_FILES.get(shell, ".ssh/rc")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(start)
    for path in (home, *home.rglob("*")):
        os.chown(path, uid, -1)


def _login_shell(folder: Path, shell: str) -> str:
    if shell != "ash":
        return need(shell)
    (folder / "ash").symlink_to(need("busybox"))
    return str(HERE / "ash")


def _make_accounts(folder: Path, shell: str, password: str, uid: int) -> None:
    command = ["openssl", "passwd", "-6", "-stdin"]
    mark = "*"
    if password:
        need("openssl")
        mark = subprocess.run(command, input=password, capture_output=True, text=True, check=True).stdout.strip()
    group = os.getgid() if uid == os.getuid() else uid
    rows = [f"{USER}:{mark}:{uid}:{group}::/home/{USER}:{shell}"]
    rows += [
        "root:*:0:0::/root:/bin/sh",
        "sshd:*:64999:65534::/run/sshd:/bin/false",
        "nobody:*:65534:65534::/:/bin/false",
    ]
    (folder / "passwd").write_text("\n".join(rows) + "\n")
    (folder / "shells").write_text(f"/bin/sh\n{shell}\n")
    (folder / "shadow").write_text("")  # so that the passwords are those of passwd


def _config(
    folder: Path, banner: str, sftp: str, missing: Sequence[str], password: str, options: Mapping[str, str]
) -> list[str]:
    lines = [f"{name} {value}" for name, value in options.items()]
    lines += [f"HostKey {HERE}/host_key", f"AuthorizedKeysFile {HERE}/authorized_keys", f"PidFile {HERE}/pid"]
    lines += ["StrictModes no", "UsePAM no", "PermitRootLogin yes", "PrintMotd no", "AcceptEnv LANG LC_*"]
    lines += [
        f"PasswordAuthentication {'yes' if password else 'no'}",
        f"PubkeyAuthentication {'no' if password else 'yes'}",
    ]
    lines += ["KbdInteractiveAuthentication no"]
    if banner:
        lines.append(f"Banner {HERE}/banner")
    if sftp != "no":
        lines.append(f"Subsystem sftp {SFTP if sftp == 'yes' else '/bin/false'}")
    if missing:
        _link_programs(folder / "bin", missing)
        lines.append(f"SetEnv PATH={HERE}/bin")
    return lines


def _link_programs(folder: Path, missing: Sequence[str]) -> None:
    """A folder of links to all programs of this machine but the missing ones."""
    folder.mkdir()
    for place in ("/usr/bin", "/bin"):
        for program in Path(place).iterdir():
            link = folder / program.name
            if program.name not in missing and not link.is_symlink():
                link.symlink_to(program)


def _dropbear(folder: Path, host: str, port: int, uid: int) -> str:
    """Dropbear's command, with the keys where it looks for them."""
    convert = [need("dropbearconvert"), "openssh", "dropbear", str(folder / "host_key"), str(folder / "dropbear_key")]
    subprocess.run(convert, check=True, capture_output=True)
    keys = folder / "home" / ".ssh" / "authorized_keys"
    keys.parent.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(folder / "authorized_keys", keys)
    for path in (keys.parent, keys):
        os.chown(path, uid, -1)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{need('dropbear')} -F -E -s -r {HERE}/dropbear_key -p {place} -b {HERE}/banner"


@contextmanager
def _running(folder: Path, mounts: Sequence[str], server: str) -> Iterator[None]:
    """A server in namespaces of its own. Everything that it started ends with it."""
    if os.getuid() != 0:  # root only for the mounts
        server = f"unshare --user --map-user={os.getuid()} --map-group={os.getgid()} {server}"
    (folder / "start").write_text("\n".join([*mounts, "cd /", f"exec {server}"]) + "\n")
    root = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    space = [need("unshare"), *root, "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
    command = [need("setpriv"), "--pdeathsig", "KILL", *space, "/bin/sh", "-e", str(folder / "start")]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + START_S
        while not any(word in (said := log.read_text(errors="replace")) for word in LISTENING):
            if process.poll() is not None or time.monotonic() > deadline:
                expected = "mount namespaces and a loopback port"
                raise SetupError(
                    "the SSH server did not start", got=" ".join(said.splitlines()[-3:]), expected=expected
                )
            time.sleep(0.02)
        yield
    finally:
        end(process)


def _mounts(folder: Path, bin_sh: str, tmpfs: Mapping[str, str]) -> list[str]:
    """The commands that make the server's view of the file system."""
    lines = [
        f"mount --bind {shlex.quote(str(folder))} /mnt",
        "mount -t tmpfs -o mode=755 tmpfs /run",
        f"mkdir /run/sshd {HERE}",
        f"mount --move /mnt {HERE}",
        "mount -t tmpfs -o mode=755 tmpfs /home",
        f"mkdir /home/{USER}",
        f"mount --bind {HERE}/home /home/{USER}",
        *(f"mount --bind {HERE}/{name} /etc/{name}" for name in ("passwd", "shadow", "shells")),
    ]
    if bin_sh:
        lines.append(f"mount --bind {shlex.quote(need(bin_sh))} {os.path.realpath('/bin/sh')}")
    for place, options in tmpfs.items():
        lines.append(f"mount -t tmpfs -o {shlex.quote(options)} tmpfs {shlex.quote(place)}")
    return lines
