"""Golden probes: what the original model said about real text, kept small enough to travel with the bundle.

For each probed position a *sketch* of the distribution is kept: its log-sum-exp, its 256 largest logits and the
negative log-likelihood of the token that really came next. Full logits are compared with a sketch by merging all other
tokens into one bucket. Merging never raises the KL divergence (the data-processing inequality), so what is
reported is a **lower bound** of the full one; on real text the 256 hold nearly all of the probability.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from smolship.runtime.errors import InputError
from smolship.runtime.files import regular_file

TOP = 256  # logits kept a position
FILLED = 8192  # tokens of the longest text that the original reads, and of a cache that is simulated to its end
WORK = 10**13  # multiplications for which a cache is filled to its end: minutes, in an engine or simulated
LEAD = "edge.lead"
ROWS = 32  # positions whose logits are worked on at once
BLOCK = 32  # neighbouring tokens are correlated: confidence intervals come from means over blocks of this many


def filled(context: int, parameters: int, attended: int) -> bool:
    """Whether a cache of `context` tokens is filled by a text to look at its end. Else it is preset (Session.preset).

    parameters  that a token is multiplied with
    attended    multiplications of a token for each one in the cache: 2 * heads * head_dim in each layer
    """
    return context * parameters + attended * context**2 // 2 <= WORK


@dataclass
class Sketch:
    """Distributions at N positions."""

    lse: np.ndarray  # float64 [N], log-sum-exp of all logits; float32 would bias a KL by 1e-6
    ids: np.ndarray  # int32 [N, 256], the largest logits' tokens, in no order
    logits: np.ndarray  # float32 [N, 256]
    nll: np.ndarray  # float64 [N], of the token that came next; NaN where there is none

    @staticmethod
    def of(logits: np.ndarray, following: np.ndarray) -> Sketch:
        """Sketch float32 logits [N, V]; `following` int [N] is the next token, or -1."""
        lse = log_sum_exp(logits)
        top = min(TOP, logits.shape[1])
        pieces = np.array_split(logits, max(len(logits) // ROWS, 1))  # argpartition orders all of them, in 8 bytes each
        ids = np.concatenate([np.argpartition(rows, -top, axis=1)[:, -top:].astype(np.int32) for rows in pieces])
        return Sketch(lse, ids, np.take_along_axis(logits, ids, axis=1), lse - _picked(logits, following))

    @staticmethod
    def of_pieces(pieces: Iterable[np.ndarray], following: np.ndarray) -> Sketch:
        """Of logits that come in pieces, float32 [n, V] each."""
        found, start = [], 0
        for logits in pieces:
            found.append(Sketch.of(logits, following[start : start + len(logits)]))
            start += len(logits)
        return Sketch.join(found)

    def __getitem__(self, rows: slice | np.ndarray) -> Sketch:
        return Sketch(self.lse[rows], self.ids[rows], self.logits[rows], self.nll[rows])

    @staticmethod
    def join(parts: list[Sketch]) -> Sketch:
        return Sketch(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Sketch)))


@dataclass
class Gap:
    """How far one distribution is from another, at N positions, in natural logarithms."""

    kl: np.ndarray  # float64 [N], KL(reference || other), a lower bound
    top1: np.ndarray  # bool [N], both put the same token first
    cosine: np.ndarray  # float64 [N], of the 256 log-probabilities
    max_abs: np.ndarray  # float64 [N], largest difference of those
    nll: np.ndarray  # float64 [N], other's minus reference's for the token that came next; NaN where there is none

    @staticmethod
    def between(reference: Sketch, logits: np.ndarray, following: np.ndarray) -> Gap:
        """From a sketch to full float32 logits [N, V] at the same positions."""
        at = np.take_along_axis(logits, reference.ids, axis=1)
        return Gap.of(reference, log_sum_exp(logits), at, logits.argmax(1), _picked(logits, following))

    @staticmethod
    def of(reference: Sketch, lse: np.ndarray, at: np.ndarray, best: np.ndarray, picked: np.ndarray) -> Gap:
        """From a sketch to what is known of other logits: their log-sum-exp [N], those at the sketch's ids [N, 256],
        the largest one's token [N], and the logit of the token that came next [N]."""
        log_p = reference.logits.astype(np.float64) - reference.lse[:, None]  # [N, 256]
        log_q = at - lse[:, None]
        p, q = np.exp(log_p), np.exp(log_q)
        rest_p, rest_q = np.maximum(1 - p.sum(1), 0), np.maximum(1 - q.sum(1), 1e-300)
        kl = (p * (log_p - log_q)).sum(1)
        kl += np.where(rest_p > 0, rest_p * np.log(np.maximum(rest_p, 1e-300) / rest_q), 0)
        rows = np.arange(len(lse))
        first = reference.ids[rows, reference.logits.argmax(1)]
        norm = np.sqrt(np.square(log_p).sum(1) * np.square(log_q).sum(1))
        return Gap(
            # A NaN in the logits must fail every gate: np.maximum hands it on.
            kl=np.maximum(kl, 0),
            top1=best == first,
            cosine=np.where(norm > 0, (log_p * log_q).sum(1) / np.where(norm > 0, norm, 1), 1.0),
            max_abs=np.abs(log_p - log_q).max(1),
            nll=lse - picked - reference.nll,
        )

    def __getitem__(self, rows: slice | np.ndarray) -> Gap:
        return Gap(*(getattr(self, f.name)[rows] for f in fields(Gap)))

    @staticmethod
    def join(parts: list[Gap]) -> Gap:
        return Gap(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Gap)))


def log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """float64 [N] of logits [N, V], computed in float64, a few rows at a time."""
    out = np.empty(len(logits))
    for start in range(0, len(logits), ROWS):
        rows = logits[start : start + ROWS].astype(np.float64)
        peak = rows.max(axis=1)
        out[start : start + ROWS] = peak + np.log(np.exp(rows - peak[:, None]).sum(axis=1))
    return out


def _picked(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """float64 [N]: the logit of ids[i] in row i, NaN where ids[i] is -1."""
    picked = np.take_along_axis(logits, np.maximum(ids, 0)[:, None], axis=1)[:, 0].astype(np.float64)
    return np.where(ids >= 0, picked, np.nan)


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error, from means over blocks of 32 neighbours; NaN entries are left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    size = min(BLOCK, max(len(values) // 4, 1))
    blocks = values[: len(values) // size * size].reshape(-1, size).mean(1)
    error = float(blocks.std(ddof=1) / np.sqrt(len(blocks))) if len(blocks) > 1 else float("nan")
    return float(values.mean()), error


@dataclass
class Window:
    """A run of tokens fed from position 0; every position is probed."""

    kind: str  # "english", "code", or "text" of the user's own
    ids: np.ndarray  # int32 [S]

    @property
    def following(self) -> np.ndarray:
        """The token after each position, -1 after the last."""
        return np.append(self.ids[1:], -1)


T = TypeVar("T", Sketch, Gap)


class Probes:
    """Everything that `probes.npz` holds.

    windows   the tokens
    sketches  "original" and "TARGET.simulated", over all positions in order ("TARGET.ARITHMETIC.…" for what else the
              engine can compute in, in this and in all names that follow); "TARGET.edge", at the positions "edge.at"
              of a cache that "edge.ids" fills: some on the way, and the last. Where filling it would take too long,
              "edge.lead" says how many tokens before each stretch of those are fed; what lies before is preset: the
              keys and values of the target's drift, over and over; "TARGET.digits", of "digits.ids" from the first
              position of "digits.at" to the last: those before the digits of a repeat (digits.py)
    gaps      "STAGE" or "TARGET.STAGE": gaps measured at export; "decoder.far" at the positions "far.at" of one long
              text, up to the end of the context or as far as the export went
    arrays    further arrays by name ("greedy.…", "drift.…", "edge.…", "far.at", "digits.…"); where heads differ by
              layer, keys and values of "drift.TARGET" are filled up, and "drift.TARGET.heads" has their count and size;
              where some convolve, those are of the others, and "drift.TARGET.inputs" is what the layers
              "drift.TARGET.convolutions" were given
    facts     what was run: tokens, seeds, versions, …; "nonfinite", by the name of the gap: the operator that made the
              first infinity or NaN
    """

    def __init__(self, windows: list[Window], facts: dict[str, Any] | None = None):
        self.windows = windows
        self.sketches: dict[str, Sketch] = {}
        self.gaps: dict[str, Gap] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.facts = facts or {}

    def arithmetics(self, target: str) -> list[str]:
        """In what else the target's engine was simulated, as TARGET.NAME.simulated."""
        names = (name.split(".") for name in self.sketches)
        return sorted(name[1] for name in names if len(name) == 3 and (name[0], name[2]) == (target, "simulated"))

    def rows(self, index: int) -> slice:
        """Where window `index` lies among the probed positions."""
        start = sum(len(w.ids) for w in self.windows[:index])
        return slice(start, start + len(self.windows[index].ids))

    def save(self, path: Path) -> None:
        arrays: dict[str, np.ndarray] = {f"array/{name}": value for name, value in self.arrays.items()}
        for i, window in enumerate(self.windows):
            arrays[f"window/{i}"] = window.ids
        for group, items in (("sketch", self.sketches), ("gap", self.gaps)):
            for name, item in items.items():
                for f in fields(item):
                    arrays[f"{group}/{name}/{f.name}"] = getattr(item, f.name)
        head = {"windows": [w.kind for w in self.windows], "facts": self.facts}
        arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
        np.savez_compressed(path, allow_pickle=False, **arrays)

    def states(self, name: str) -> list[np.ndarray]:
        """What the simulation of that name kept of the first tokens, layer by layer: keys and values float32
        [2, N, G, K], or what a convolution was given, [1, N, 1, D]. Empty where it kept nothing."""
        keys, values = (self.arrays.get(f"drift.{name}.{part}") for part in ("keys", "values"))
        if keys is None or values is None:
            return []
        found = [np.stack(both).astype(np.float32) for both in zip(keys, values, strict=True)]
        heads = self.arrays.get(f"drift.{name}.heads")
        if heads is not None:
            found = [kept[:, :, :count, :size] for kept, (count, size) in zip(found, heads.tolist(), strict=True)]
        places, inputs = (self.arrays.get(f"drift.{name}.{part}", ()) for part in ("convolutions", "inputs"))
        for at, given in zip(places, inputs, strict=True):
            found.insert(int(at), given[None].astype(np.float32))
        return found

    @staticmethod
    def load(path: Path, limit: int = 1 << 30, whole: bool = True) -> Probes:
        """Read `probes.npz`, or, where that is not the `whole`, a part of it; nothing in it is unpickled, and no more
        than `limit` bytes are unpacked."""
        regular_file(path, "probes")
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(item.file_size for item in archive.infolist())
            if size > limit:
                raise InputError("the probes are too large", got=f"{size:,} bytes", expected=f"at most {limit:,}")
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            head = json.loads(bytes(arrays.pop("head")))
            windows = [Window(str(kind), arrays.pop(f"window/{i}")) for i, kind in enumerate(head["windows"])]
            probes = Probes(windows, head["facts"])
            probes.sketches = _grouped(arrays, "sketch", Sketch)
            probes.gaps = _grouped(arrays, "gap", Gap)
            probes.arrays = {k.removeprefix("array/"): v for k, v in arrays.items() if k.startswith("array/")}
            if whole:
                _check_positions(probes)
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            OSError,
            EOFError,
            RuntimeError,
            MemoryError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise InputError(
                "the probes cannot be read", got=f"{error} in {path}", todo="export the bundle again"
            ) from None
        return probes


def _check_positions(probes: Probes) -> None:
    """Raise ValueError where positions are not those of the sketches and gaps that are said to be there."""
    probed = sum(len(window.ids) for window in probes.windows)
    for name, sketch in probes.sketches.items():
        if not name.endswith((".edge", ".digits")) and len(sketch.lse) != probed:
            raise ValueError(f"{name} has {len(sketch.lse):,} positions, the windows have {probed:,}")
    if not isinstance(probes.facts, dict):
        raise ValueError("the facts are no object")
    edges = {name: len(sketch.lse) for name, sketch in probes.sketches.items() if name.endswith(".edge")}
    far = {name: len(gap.kl) for name, gap in probes.gaps.items() if name == "decoder.far"}
    for where, rows in (edges | far).items():
        at = probes.arrays.get("far.at" if where in far else "edge.at")
        if at is None and where in edges:
            continue  # of an older export: the last positions
        if (
            at is None
            or at.shape != (rows,)
            or at.dtype.kind != "i"
            or not rows
            or at[0] < 0
            or (np.diff(at) < 1).any()
        ):
            raise ValueError(f"the positions of {where} are not there, or not in order")
    _check_digits(probes)
    lead = probes.arrays.get(LEAD)
    if lead is not None and (lead.shape != (1,) or lead.dtype.kind != "i" or lead[0] < 0):
        raise ValueError(f"{LEAD} is no number of tokens")
    ids, at = probes.arrays.get("edge.ids"), probes.arrays.get("edge.at")
    if edges and (ids is None or ids.ndim != 1 or (at is not None and at[-1] != len(ids) - 1)):
        raise ValueError("edge.ids does not end where the sketches of the cache's end do")


def _check_digits(probes: Probes) -> None:
    """Raise ValueError where the repeated digits are not those of the sketches that are said to be of them."""
    names = [name for name in probes.sketches if name.endswith(".digits")]
    ids, at = probes.arrays.get("digits.ids"), probes.arrays.get("digits.at")
    if not names:
        return
    if (
        ids is None
        or at is None
        or ids.ndim != 1
        or at.ndim != 1
        or not len(at)
        or {ids.dtype.kind, at.dtype.kind} != {"i"}
    ):
        raise ValueError("the digits that are repeated are not there")
    if at[0] < 0 or at[-1] > len(ids) - 2 or (np.diff(at) < 1).any():
        raise ValueError("the positions of digits are not in order, or not in their text")
    for name in names:
        moved = probes.arrays.get(f"digits.{name.removesuffix('.digits')}.moved")
        if len(probes.sketches[name].lse) != at[-1] - at[0] + 1 or moved is None or moved.shape != at.shape:
            raise ValueError(f"{name} is not of the digits that are repeated")


def _grouped(arrays: dict[str, np.ndarray], group: str, kind: type[T]) -> dict[str, T]:
    """The `kind`s that lie in `arrays` as "group/name/field"."""
    found = {}
    for name in sorted({key.split("/")[1] for key in arrays if key.startswith(f"{group}/")}):
        parts = [arrays[f"{group}/{name}/{f.name}"] for f in fields(kind)]
        if len({len(part) for part in parts}) != 1:
            raise ValueError(f"{group} {name} has parts of different lengths")
        found[name] = kind(*parts)
    return found
