"""One comparison: exports and judgements that are kept, and rounds over all rows side by side.

CACHE/venvs/PEER-KEY             a peer's own environment
CACHE/MODEL/ROW-KEY              an artifact, and row.json: what it cost, its files and their hash
CACHE/MODEL/ROW-KEY.kl-KEY.json  its judgement
CACHE/MODEL/reference-….npz      the original's logits
CACHE/MODEL/logs                 what each process printed

MODEL and KEY are hashes over all that the contents depend on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import smolship.export
import smolship.runtime.engines
from smolship.export.checkpoints import open_checkpoint
from smolship.runtime.bench import Spread
from smolship.runtime.errors import InputError, SmolshipError
from smolship.runtime.files import sha256
from smolship.runtime.folders import new_folder
from smolship.tools.peers.process import Process, environment
from smolship.tools.peers.record import Opened, Record
from smolship.tools.peers.rows import ROWS, Row, peer_module

Update = Callable[[str, str, int, int], None]  # (step, what, done, total)


@dataclass
class Found:
    """What is known of a row. `failed` says why there is no more."""

    row: Row
    folder: Path = Path()
    python: Path = Path()
    record: Record | None = None
    opened: Opened | None = None
    rounds: list[dict[str, dict[str, float]]] = field(default_factory=list)
    memory: dict[str, Any] | None = None
    fidelity: dict[str, Any] | None = None
    failed: str | None = None

    def speeds(self, phase: str) -> dict[str, Spread]:
        """Tokens a second in "prefill" by the prompt's length, or in "decode" by depth."""
        sizes = self.rounds[0][phase] if self.rounds else {}
        return {size: Spread.of([one[phase][size] for one in self.rounds]) for size in sizes}

    def ratio(self, ours: Found) -> dict[str, dict[str, float]]:
        """How many times as fast `ours` is: medians over the rounds, each round of ours with the same of this row's."""
        pairs = list(zip(ours.rounds, self.rounds, strict=False))  # one of them may have failed half-way
        return {
            phase: {n: Spread.of([a[phase][n] / b[phase][n] for a, b in pairs]).median for n in self.speeds(phase)}
            for phase in ("prefill", "decode")
        }


class Lab:
    """See the module. `tokens` 0: no fidelity."""

    def __init__(
        self, model: Path, cache: Path, *, context: int, threads: int, tokens: int, limit_s: float, update: Update
    ):
        if not (model / "config.json").is_file():
            raise InputError("the peers need a checkpoint as a folder", got=model, expected="a folder with config.json")
        self.checkpoint = open_checkpoint(str(model))
        config = self.checkpoint.config
        attention = config.attentions[0]
        self.model, self.cache, self.threads, self.tokens = model.resolve(), cache.resolve(), threads, tokens
        self.limit_s, self.update = limit_s, update
        self.context = min(context, config.positions)
        self.facts = {
            "context": self.context,
            "vocab": config.vocab,
            "kv_heads": attention.kv_heads,
            "head_dim": attention.head_dim,
        }
        files = sorted(p for p in model.iterdir() if p.suffix in (".json", ".safetensors", ".jinja"))
        self.digest = hash_of({path.name: sha256(path) for path in files})
        self.home = self.cache / f"{model.name}-{self.digest[:12]}"

    def run(self, rows: Sequence[Row], rounds: int) -> list[Found]:
        """Export, open, measure and judge the rows. What fails ends that row, not the run."""
        every = [Found(row) for row in rows]
        for found in every:
            with failing(found):
                self.export(found)
        with contextlib.ExitStack() as stack:
            sessions: dict[str, Process] = {}
            for i, found in enumerate(alive(every)):
                self.update("open", found.row.name, i, len(every))
                log = self.home / "logs" / f"{found.row.slug}.session.log"
                sessions[found.row.name] = stack.enter_context(Process(found.python, log))
                with failing(found):
                    self._open(found, sessions[found.row.name])
            for i in range(rounds):
                first = i % len(every)  # each round begins with another row
                for found in alive([*every[first:], *every[:first]]):
                    self.update("rounds", found.row.name, i, rounds)
                    with failing(found):
                        found.rounds.append(sessions[found.row.name].ask("measure"))
            for found in alive(every):
                with failing(found):
                    found.memory = sessions[found.row.name].ask("memory")
            if self.tokens:
                self._judge(alive(every), sessions)
        return every

    def export(self, found: Found) -> None:
        """Find the row's artifact in the cache, or make it."""
        row, module = found.row, peer_module(found.row.peer)
        if module.REQUIREMENTS:
            self.update(f"environment of {row.peer}", "", 0, 1)
        found.python = environment(self.cache / "venvs", row.peer, module.REQUIREMENTS)
        source, made_of = self.model, ""
        if row.source:
            base = Found(next(other for other in ROWS if other.name == row.source))
            self.export(base)
            assert base.record
            source, made_of = base.folder, base.record.hash
        log = self.home / "logs" / f"{row.slug}.export.log"
        with Process(found.python, log) as process:
            self.update(f"export {row.name}", "", 0, 1)
            versions = process.ask("versions", packages=list(module.VERSIONS))
            key = hash_of([versions, row.options, self.context, made_of, _sources(row.peer)])
            found.folder = self.home / f"{row.slug}-{key[:12]}"
            if not found.folder.exists():
                with new_folder(found.folder) as folder:
                    made = process.ask(
                        "export",
                        partial(self.update, f"export {row.name}"),
                        self.limit_s,
                        peer=row.peer,
                        source=str(source),
                        folder=str(folder),
                        options=row.options | self.facts,
                    )
                    files = {name: sha256(folder / name) for name in made.pop("files")}
                    size = sum((folder / name).stat().st_size for name in files)
                    Record(row.name, versions, hash_of(files), size, files=files, **made).write(folder)
        found.record = Record.read(found.folder)

    def _open(self, found: Found, process: Process) -> None:
        """Open the row's session in `process`; its files are those that the record names."""
        assert found.record
        if changed := [name for name, known in found.record.files.items() if sha256(found.folder / name) != known]:
            raise InputError("the artifact was altered", got=changed, todo=f"remove {found.folder}")
        told = process.ask(
            "open",
            peer=found.row.peer,
            folder=str(found.folder),
            threads=self.threads,
            options=found.row.options | self.facts,
        )
        found.opened = Opened(**told)

    def _judge(self, every: list[Found], sessions: dict[str, Process]) -> None:
        """KL of each row from the original, by the session that was measured."""
        reference = self._reference()
        for found in every:
            assert found.record
            known = hash_of([sha256(reference), _engines() if found.row.ours else {}])
            name, path = found.row.name, found.folder.with_name(f"{found.folder.name}.kl-{known[:12]}.json")
            with failing(found):
                if not path.exists():
                    told = sessions[name].ask(
                        "fidelity", partial(self.update, f"KL {name}"), self.limit_s, reference=str(reference)
                    )
                    path.write_text(json.dumps(told | {"hash": found.record.hash}) + "\n")
                found.fidelity = json.loads(path.read_text())

    def _reference(self) -> Path:
        """The original's logits, computed once."""
        path = self.home / f"reference-{self.tokens}-{self.context}.npz"
        if not path.exists():
            partial_path = path.with_suffix(".partial.npz")
            with Process(Path(sys.executable), self.home / "logs" / "reference.log") as process:
                process.ask(
                    "reference",
                    partial(self.update, "the original"),
                    self.limit_s,
                    model=str(self.model),
                    path=str(partial_path),
                    context=self.context,
                    tokens=self.tokens,
                )
            partial_path.rename(path)
        return path


def alive(every: Sequence[Found]) -> list[Found]:
    return [found for found in every if found.failed is None]


@contextlib.contextmanager
def failing(found: Found) -> Iterator[None]:
    """What goes wrong within ends this row only."""
    try:
        yield
    except SmolshipError as error:
        found.failed = str(error)


def hash_of(value: Any) -> str:
    """SHA-256 of what JSON says of it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@cache
def _sources(peer: str) -> dict[str, str]:
    """Hashes of the code that makes a peer's artifacts: its module, and our export where that has a part in it."""
    module = peer_module(peer)
    return {"": sha256(Path(module.__file__ or "")), **(_code(smolship.export.__path__) if module.OURS else {})}


@cache
def _engines() -> dict[str, str]:
    return _code(smolship.runtime.engines.__path__)


def _code(roots: Iterable[str]) -> dict[str, str]:
    return {str(path.relative_to(root)): sha256(path) for root in roots for path in sorted(Path(root).rglob("*.py"))}
