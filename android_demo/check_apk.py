"""The parts of android_demo/check_apk that are about bytes:

check_apk.py platform JMOD JAR            Java's own classes in a version of the format that ProGuard reads
check_apk.py pack RESOURCES DEX APK       resources and classes in one archive
check_apk.py look APK MANIFEST            says what is in it; refused where a class of the manifest is not
"""

from __future__ import annotations

import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

READABLE = 52  # the version of Java 8's class files
NAME = "{http://schemas.android.com/apk/res/android}name"
PACKAGE = "dev/smolship/demo"


def platform(jmod: Path, jar: Path) -> None:
    """Newer class files differ in attributes, which ProGuard passes over in classes that it only looks up."""
    with zipfile.ZipFile(jmod) as source, zipfile.ZipFile(jar, "w") as made:
        for name in source.namelist():
            if name.startswith("classes/java/") and name.endswith(".class"):
                content = bytearray(source.read(name))
                content[6:8] = READABLE.to_bytes(2, "big")
                made.writestr(name.removeprefix("classes/"), bytes(content))


def pack(resources: Path, dex: Path, apk: Path) -> None:
    """What is compressed in the resources stays so."""
    with zipfile.ZipFile(resources) as source, zipfile.ZipFile(apk, "w") as made:
        for entry in source.infolist():
            made.writestr(entry, source.read(entry), entry.compress_type)
        made.write(dex, "classes.dex", zipfile.ZIP_DEFLATED)


def look(apk: Path, manifest: Path) -> None:
    """Holds the classes that the dex file defines against the manifest's components."""
    with zipfile.ZipFile(apk) as archive:
        names, dex = archive.namelist(), archive.read("classes.dex")
    defined = classes(dex)
    components = [e.attrib[NAME] for e in ElementTree.parse(manifest).iter() if e.tag in ("application", "activity")]
    missing = [name for name in components if f"L{PACKAGE}/{name.lstrip('.')};" not in defined]
    if missing or not components or "resources.arsc" not in names:
        sys.exit(f"the APK lacks classes of its manifest, or resources: {missing}, {sorted(names)[:20]}")
    ours = sum(name.startswith("Ldev/smolship/") for name in defined)
    print(f"APK of {apk.stat().st_size:,} bytes, {len(defined)} classes, {ours} of them the app's, no engine")


def classes(dex: bytes) -> set[str]:
    """Descriptors of the classes that a dex file defines, as its header's tables name them."""
    if dex[:4] != b"dex\n":
        sys.exit("no dex file")
    _, strings, _, types = struct.unpack_from("<4I", dex, 56)
    count, definitions = struct.unpack_from("<2I", dex, 96)
    found = set()
    for i in range(count):
        (kind,) = struct.unpack_from("<I", dex, definitions + 32 * i)
        (text,) = struct.unpack_from("<I", dex, types + 4 * kind)
        (start,) = struct.unpack_from("<I", dex, strings + 4 * text)
        while dex[start] & 0x80:  # the length, in LEB128
            start += 1
        found.add(dex[start + 1 : dex.index(0, start + 1)].decode(errors="replace"))
    return found


if __name__ == "__main__":
    COMMANDS: dict[str, Callable[..., None]] = {"platform": platform, "pack": pack, "look": look}
    COMMANDS[sys.argv[1]](*map(Path, sys.argv[2:]))
