"""Intervals by resampling documents (Efron 1979): tokens of one document are not independent, documents nearly are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smolship.tools.fidelity.judge import Gaps

SAMPLES = 10_000
TAILS = (2.5, 97.5)  # percent: an interval of 95 %


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float


def mean(gaps: Gaps) -> Interval:
    """The mean KL a token."""
    kl, tokens = _by_document(gaps)
    picked = _picks(len(kl))
    return _interval(kl.sum() / tokens.sum(), kl[picked].sum(1) / tokens[picked].sum(1))


def ratio(gaps: Gaps, base: Gaps) -> Interval:
    """The KL over that of `base`, on the same documents: each sample takes both from the same ones."""
    kl, tokens = _by_document(gaps)
    other, others = _by_document(base)
    if not np.array_equal(tokens, others):
        raise ValueError("gaps of different texts cannot be paired")
    picked = _picks(len(kl))
    return _interval(kl.sum() / other.sum(), kl[picked].sum(1) / other[picked].sum(1))


def _by_document(gaps: Gaps) -> tuple[np.ndarray, np.ndarray]:
    """Sum of KL, and tokens, of each document."""
    return np.bincount(gaps.document, gaps.kl), np.bincount(gaps.document)


def _picks(documents: int) -> np.ndarray:
    """Documents of each sample [SAMPLES, documents], the same for all rows."""
    return np.random.default_rng(0).integers(documents, size=(SAMPLES, documents))


def _interval(value: float, samples: np.ndarray) -> Interval:
    low, high = np.percentile(samples, TAILS)
    return Interval(float(value), float(low), float(high))
