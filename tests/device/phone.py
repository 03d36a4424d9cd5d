"""A phone's root: busybox's small tools, no Python, no /tmp, and only /data/local/tmp can be written."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

LEFT_OUT = {"ash", "bash", "python", "unshare", "chroot", "mount", "umount", "nsenter", "adduser", "wget", "hush", "vi"}
GETPROP = """#!/system/bin/sh
case "$1" in
ro.product.model) echo 'Pixel 8' ;;
ro.soc.model) echo 'Tensor G3' ;;
ro.build.version.release) echo 15 ;;
ro.build.version.sdk) echo 35 ;;
ro.product.cpu.abi) case $(uname -m) in aarch64) echo arm64-v8a ;; *) uname -m ;; esac ;;
ro.serialno) echo 41021FDJH000PL ;;
'') printf '%s\\n' '[ro.product.model]: [Pixel 8]' '[ro.build.version.sdk]: [35]' ;;
*) echo ;;
esac
"""
DUMPSYS = """#!/system/bin/sh
case "$1" in
battery) printf '%s\\n' 'Current Battery Service state:' '  AC powered: false' '  USB powered: true' '  level: 87' \\
    '  scale: 100' '  voltage: 4213' '  temperature: 291' ;;
thermalservice) printf '%s\\n' 'IsStatusOverride: false' 'Thermal Status: 0' 'HAL Ready: true' \\
    'Current temperatures from HAL:' '\tTemperature{mValue=41.5, mType=0, mName=BIG, mStatus=0}' ;;
*) echo "Can't find service: $1" ;;
esac
"""
# A read-only view of the root, with processes of its own; then the shell that adbd starts.
ENTER = """mount --bind "$0" "$0" && mount --bind "$0/data/local/tmp" "$0/data/local/tmp" &&
mount -o remount,ro,bind "$0" && mount -t proc proc "$0/proc" && mount --bind /dev/null "$0/dev/null" &&
cd "$0" && exec chroot "$0" /system/bin/env -i PATH=/system/bin ANDROID_DATA=/data HOME=/ sh -c "$1"
"""


def make_root(folder: Path, busybox: Path | None = None, shell: Path | None = None) -> Path:
    """A root in a folder.

    busybox  a static one, of the phone's machine; None: this machine's
    shell    what is /system/bin/sh; None: busybox

    Raises FileNotFoundError without busybox-static.
    """
    here = shutil.which("busybox")
    if here is None:
        raise FileNotFoundError("busybox; tests need Debian's busybox-static")
    tools = folder / "system/bin"
    for name in ("system/bin", "data/local/tmp", "proc", "sys", "dev"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "dev/null").touch()
    shutil.copy(busybox or here, tools / "busybox")
    applets = subprocess.run([here, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in set(applets) - LEFT_OUT - {"busybox"}:
        (tools / applet).symlink_to("busybox")
    if shell:
        (tools / "sh").unlink()
        shutil.copy(shell, tools / "sh")
    for name, text in (("getprop", GETPROP), ("dumpsys", DUMPSYS)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return folder


def enter(root: Path) -> list[str]:
    """The words before the text of a command."""
    spaces = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
    return [*spaces, "/bin/sh", "-c", ENTER, str(root)]
