"""manifest.json: manifests that manifest.read_manifest accepts or refuses, and what check_files says of files.

manifest  the file's content: an object, or a text that is no JSON object or would not survive being one (1.0 for 1);
          "hex": bytes of the file instead
accepted  and, where it is, `read`: what an app needs of it; a target's `digest` is what results name as their artifact
          (artifact.py), of the files that are listed. `why`: what is refused
brought   of an accepted one, whether its files can be copied or downloaded to a device (`together` below); `read` then
          has their `bytes`
files     of a bundle: path → text; where they are given, `problems`: path → "size", "sha256", "missing" or "unlisted",
          below the folder `below` ("": all)
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

from smolship.runtime.artifact import listed_digest
from smolship.runtime.errors import InputError
from smolship.runtime.manifest import NAME, Manifest, check_files, read_manifest
from tests.apps.manifest_given import ABSENT, ACCEPTED, CHECKS, GOOD, RAW, REFUSED

MOST_FILES, MOST_BYTES = 10_000, 1 << 50
Case = dict[str, Any]


def cases() -> list[Case]:
    found = [case(name, changed(places)) for name, places in ACCEPTED + REFUSED]
    found += [case(name, raw) for name, raw in RAW.items()]
    kinds = {name: True for name, _ in ACCEPTED} | dict.fromkeys([*RAW, *(name for name, _ in REFUSED)], False)
    assert not [one["name"] for one in found if one["accepted"] != kinds[one["name"]]]
    found += [checked(*check) for check in CHECKS]
    assert len({one["name"] for one in found}) == len(found)
    return found


def changed(places: list[tuple[str, Any]]) -> dict[str, Any]:
    """GOOD with other values in these places."""
    made = copy.deepcopy(GOOD)
    for place, value in places:
        parent: Any = made
        *way, last = (place,) if place in made else _way(place)
        for key in way:
            parent = parent[int(key) if isinstance(parent, list) else key]
        if value is ABSENT:
            del parent[last]
        else:
            parent[last] = value
    return made


def _way(place: str) -> list[str]:
    head, _, rest = place.partition(".")
    if head != "files":
        return place.split(".")
    name, _, key = rest.rpartition(".")
    return [head, name, key]


def case(name: str, content: dict[str, Any] | str | bytes) -> Case:
    with tempfile.TemporaryDirectory() as folder:
        told = _read(Path(folder), content)
    given = {"hex": content.hex()} if isinstance(content, bytes) else {"manifest": content}
    return {"name": name, **given, **told}


def checked(name: str, listed: dict[str, Any], files: dict[str, str], below: str) -> Case:
    content = GOOD | {"files": listed}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(text.encode())
        told = _read(root, content)
        problems = dict(map(_problem, check_files(root, read_manifest(root), below)))
    return {"name": name, "manifest": content, **told, "files": files, "below": below, "problems": problems}


def _problem(line: str) -> tuple[str, str]:
    name, _, rest = line.removeprefix("no ").partition(": ")
    if line.startswith("no "):
        return name.partition(";")[0], "missing"
    return name, {"its": "sha256", "not": "unlisted"}.get(rest.split()[0], "size")


def _read(root: Path, content: dict[str, Any] | str | bytes) -> Case:
    if isinstance(content, dict):
        content = json.dumps(content)
    (root / NAME).write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        manifest = read_manifest(root)
    except InputError as error:
        return {"accepted": False, "why": error.parts()["what"]}
    brought = together(manifest)
    total = {"bytes": sum(file.size for file in manifest.files.values())} if brought else {}
    return {"accepted": True, "read": _facts(manifest) | total, "brought": brought}


def together(manifest: Manifest) -> bool:
    """Whether the files can lie beside each other and beside the manifest on any file system, those that do not tell
    case or the spellings of an accent apart too, and have hashes and sizes that files have."""
    names = [unicodedata.normalize("NFD", name).lower() for name in [*manifest.files, NAME]]
    folders = {name[: match.start()] for name in names for match in re.finditer("/", name)}
    sizes = [file.size for file in manifest.files.values()]
    return (
        len(set(names)) == len(names) <= MOST_FILES + 1
        and not folders.intersection(names)
        and all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in manifest.files.values())
        and min(sizes, default=0) >= 0
        and sum(sizes) < MOST_BYTES
    )


def _below(manifest: Manifest, folder: str) -> dict[str, str]:
    return {name.removeprefix(folder): one.sha256 for name, one in manifest.files.items() if name.startswith(folder)}


def _facts(manifest: Manifest) -> dict[str, Any]:
    facts, sampling = manifest.generation, manifest.generation.sampling.sampling()
    return {
        "vocab": manifest.model.vocab,
        "context": manifest.context,
        "end_ids": list(facts.end_ids),
        "bos": facts.bos,
        "adds_bos": facts.adds_bos,
        "special_tokens": facts.special_tokens,
        "sampling": {
            name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        },
        "template": facts.template,
        "targets": {
            name: {
                "engine": entry.engine,
                "path": f"{entry.folder}/{entry.info['file']}",
                "digest": listed_digest(_below(manifest, entry.folder + "/"), entry.info["file"]),
            }
            for name, entry in manifest.targets.items()
        },
    }
