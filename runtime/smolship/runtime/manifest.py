"""manifest.json: what a bundle holds, and the SHA-256 of each of its files. Read as untrusted input."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from smolship.runtime.errors import InputError
from smolship.runtime.facts import Facts, check_model, read_facts
from smolship.runtime.files import inside, is_folder, look, plain_name, read_json, regular_file, relative, sha256

SCHEMA = 2
NAME = "manifest.json"


@dataclass
class TargetEntry:
    """One artifact of the bundle.

    target   format-backend, such as "onnx-cpu"
    engine   what opens it
    folder   where it lies, relative to the bundle
    info     what the target says of it (at least `file`, relative to `folder`), and `weight_bytes_per_token`. Where it
             could not hold some lifted weights as they are, `weights`: the `digest` of the set that it does hold (its
             tensors are listed in weights-TARGET.json), and `rerounded`, reason -> how many matrices were rounded again
    """

    target: str
    engine: str
    folder: str
    info: dict[str, Any]

    @property
    def own_digest(self) -> str | None:
        """The digest of its weights where they are not the bundle's."""
        return self.info["weights"]["digest"] if "weights" in self.info else None

    @property
    def bytes_per_token(self) -> int | None:
        """Weight bytes of the artifact that one decoded token reads; None where the bundle does not say."""
        count = self.info.get("weight_bytes_per_token")
        return count if type(count) is int and count > 0 else None

    def rerounded(self) -> str:
        """What was rounded again for this target, and why, in words; empty where nothing was."""
        if "weights" not in self.info:
            return ""
        counts = self.info["weights"]["rerounded"]
        why = "; ".join(f"{count:,} with {reason}" for reason, count in counts.items())
        return f"{sum(counts.values()):,} lifted matrices were rounded again, as this target cannot hold them: {why}"


@dataclass
class Manifest:
    """See the fields; `model`, `quantization` and `tools` are plain facts for people and reports."""

    model: dict[str, Any]  # source, revision, architecture, layers, vocab, …
    generation: Facts
    context: int  # tokens that the cache holds
    quantization: dict[str, Any]
    weights_digest: str
    weights_bytes: int  # of the set, before a target stores it, that one decoded token reads
    targets: dict[str, TargetEntry]
    tools: dict[str, str]
    steps: dict[str, dict[str, Any]]  # of the export: seconds and peak_bytes of each step's process
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # relative path -> size, sha256
    schema: int = SCHEMA

    def write(self, root: Path) -> None:
        """List every file below `root` and write the manifest there."""
        self.files = {
            path.relative_to(root).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted(root.rglob("*"))
            if path.is_file() and path != root / NAME
        }
        (root / NAME).write_text(json.dumps(asdict(self), indent=1) + "\n")


def read_manifest(root: Path) -> Manifest:
    """The manifest of the bundle `root`. Raises InputError where it is missing, malformed or leads outside."""
    if not is_folder(root, "the bundle"):
        raise InputError("no such bundle", got=root, expected="a folder that `smolship export` wrote")
    if look(root / NAME, NAME) is None:
        raise InputError(
            "not a smolship bundle", got=f"{root} without {NAME}", expected="a folder that `smolship export` wrote"
        )
    raw = read_json(root / NAME, NAME)
    if raw.get("schema") != SCHEMA:
        raise InputError(
            "a bundle of another version",
            got=f"schema {raw.get('schema')!r}",
            expected=SCHEMA,
            todo="export it again with this smolship",
        )
    wanted = {
        "model": dict,
        "generation": dict,
        "context": int,
        "quantization": dict,
        "weights_digest": str,
        "weights_bytes": int,
        "targets": dict,
        "tools": dict,
        "steps": dict,
        "files": dict,
    }
    for key, kind in wanted.items():
        _typed(raw.get(key), kind, key)
    if set(raw) != {*wanted, "schema"}:
        raise InputError(f"{NAME} has unknown keys", got=sorted(set(raw) - {*wanted, "schema"}))
    if not 1 <= raw["context"] <= 1 << 24:
        raise InputError(f"{NAME}: context is out of range", got=raw["context"], expected="1 to 16,777,216")
    check_model(raw["model"])
    raw["generation"] = read_facts(raw["generation"], raw["model"]["vocab"])
    raw["targets"] = {name: _target(name, entry) for name, entry in raw["targets"].items()}
    manifest = Manifest(**raw)
    for name, entry in manifest.targets.items():
        plain_name(name, f"{NAME}: a target's name")
        folder = relative(entry.folder, f"{NAME}: a target's folder")
        file = relative(entry.info["file"], f"{NAME}: a target's file")
        inside(root, f"{folder}/{file}")
    for name, listed in manifest.files.items():
        inside(root, relative(name, f"{NAME}: a file's name"))
        _typed(listed, dict, f"files[{name}]")
        _typed(listed.get("size"), int, f"size of {name}")
        _typed(listed.get("sha256"), str, f"sha256 of {name}")
    return manifest


def _typed(value: Any, kind: type, key: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{NAME}: {key} cannot be used", got=repr(value), expected=f"a value of type {kind.__name__}")


def _target(name: str, entry: Any) -> TargetEntry:
    _typed(entry, dict, f"targets[{name}]")
    for key, kind in {"target": str, "engine": str, "folder": str, "info": dict}.items():
        _typed(entry.get(key), kind, f"targets[{name}].{key}")
    _typed(entry["info"].get("file"), str, f"targets[{name}].info.file")
    if "weights" in entry["info"]:
        own = entry["info"]["weights"]
        _typed(own, dict, f"targets[{name}].info.weights")
        _typed(own.get("digest"), str, f"targets[{name}].info.weights.digest")
        _typed(own.get("rerounded"), dict, f"targets[{name}].info.weights.rerounded")
        for reason, count in own["rerounded"].items():
            _typed(count, int, f"targets[{name}].info.weights.rerounded[{reason}]")
    if unknown := set(entry) - set(TargetEntry.__dataclass_fields__):
        raise InputError(f"{NAME}: targets[{name}] has unknown keys", got=sorted(unknown))
    return TargetEntry(**entry)


def listed_files(root: Path) -> set[str]:
    """The names of the files that the bundle `root` says it holds; it may be one of another version. Raises InputError
    where its manifest is not one of ours: many programs have a manifest.json."""
    raw = read_json(root / NAME, NAME)
    kinds = {"schema": int, "context": int, "weights_digest": str, "quantization": dict, "targets": dict}
    for key, kind in kinds.items():
        _typed(raw.get(key), kind, key)
    _typed(raw.get("files"), dict, "files")
    files: dict[str, Any] = raw["files"]
    for name, listed in files.items():
        if not isinstance(listed, dict) or not {"size", "sha256"} <= listed.keys():
            raise InputError(f"{NAME}: files[{name}] cannot be used", got=repr(listed), expected="size and sha256")
    return {*files, NAME}


def check_files(root: Path, manifest: Manifest, below: str = "") -> list[str]:
    """What is wrong with the files below a sub-folder: one line for each that is missing, altered or unlisted."""
    problems = []
    for name, entry in manifest.files.items():
        if not name.startswith(below):
            continue
        try:
            size = regular_file(root / name, name)
            if size != entry["size"]:
                problems.append(f"{name}: {size:,} bytes, the manifest says {entry['size']:,}")
            elif sha256(root / name) != entry["sha256"]:
                problems.append(f"{name}: its SHA-256 is not the manifest's")
        except InputError as error:
            problems.append(str(error).replace("\n", ";"))
    listed = set(manifest.files) | {NAME}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.startswith(below) and (path.is_symlink() or not path.is_dir()) and name not in listed:
            problems.append(f"{name}: not in the manifest")
    return problems
