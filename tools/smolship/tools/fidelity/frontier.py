"""One comparison: artifacts, importance matrix and judgements, kept in a folder, so that an interrupted run goes on.

CACHE/small-KEY                      the model that is trained here
CACHE/MODEL/ROW-KEY                  an artifact, as `smolship.tools.peers` keeps it
CACHE/MODEL/ROW-KEY.gaps-KEY.npz     its judgement, token by token
CACHE/MODEL/imatrix-KEY.npz, calibration-KEY.txt
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from smolship.export.arrays import save
from smolship.runtime.tokenizer import Tokenizer
from smolship.tools.fidelity import imatrix, readers
from smolship.tools.fidelity.bootstrap import Interval, mean, ratio
from smolship.tools.fidelity.judge import Gaps, Judge, windows
from smolship.tools.fidelity.readers import Stored
from smolship.tools.fidelity.rows import BASE, CALIBRATION, IMATRIX, with_files, with_size
from smolship.tools.fidelity.texts import texts
from smolship.tools.peers.lab import Found, Lab, Update, failing, hash_of
from smolship.tools.peers.rows import Row

CALIBRATION_TOKENS, WINDOW = 16_384, 256


@dataclass
class Point:
    """A row of the comparison. `failed` says why there is no more."""

    row: Row
    file_bytes: int | None = None
    stored_bytes: int | None = None
    bits_per_weight: float | None = None
    export_seconds: float | None = None
    gaps: Gaps | None = None
    kl: Interval | None = None
    ratio: Interval | None = None
    failed: str | None = None

    @property
    def top1(self) -> float | None:
        return None if self.gaps is None else float(self.gaps.top1.mean())


class Frontier:
    """Rows of one model. `tokens` of text are judged, up to `longest` of each document."""

    def __init__(
        self, model: Path, cache: Path, *, tokens: int, longest: int, threads: int, limit_s: float, update: Update
    ):
        self.lab = Lab(model, cache, context=2048, threads=threads, tokens=0, limit_s=limit_s, update=update)
        self.checkpoint, self.update = self.lab.checkpoint, update
        self.tokenizer = Tokenizer(self.checkpoint.files["tokenizer.json"])
        self.texts = windows(self.tokenizer, texts().judging, tokens, longest)
        self.tokens = tokens

    def run(self, rows: Sequence[Row]) -> list[Point]:
        """Make, read back and judge the rows. What fails ends that row, not the run."""
        self.lab.home.mkdir(parents=True, exist_ok=True)
        asked = {name for row in rows for name, value in row.options.items() if value is True}
        files = {name: {IMATRIX: self._imatrix, CALIBRATION: self._calibration}[name]() for name in sorted(asked)}
        points: list[Point] = []
        for i, row in enumerate(with_files(rows, files)):
            sizes = {point.row.name: point.stored_bytes for point in points}
            found, point = Found(with_size(row, sizes)), Point(row)
            points.append(point)
            with failing(found):
                self.update("rows", row.name, i, len(rows))
                self.lab.export(found)
                self._judge(found, point)
            point.failed = found.failed
        self.update("rows", "", len(rows), len(rows))
        base = next((point.gaps for point in points if point.row.name == BASE), None)
        for point in points:
            if point.gaps:
                point.kl = mean(point.gaps)
                point.ratio = ratio(point.gaps, base) if base else None
        return points

    def _judge(self, found: Found, point: Point) -> None:
        assert found.record
        stored = readers.read(found.row.peer, found.folder, self.checkpoint)
        point.file_bytes, point.export_seconds = found.record.bytes, found.record.seconds
        point.stored_bytes, point.bits_per_weight = stored.bytes, stored.bits_per_weight
        key = hash_of([found.record.hash, self._read()])[:12]
        path = found.folder.with_name(f"{found.folder.name}.gaps-{key}.npz")
        if not path.exists():
            save(path, vars(self._gaps(found.row.name, stored)))
        with np.load(path, allow_pickle=False) as file:
            point.gaps = Gaps(**{name: file[name] for name in file.files})

    def _gaps(self, name: str, stored: Stored) -> Gaps:
        return self._original.gaps(stored.config, stored.source, self._positions(f"KL {name}", self.tokens))

    @cached_property
    def _original(self) -> Judge:
        return Judge(self.checkpoint, self.texts, self._positions("original", self.tokens))

    def _read(self) -> list[Any]:
        """What is judged on."""
        return [ids.tolist() for ids in self.texts]

    def _imatrix(self) -> Path:
        read = self._calibrating
        path = self.lab.home / f"imatrix-{hash_of([ids.tolist() for ids in read])[:12]}.npz"
        if not path.exists():
            progress = self._positions("importance matrix", CALIBRATION_TOKENS)
            save(path, imatrix.importance(self.checkpoint, read, progress))
        return path.resolve()

    def _calibration(self) -> Path:
        """The same text as the importance matrix's, as a file."""
        text = "\n\n".join(self.tokenizer.decode(ids.tolist()) for ids in self._calibrating)
        path = self.lab.home / f"calibration-{hash_of(text)[:12]}.txt"
        path.write_text(text)
        return path.resolve()

    @property
    def _calibrating(self) -> list[np.ndarray]:
        return windows(self.tokenizer, texts().calibration, CALIBRATION_TOKENS, WINDOW, whole=True)

    def _positions(self, step: str, total: int) -> Any:
        """Progress in positions that have passed through the model."""
        done = 0.0

        def more(positions: float) -> None:
            nonlocal done
            done += positions
            self.update(step, "", int(done), total)

        return more


def best(points: Sequence[Point]) -> set[str]:
    """Names of the rows on the frontier: none that is no larger is nearer to the original."""
    judged = [(p.row.name, p.stored_bytes, p.kl.value) for p in points if p.kl and p.stored_bytes]
    return {
        name for name, size, kl in judged if not any(s <= size and k < kl for other, s, k in judged if other != name)
    }
