"""Sketches and gaps against exact divergences; probes as a file."""

from __future__ import annotations

import numpy as np
import pytest

from smolship.runtime.errors import InputError
from smolship.runtime.probes import TOP, Gap, Probes, Sketch, Window, mean_and_error

RANDOM = np.random.default_rng(11)


def logits(rows: int, vocab: int, scale: float = 3.0) -> np.ndarray:
    return RANDOM.normal(0, scale, (rows, vocab)).astype(np.float32)


def exact(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(softmax(p) || softmax(q)) of every row, over the whole vocabulary."""
    p, q = (x - np.logaddexp.reduce(x.astype(np.float64), axis=1, keepdims=True) for x in (p, q))
    return (np.exp(p) * (p - q)).sum(axis=1)


def test_the_gap_is_exact_where_every_token_is_kept():
    p, q, following = logits(9, TOP), logits(9, TOP), np.append(RANDOM.integers(0, TOP, 8), -1)
    gap = Gap.between(Sketch.of(p, following), q, following)
    np.testing.assert_allclose(gap.kl, exact(p, q), rtol=1e-9)
    np.testing.assert_array_equal(gap.top1, p.argmax(1) == q.argmax(1))
    rows = np.arange(8)
    p, q = (x - np.logaddexp.reduce(x.astype(np.float64), axis=1, keepdims=True) for x in (p, q))
    np.testing.assert_allclose(gap.nll[:8], (p - q)[rows, following[:8]], rtol=1e-6, atol=1e-9)
    assert np.isnan(gap.nll[8])


@pytest.mark.parametrize("difference", [1e-4, 0.1, 3.0])
def test_the_gap_is_a_lower_bound_of_the_whole(difference):
    p = logits(20, 5000)
    q = p + difference * logits(20, 5000, 1.0)
    nothing = np.full(20, -1)
    kl, whole = Gap.between(Sketch.of(p, nothing), q, nothing).kl, exact(p, q)
    assert (kl <= whole * (1 + 1e-6)).all() and (kl > whole / 20).all()


def test_equal_logits_have_no_gap():
    p, nothing = logits(5, 5000), np.full(5, -1)
    gap = Gap.between(Sketch.of(p, nothing), p, nothing)
    assert gap.kl.max() < 1e-12 and gap.top1.all() and gap.max_abs.max() == 0


def test_the_error_of_a_mean_sees_correlation():
    """Runs of 32 equal values are worth one value each."""
    values = np.repeat(RANDOM.normal(size=64), 32)
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std() / np.sqrt(64), rel=0.02)


def test_a_file_gives_back_what_was_saved(tmp_path):
    windows = [Window("english", np.arange(6, dtype=np.int32)), Window("code", np.arange(4, dtype=np.int32))]
    probes = Probes(windows, {"tokens": 10})
    p, following = logits(10, 300), np.concatenate([w.following for w in windows])
    probes.sketches["original"] = Sketch.of(p, following)
    probes.gaps["onnx.ulp"] = Gap.between(probes.sketches["original"], logits(10, 300), following)
    probes.arrays["edge.ids"] = np.arange(3)
    probes.save(tmp_path / "probes.npz")
    again = Probes.load(tmp_path / "probes.npz")
    assert [w.kind for w in again.windows] == ["english", "code"] and again.facts == {"tokens": 10}
    assert again.rows(1) == slice(6, 10)
    np.testing.assert_array_equal(again.sketches["original"].logits, probes.sketches["original"].logits)
    np.testing.assert_array_equal(again.gaps["onnx.ulp"].kl, probes.gaps["onnx.ulp"].kl)
    np.testing.assert_array_equal(again.arrays["edge.ids"], np.arange(3))


def test_bad_files_are_refused(tmp_path):
    path = tmp_path / "probes.npz"
    for content in (b"", b"PK\x03\x04 not a zip file"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="probes"):
            Probes.load(path)
    np.savez(path, head=np.array([{"pickled": print}], dtype=object))
    with pytest.raises(InputError, match="probes cannot be read"):
        Probes.load(path)
    Probes([Window("text", np.zeros(1 << 16, np.int32))]).save(path)
    with pytest.raises(InputError, match="too large"):
        Probes.load(path, limit=1000)
