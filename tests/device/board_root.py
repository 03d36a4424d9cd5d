"""The emulated board's root file system and Python wheels for it, made once and kept in .cache.

python -m tests.device.board_root"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from smolship.runtime.errors import SetupError
from tests.device.board_files import VCGENCMD
from tests.device.ssh_client import need

CACHE = Path(__file__).parents[2] / ".cache"
SUITE, UID = "bookworm", 1000
HOOKS = "/usr/share/mmdebstrap/hooks/merged-usr"
PACKAGES = (
    "bash,coreutils,dash,findutils,grep,gzip,hostname,libc-bin,libgomp1,libpython3-stdlib,libstdc++6,mawk,mount,"
    "openssh-server,openssh-sftp-server,procps,python3-minimal,sed,tar,util-linux"
)
TEXTS = {  # what the packages' own scripts would write, were they run
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
    f"pi:x:{UID}:{UID}::/home/pi:/bin/bash\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
    "etc/group": f"root:x:0:\ntty:x:5:\npi:x:{UID}:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\npi:*:19000:0:99999:7:::\nsshd:!:19000::::::\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/hostname": "raspberrypi\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    "usr/bin/vcgencmd": VCGENCMD,
}
FOLDERS = ("opt", "srv", "mnt", "media")
DROPPED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")
TAGS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
LIKE_HERE = ("numpy", "onnxruntime")  # the same versions as on this machine
WHEELS = ("flatbuffers", "packaging", "protobuf", "diskcache", "jinja2", "markupsafe", "typing-extensions")


def board_root() -> Path:
    """The root's folder, made if it is not there (about 10 s). Raises SetupError where it cannot be made."""
    root = CACHE / f"board-{hashed([SUITE, PACKAGES, TEXTS, FOLDERS, DROPPED])}"
    if not root.exists():
        with tempfile.TemporaryDirectory(dir=cache(), prefix="board-new-") as work:
            _make(Path(work) / "root")
            keep(Path(work) / "root", root)
    return root


def wheelhouse() -> Path:
    """A folder of aarch64 wheels for the board's Python 3.11, fetched if it is not there. Raises SetupError."""
    wanted = [*(f"{name}=={version(name)}" for name in LIKE_HERE), *WHEELS]
    folder = CACHE / f"wheels-aarch64-{hashed([wanted, TAGS])}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache(), prefix="wheels-new-") as work:
            tags = [word for tag in TAGS for word in ("--platform", tag)]
            tags += [
                "--python-version",
                "3.11",
                "--implementation",
                "cp",
                "--abi",
                "cp311",
                "--abi",
                "abi3",
                "--abi",
                "none",
            ]
            into = Path(work) / "wheels"
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *tags]
            _run(
                [*command, "--dest", str(into), *wanted],
                "wheels for the emulated board",
                "check pip's index and network",
            )
            keep(into, folder)
    return folder


def extract(root: Path, packages: str, what: str) -> None:
    """Packages of arm64, and what they depend on, unpacked into a folder. Raises SetupError."""
    need("qemu-aarch64-static")
    command = [need("mmdebstrap"), "--quiet", "--variant=extract", "--arch=arm64", "--skip=check/qemu"]
    command += [
        '--aptopt=APT::Install-Recommends "false"',
        f"--hook-dir={HOOKS}",
        f"--include={packages}",
        SUITE,
        str(root),
    ]
    _run(command, what, "run as root, with Debian's packages within reach: tests/device/install")


def _make(root: Path) -> None:
    extract(root, PACKAGES, "the emulated board's root")
    for name in DROPPED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in FOLDERS:
        (root / name).mkdir(exist_ok=True)
    for name, text in TEXTS.items():
        (root / name).write_text(text)
    (root / "usr/bin/vcgencmd").chmod(0o755)
    (root / "usr/bin/awk").symlink_to("mawk")


def _run(command: list[str], what: str, todo: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = "\n".join(done.stderr.strip().splitlines()[-2:])  # what is before says what was going well
        raise SetupError(f"{what} could not be made", got=last, todo=todo)


def keep(made: Path, place: Path) -> None:
    made.chmod(0o755)
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():  # else another process was faster
            raise


def cache() -> Path:
    CACHE.mkdir(exist_ok=True)
    return CACHE


def hashed(recipe: object) -> str:
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]


if __name__ == "__main__":
    try:
        print(board_root(), wheelhouse(), sep="\n")
    except SetupError as error:
        sys.exit(str(error))
