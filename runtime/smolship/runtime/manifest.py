"""manifest.json: what a bundle holds, and the SHA-256 of each of its files. Read as untrusted input."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from smolship.runtime.errors import InputError, show
from smolship.runtime.facts import GenerationFacts, ModelFacts, check_facts, check_model
from smolship.runtime.files import inside, is_folder, look, plain_name, read_json, regular_file, relative, sha256
from smolship.runtime.records import read_record, wrong

SCHEMA = 2
NAME = "manifest.json"


@dataclass(frozen=True)
class CalibrationFacts:
    """How a set of weights was calibrated.

    text       "self", or "file"
    sha256     of the user's text
    tokens     that were looked at, in all windows
    steps      of training, whole or of each layer
    lifted     linears that stay as a GGUF file held them
    kl_before  mean KL divergence from the original on windows that nothing was fitted to, without calibration; None
               where it is not finite
    kl_after   with it
    notes      what else there is to say
    """

    text: str
    sha256: str | None
    method: str
    effort: str
    seed: int
    tokens: int
    steps: int
    lifted: int
    kl_before: float | None
    kl_after: float | None
    notes: list[str]


@dataclass(frozen=True)
class Quantization:
    """How the one set of weights is held: the bits and the group that were asked for, and what came of it.

    share_at_4_bits  of the parameters of the layers' linears
    notes            what the export had to say, one line each
    lifted           matrices that are as a GGUF file held them
    calibration      None: the set was not calibrated
    """

    name: str
    linear: int
    embedding: int
    head: int
    group: int
    share_at_4_bits: float
    notes: list[str]
    lifted: int
    calibration: CalibrationFacts | None = None


@dataclass(frozen=True)
class OwnWeights:
    """The set that a target holds instead of the bundle's, some of which it could not hold as it is. Its tensors are
    listed in weights-TARGET.json.

    rerounded  reason -> how many lifted matrices were rounded again
    """

    digest: str
    rerounded: dict[str, int]

    def __str__(self) -> str:
        why = "; ".join(f"{count:,} with {reason}" for reason, count in self.rerounded.items())
        count = sum(self.rerounded.values())
        return f"{count:,} lifted matrices were rounded again, as this target cannot hold them: {why}"


@dataclass
class TargetEntry:
    """One artifact of the bundle.

    target           format-backend, such as "onnx-cpu"
    engine           what opens it
    folder           where it lies, relative to the bundle
    info             what the engine is opened with: at least `file`, relative to `folder`
    weights          its own set, where it does not hold the bundle's
    bytes_per_token  weight bytes of the artifact that one decoded token reads; None where the bundle does not say
    cache_bytes      of the states of all layers in the engine's numbers, the context filled; None as before
    """

    target: str
    engine: str
    folder: str
    info: dict[str, Any]
    weights: OwnWeights | None = None
    bytes_per_token: int | None = None
    cache_bytes: int | None = None

    @property
    def own_digest(self) -> str | None:
        """The digest of its weights where they are not the bundle's."""
        return self.weights.digest if self.weights else None

    def rerounded(self) -> str:
        """What was rounded again for this target, and why, in words; empty where nothing was."""
        return str(self.weights or "")

    def to_json(self) -> dict[str, Any]:
        more = {
            "weights": self.weights and asdict(self.weights),
            "weight_bytes_per_token": self.bytes_per_token,
            "cache_bytes": self.cache_bytes,
        }
        info = self.info | {key: value for key, value in more.items() if value is not None}
        return {"target": self.target, "engine": self.engine, "folder": self.folder, "info": info}

    @staticmethod
    def from_json(raw: Any, file: str, at: str) -> TargetEntry:
        listed = read_record(_Listed, raw, file, at)
        info = read_record(_Info, listed.info, file, f"{at}.info", lenient=(_Info, OwnWeights))
        return TargetEntry(
            listed.target,
            listed.engine,
            listed.folder,
            {key: value for key, value in listed.info.items() if key not in _Info.__annotations__ or key == "file"},
            info.weights,
            _positive(info.weight_bytes_per_token),
            _positive(info.cache_bytes),
        )


@dataclass
class _Listed:
    """A target as the manifest lists it."""

    target: str
    engine: str
    folder: str
    info: dict[str, Any]


@dataclass
class _Info:
    file: str
    weights: OwnWeights | None
    weight_bytes_per_token: Any
    cache_bytes: Any


def _positive(count: Any) -> int | None:
    """A number of bytes, of 63 bits as in the apps' readers; None for anything else."""
    return count if type(count) is int and 0 < count < 1 << 63 else None


@dataclass(frozen=True)
class StepCost:
    """What the process of a step of the export took; `peak_bytes` is None where the system does not say. `run` is None
    where the step was done when the bundle was written, and says else, in words, in which run that was. `parts` are the
    seconds of its parts, by their names, where it has some; those that were kept took theirs in an earlier run."""

    seconds: float
    peak_bytes: int | None
    run: str | None = None
    parts: dict[str, float] | None = None


@dataclass(frozen=True)
class ListedFile:
    size: int
    sha256: str


@dataclass
class Manifest:
    """See the fields; `tools` are versions of packages, by name."""

    model: ModelFacts
    generation: GenerationFacts
    context: int  # tokens that the cache holds
    quantization: Quantization
    weights_digest: str
    weights_bytes: int  # of the set, before a target stores it, that one decoded token reads
    targets: dict[str, TargetEntry]
    tools: dict[str, Any]
    steps: dict[str, StepCost]
    files: dict[str, ListedFile] = field(default_factory=dict)  # by relative path
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        raw = asdict(self) | {"targets": {name: entry.to_json() for name, entry in self.targets.items()}}
        if self.quantization.calibration is None:  # as older versions wrote it
            del raw["quantization"]["calibration"]
        return raw

    def write(self, root: Path) -> None:
        """List every file below `root` and write the manifest there."""
        self.files = {
            path.relative_to(root).as_posix(): ListedFile(path.stat().st_size, sha256(path))
            for path in sorted(root.rglob("*"))
            if path.is_file() and path != root / NAME
        }
        (root / NAME).write_text(json.dumps(self.to_json(), indent=1) + "\n")


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
            got=f"schema {show(raw.get('schema'))}",
            expected=SCHEMA,
            todo="export it again with this smolship",
        )
    lenient = (ModelFacts, Quantization, CalibrationFacts, StepCost, ListedFile)
    manifest = read_record(Manifest, raw, NAME, lenient=lenient)
    if not 1 <= manifest.context <= 1 << 24:
        raise wrong(f"{NAME}: context", manifest.context, "1 to 16,777,216")
    check_model(manifest.model)
    check_facts(manifest.generation, manifest.model.vocab)
    for name, entry in manifest.targets.items():
        plain_name(name, f"{NAME}: a target's name")
        folder = relative(entry.folder, f"{NAME}: a target's folder")
        file = relative(entry.info["file"], f"{NAME}: a target's file")
        inside(root, f"{folder}/{file}")
    for name in manifest.files:
        inside(root, relative(name, f"{NAME}: a file's name"))
    return manifest


def listed_files(root: Path) -> set[str]:
    """The names of the files that the bundle `root` says it holds; it may be one of another version. Raises InputError
    where its manifest is not one of ours: many programs have a manifest.json."""
    return {
        *read_record(_AnyVersion, read_json(root / NAME, NAME), NAME, lenient=(_AnyVersion, ListedFile)).files,
        NAME,
    }


@dataclass
class _AnyVersion:
    """What every version of a manifest has."""

    schema: int
    context: int
    weights_digest: str
    quantization: dict[str, Any]
    targets: dict[str, Any]
    files: dict[str, ListedFile]


def check_files(root: Path, manifest: Manifest, below: str = "") -> list[str]:
    """What is wrong with the files below a sub-folder: one line for each that is missing, altered or unlisted."""
    problems = []
    for name, listed in manifest.files.items():
        if not name.startswith(below):
            continue
        try:
            size = regular_file(root / name, name)
            if size != listed.size:
                problems.append(f"{name}: {size:,} bytes, the manifest says {listed.size:,}")
            elif sha256(root / name) != listed.sha256:
                problems.append(f"{name}: its SHA-256 is not the manifest's")
        except InputError as error:
            problems.append(str(error).replace("\n", ";"))
    known = set(manifest.files) | {NAME}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.startswith(below) and (path.is_symlink() or not path.is_dir()) and name not in known:
            problems.append(f"{name}: not in the manifest")
    return problems
