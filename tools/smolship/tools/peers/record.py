"""What is kept of an artifact: its files, and what they cost."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

RECORD = "row.json"


@dataclass(frozen=True)
class Record:
    """row.json, beside the artifact.

    versions        of the packages that made it
    hash            over the files; `files` is name -> SHA-256
    seconds         of the export; `peak_bytes` None where the system does not say
    weights_digest  of ours
    """

    row: str
    versions: dict[str, str]
    hash: str
    bytes: int
    seconds: float
    peak_bytes: int | None
    files: dict[str, str]
    weights_digest: str | None = None

    def write(self, folder: Path) -> None:
        (folder / RECORD).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Record:
        return cls(**json.loads((folder / RECORD).read_text()))


@dataclass(frozen=True)
class Opened:
    """What opening an artifact told."""

    load_ms: float
    runtime: str
